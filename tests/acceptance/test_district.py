"""Tables taken in beside a running gateway: it goes on, and its open incidents follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.core.model import Incident
from tests.acceptance.stage import Stage, events_of, wait_for

OLD = ("370215", "370215001", "370215001001001")
NEW = ("370215", "370215002", "370215002001", "37021500200101", "370215002001001")
GRIDS = """\
code,level,name,parent
370215,district,即墨区,
370215002,town,示例二街道,370215
370215002001,centre,示例社区网格中心,370215002
37021500200101,station,示例第1工作站,370215002001
370215002001001,base,示例第1网格,37021500200101
"""
COMMUNITIES = "id,serial,name,grid\nc001,1,示例一期,370215002001\n"
PLACES = "community,id,kind,name,parent,grid\nc001,c001,community,示例一期,,370215002001001\n"


def write(folder: Path, **tables: str) -> str:
    folder.mkdir()
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return str(folder)


def one_incident(stage: Stage) -> Incident:
    [incident] = [incident for incident in stage.incidents() if incident.sort == "incident"]
    return incident


def test_a_community_moves_to_another_grid_and_its_open_incident_with_it(
    stage: Stage, start_agent: Any, tmp_path: Path
) -> None:
    stage.start()
    agent = start_agent(stage)
    first = agent.press()
    agent.wait_settled()
    before = one_incident(stage)
    assert (before.chain, before.grid) == (OLD, OLD[-1])
    folder = write(tmp_path / "moved", grids=GRIDS, communities=COMMUNITIES, places=PLACES)

    done = stage.run("district", "import", folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["communities"] == {"changed": 1}
    after = one_incident(stage)
    assert (after.chain, after.grid) == (NEW, NEW[-1])
    assert before.due is not None
    assert after.due is not None
    assert (after.due.step, after.due.due_at) == (before.due.step, before.due.due_at)
    assert after.due.grid in NEW
    assert [line.why for line in after.timeline if line.what == "moved"] == [f"grid {OLD[-1]} → {NEW[-1]}"]

    second = agent.press()
    agent.wait_settled()
    assert set(events_of([one_incident(stage)])) >= {first, second}
    stage.stop()
    stage.start()
    assert one_incident(stage).chain == NEW
    assert set(json.loads(stage.run("district", "import", folder).stdout.splitlines()[-1])) <= {
        "bad",
        "notes",
        "without_password",
    }


def test_a_device_is_added_while_the_gateway_runs_and_a_new_community_waits(
    stage: Stage, start_agent: Any, tmp_path: Path
) -> None:
    stage.start()
    agent = start_agent(stage)
    devices = "community,id,profile,source,place\nc001,sos-9,fixed-sos,agent-1,gate\n"

    added = stage.run("district", "import", write(tmp_path / "devices", devices=devices))

    assert added.returncode == 0, added.stdout + added.stderr
    agent.press("sos-9")
    agent.wait_settled()
    assert wait_for(stage.incidents)[0].devices == ("sos-9",)
    communities = COMMUNITIES + "c002,2,示例二期,370215002001\n"
    places = PLACES + "c002,c002,community,示例二期,,370215002001001\n"
    folder = write(tmp_path / "communities", grids=GRIDS, communities=communities, places=places)
    refused = stage.run("district", "import", folder)
    assert refused.returncode == 2
    assert "takes no new community in (c002)" in refused.stderr
    assert "stop it, import, and start it again" in refused.stderr
    assert stage.run("district", "export", str(tmp_path / "out")).returncode == 0
    assert "c002" not in (tmp_path / "out" / "communities.csv").read_text()
