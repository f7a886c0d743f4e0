"""What may be registered of a camera: an id as the standard has it, and an address that opens nothing by itself."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.cameras import GB28181, RTSP, is_camera, refuse_camera
from gateway.core.model import Device, RegistryChange, Scalar
from tests.core.worlds import START, new_engine

GOOD = {GB28181: "37021501001320000001", RTSP: "rtsp://10.1.2.3:554/Streaming/Channels/101?transportmode=unicast"}


def test_an_id_and_an_address_are_taken() -> None:
    assert refuse_camera(GOOD) is None
    assert refuse_camera({RTSP: "rtsps://camera-7.example/main"}) is None
    assert refuse_camera({"serial": "x"}) is None


@pytest.mark.parametrize(
    "id",
    [
        "3702150100132000001",  # 19
        "370215010013200000001",  # 21
        "3702150100132000000a",
        "３７０２１５０１００１３２０００００００１",
        "37021501002000000001",  # 200 is a platform
        "37021501001100000001",
        37021501001320000001,
        True,
    ],
)
def test_what_is_no_id_is_refused(id: Scalar) -> None:
    assert str(refuse_camera({GB28181: id})).startswith("gb28181 ")


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:Secret-7@10.1.2.3/main",
        "rtsp://admin@10.1.2.3/main",
        "rtsp://10.1.2.3/main?user=admin&password=Secret-7",
        "rtsp://10.1.2.3/main?PWD=Secret-7",
        "rtsp://10.1.2.3/main?access_token=Secret-7",
        "rtsp://10.1.2.3/user=admin_password=Secret-7_channel=1.sdp",
        "rtsp://10.1.2.3/main?%70assword=Secret-7",
    ],
)
def test_a_password_is_refused_and_not_said_again(address: str) -> None:
    problem = str(refuse_camera({RTSP: address}))
    assert "without" in problem
    assert "Secret" not in problem
    assert "admin" not in problem


@pytest.mark.parametrize(
    "address",
    [
        "http://10.1.2.3/main",
        "javascript:alert(1)",
        "rtsp:main",
        "rtsp://",
        "rtsp://[::1/main",
        "rtsp://10.1.2.3:99999/main",
        'rtsp://10.1.2.3/"onclick',
        "rtsp://10.1.2.3/a b",
        "rtsp://10.1.2.3/\n",
        "rtsp://10.1.2.3/" + "a" * 250,
        "rtsp://摄像机/main",
        7,
    ],
)
def test_what_is_no_address_of_a_player_is_refused(address: Scalar) -> None:
    assert str(refuse_camera({RTSP: address})).startswith("rtsp ")


def test_the_registry_refuses_the_device_and_says_which() -> None:
    engine = new_engine()
    camera = Device("cam-1", "plate-camera", "agent-1", "gate", attributes=dict(GOOD))
    bad = replace(camera, attributes={GB28181: "123"})

    assert engine.feed(RegistryChange("test", devices=(bad,)), START).answer == (
        "device cam-1: gb28181 is a text of 20 digits, as GB/T 28181 has it"
    )
    assert not engine.has_device("cam-1")
    assert engine.feed(RegistryChange("test", devices=(camera,)), START).answer == "done"


def test_a_camera_is_one_by_its_kind_or_by_what_is_registered_of_it() -> None:
    lane = Device("lane-1", "fire-lane-occupancy", "agent-1", "gate")
    assert is_camera(replace(lane, profile="plate-camera"), "plate-camera")
    assert not is_camera(lane, "lane")
    assert is_camera(replace(lane, attributes={GB28181: GOOD[GB28181]}), "lane")
