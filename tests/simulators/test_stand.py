"""The test stand: what can be played, where it is put, what it refuses, and who may ask."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.core.model import SIMULATED
from simulators.demo import START_MS
from simulators.district import District, generate_test_communities, read, write
from simulators.player import PlayClock
from simulators.stand import GARBAGE, FaultsWish, RunWish, Stand, StandError, create_app

KEY = b"a-key-of-the-stand-with-32-letters"
ID = "a-run-of-the-stand"


@pytest.fixture(scope="module")
def district() -> District:
    return generate_test_communities(5, 2)


@pytest.fixture
def stand(district: District) -> Stand:
    return Stand(district, PlayClock(0.001, 0, START_MS))


def wish(*scenarios: str, id: str = ID, **more: object) -> RunWish:
    return RunWish.model_validate({"id": id, "scenarios": scenarios, "communities": ["c998"], **more})


def test_its_communities_are_marked_and_come_back_from_their_file(district: District, tmp_path: Path) -> None:
    write(district, tmp_path / "stand.json")

    assert [settlement.community.id for settlement in district.communities] == ["c998", "c999"]
    for settlement in district.communities:
        roots = [place for place in settlement.places if place.parent is None]
        assert [root.attributes[SIMULATED] for root in roots] == [True]
    assert read(tmp_path / "stand.json") == district
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json"):
        read(tmp_path / "broken.json")


async def test_what_is_asked_for_is_placed_once_with_what_must_come_of_it(stand: Stand) -> None:
    run = stand.start(wish("sos-pressed", "smoke-puff", "smoke-and-heat"))

    expected = {one.scenario: one for one in run.expected}
    assert set(expected) == {"sos-pressed", "smoke-puff", "smoke-and-heat"}
    assert (expected["sos-pressed"].category, expected["sos-pressed"].within) == ("ext:21-03", 5_000)
    assert (expected["smoke-puff"].category, expected["smoke-puff"].place) == (None, None)
    assert all(one.community == "c998" and run.started_at < one.begins < one.ends <= run.until for one in run.expected)
    assert stand.start(wish("gas-rising")) == run, "the same id is the same run"
    assert stand.describe()["run"] == ID


async def test_one_run_after_the_other_and_elsewhere(stand: Stand) -> None:
    first = stand.start(wish("sos-pressed"))
    with pytest.raises(StandError) as busy:
        stand.start(wish("sos-pressed", id=f"{ID}-2"))
    assert stand.stop(ID).state == "stopped"
    second = stand.start(wish("sos-pressed", id=f"{ID}-2"))

    assert busy.value.code == "busy"
    assert first.expected[0].device != second.expected[0].device, "the first one's incident may be open still"


async def test_a_late_message_is_expected_when_it_is_sent(stand: Stand) -> None:
    run = stand.start(wish("sos-pressed", "sos-pressed-late"))

    [late] = [one for one in run.expected if one.scenario == "sos-pressed-late"]
    [soon] = [one for one in run.expected if one.scenario == "sos-pressed"]
    assert late.begins - soon.begins > 200_000


async def test_another_pace_moves_the_acts_and_not_what_rules_hold(stand: Stand) -> None:
    written = stand.start(wish("smoke-persists"))
    stand.stop(ID)
    faster = stand.start(wish("smoke-persists", id=f"{ID}-2", pace=2))

    spans = [run.expected[0].ends - run.expected[0].begins for run in (written, faster)]
    assert spans[0] - spans[1] == 180_000, "six minutes in three"


async def test_what_cannot_be_played_is_told(stand: Stand) -> None:
    for asked, code in (
        (wish("no-such-scenario"), "unknown"),
        (wish("sos-pressed", communities=["c001"]), "unknown"),
        (wish(*(one["id"] for one in stand.describe()["scenarios"] if not one["hours"])), "no-device"),
    ):
        with pytest.raises(StandError) as refused:
            stand.start(asked)
        assert refused.value.code == code
    assert "smoke-drill" not in {one["id"] for one in stand.describe()["scenarios"]}, "a drill is the registry's"


async def test_faults_come_as_often_as_asked(stand: Stand) -> None:
    run = stand.start(wish("sos-pressed", faults=FaultsWish(late=2, garbage=7).model_dump()))
    for source in stand._sources():
        source.taken.clear()

    stand._look(run.until - 1)

    assert run.injected == {"late": 2, "garbage": 7}
    late = [(line.device, line.detail) for line in run.log if line.what == "late"]
    assert all(device and detail.startswith(f"{device}:") for device, detail in late)
    thrown = [line.detail for line in run.log if line.what == "garbage"]
    assert {line.rpartition(" ")[0] for line in thrown} == {name for name, _ in GARBAGE}
    stand._look(run.until)
    assert stand.read(ID).state == "done"


async def test_nobody_without_the_key_learns_anything(stand: Stand) -> None:
    transport = httpx.ASGITransport(create_app(stand, KEY))
    async with httpx.AsyncClient(transport=transport, base_url="http://stand") as client:
        told = [
            (await client.get("/stand")).status_code,
            (await client.get("/stand", headers={"Authorization": "Bearer wrong"})).status_code,
        ]
        client.headers["Authorization"] = f"Bearer {KEY.decode()}"
        asked = await client.post("/runs", json=wish("sos-pressed").model_dump())
        bad = await client.post("/runs", json={"id": ID})
        busy = await client.post("/runs", json=wish("sos-pressed", id=f"{ID}-2").model_dump())
        found = await client.get(f"/runs/{ID}")
        stopped = await client.post(f"/runs/{ID}/stop")
        missing = await client.get("/runs/none")

    assert told == [401, 401]
    assert (asked.status_code, asked.json()["id"]) == (200, ID)
    assert bad.status_code == 422
    assert (busy.status_code, busy.json()["code"]) == (409, "busy")
    assert found.json()["state"] == "playing"
    assert stopped.json()["state"] == "stopped"
    assert missing.status_code == 404
