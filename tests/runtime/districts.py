"""A small district as tables, and the way of tables through the check and the ledger without a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from gateway.adapters.memory_ledger import open_memory_ledger
from gateway.assembly import open_catalogs, plate_fields
from gateway.runtime.district_check import Rules, check_tables, read_tables
from gateway.runtime.district_tables import Report
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Ledger
from gateway.runtime.registrar import Changes, Plan, find_changes, write_changes
from gateway.runtime.standing import Standing, read_standing
from tests.core.worlds import START, real_catalog

KEY = bytes(32)
SEAL = PlateSeal(KEY, plate_fields(real_catalog()))
RULES = Rules(real_catalog())

TABLES: Mapping[str, str] = {
    "grids.csv": """\
code,level,name,parent
370215,district,即墨区,
370215001,town,示例街道,370215
370215001004,centre,示例社区网格中心,370215001
370215001005,centre,邻里社区网格中心,370215001
37021500100402,station,示例第2工作站,370215001004
37021500100501,station,邻里第1工作站,370215001005
370215001004017,base,示例第17网格,37021500100402
370215001004018,base,示例第18网格,37021500100402
370215001005001,base,邻里第1网格,37021500100501
370215901,department,示例局,370215
370215001004901,special,示例局专属网格1,370215901
""",
    "communities.csv": """\
id,serial,name,grid,zone
c001,1,示例一期,370215001004,
c002,2,示例二期,370215001004,A区
""",
    "places.csv": """\
community,id,kind,name,parent,grid,lon,lat,crs,attributes
c001,c001,community,示例一期,,370215001004017,120.45,36.39,cgcs2000,noise_class='2'
c001,c001-b1,building,1号楼,c001,,120.4502,36.3902,cgcs2000,
c001,c001-b1-101,household,101室,c001-b1,,,,,away=false;elder_alone=true
c001,c001-b1-b1,public,-1层,c001-b1,,,,,
c001,c001-gate,public,南门,c001,,,,,
c002,c002,community,示例二期,,370215001004018,120.46,36.4,cgcs2000,
c002,c002-gate,public,南门,c002,,,,,
""",
    "sources.csv": """\
community,id,place,device
c001,agent-001,c001-gate,agent-001
c002,agent-002,c002-gate,agent-002
""",
    "devices.csv": """\
community,id,profile,source,place,name,address,state,state_until,attributes
c001,agent-001,edge-agent,agent-001,c001-gate,边缘网关,,,,
c001,c001-smoke-1,nb-smoke,agent-001,c001-b1-101,烟感1,nb/1,,,
c001,c001-sos-1,fixed-sos,agent-001,c001-b1-101,,lora/1,,,powered_by=agent-001
c002,agent-002,edge-agent,agent-002,c002-gate,边缘网关,,,,
c002,c002-door-1,door-magnet,agent-002,c002-gate,,,maintenance,2026-11-24T08:00,
""",
    "responsible.csv": """\
body,grid,name
property,370215001004,示例物业（模拟）
urban-management,370215001,示例执法中队（模拟）
""",
    "contacts.csv": """\
id,name,role,community,place,grid,body,rank,phone,email,webhook,duty
family-1,家属甲（模拟）,family,,c001-b1-101,,,0,000-0000-0001,,,
keeper-1,物业值班（模拟）,property,c001,,,,0,000-0000-0002,,,1-5 08:00-18:00; 6-7 20:00-08:00
""",
    "lists.csv": """\
list,entry,community
wanted,鲁B00001,
""",
}


class Imported(Struct):
    """What came of an import."""

    plan: Plan
    changes: Changes
    report: Report
    refused: Mapping[str, str]

    @property
    def codes(self) -> list[str]:
        return [row.code for row in self.report.bad]


def write_folder(folder: Path, tables: Mapping[str, str] = TABLES) -> Path:
    """The tables as files, without the mark: people's files have none."""
    folder.mkdir(exist_ok=True)
    for file, text in tables.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def look(folder: Path, standing: Standing | None = None, rules: Rules = RULES, *, retire: bool = False) -> Imported:
    """What an import would do."""
    report = Report()
    standing = standing or Standing({}, {}, {}, {})
    plan = check_tables(read_tables(folder, report), standing, rules, SEAL, START, report, retire=retire)
    return Imported(plan, find_changes(plan, standing, "test"), report, {})


class Office:
    """A ledger, in memory unless given, and what is done to it by tables."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger: Ledger = ledger or open_memory_ledger()
        self._catalogs = open_catalogs(self.ledger, real_catalog())

    def standing(self) -> Standing:
        return read_standing(self.ledger, self._catalogs, real_catalog(), START)

    def take(self, folder: Path, *, retire: bool = False) -> Imported:
        """Imports a folder."""
        done = look(folder, self.standing(), retire=retire)
        done.refused = write_changes(self.ledger, done.changes, real_catalog(), self._catalogs, START)
        return done

    def head(self, community: str) -> int:
        return self.ledger.standing([community])[community][1]
