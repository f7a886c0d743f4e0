"""Many devices at once, from a table: what is good is in, and each row is told what came of it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct
from msgspec.structs import replace
from starlette.datastructures import UploadFile

from gateway.core.model import Community
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.device_tables import OPTIONAL, REQUIRED, ROWS, Wished, read_registrations
from gateway.runtime.district_codes import CODES
from gateway.runtime.district_tables import BadRow, Report, format_table
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.workbooks import CONTENT_TYPE as WORKBOOK
from gateway.runtime.workbooks import write_workbook
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import find_community, look, offer_places, offer_profiles, read_key, record, words
from gateway.web.device_words import REFUSALS, pick_word
from gateway.web.languages import choose_language, pick
from gateway.web.problems import RETRY, Problem

Changer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_CHANGE))]
Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

HEAD: Final = ("行 line", "编码 code", "编号 id", "结果 outcome", "密码 password")


class Told(Struct, frozen=True):
    """What came of one row. ``line`` 0 is the table as a whole; ``password`` is shown this once; ``note`` is what to
    look at all the same."""

    line: int
    code: str
    id: str
    words: str
    is_in: bool = False
    password: str = ""
    note: str = ""


def route_bulk(console: Console) -> APIRouter:
    """The page for tables of devices."""
    router = APIRouter()

    @router.get("/bulk")
    async def show_bulk(request: Request, actor: Changer, community: Word = "") -> Response:
        """The form, with what a table must have."""
        offered = console.names.names.offer_communities(actor)
        return await page(request, actor, community or (offered[0][0] if offered else ""))

    @router.get("/bulk/places.csv")
    async def list_places(actor: Changer, community: Word) -> Response:
        """The community's places, to write into a table."""
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        if present is None:
            raise Problem(503, "gateway-away", "the gateway does not answer; ask again", headers=RETRY)
        rows = [(place.id, place.name, place.kind) for place in offer_places(present.places)]
        text = format_table(("place", "名称 name", "类别 kind"), rows)
        headers = {"Content-Disposition": f'attachment; filename="places-{here.id}.csv"'}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    @router.get("/bulk/places.xlsx")
    async def list_places_in_workbook(actor: Changer, community: Word) -> Response:
        """The same as a workbook."""
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        if present is None:
            raise Problem(503, "gateway-away", "the gateway does not answer")
        rows = [(place.id, place.name, place.kind) for place in offer_places(present.places)]
        data = await asyncio.to_thread(write_workbook, "places", ("place", "名称 name", "类别 kind"), rows)
        return respond_workbook(data, f"places-{here.id}.xlsx")

    @router.get("/bulk/template.xlsx")
    async def offer_template(request: Request, actor: Changer) -> Response:
        """An empty table with its columns, as columns of text."""
        language = choose_language(request)
        notes = [pick(text, language) for text in _TEMPLATE_NOTES]
        notes.append(f"profile: {', '.join(_list_models(console))}")
        data = await asyncio.to_thread(write_workbook, "devices", (*REQUIRED, *OPTIONAL), (), notes)
        return respond_workbook(data, "devices.xlsx")

    @router.post("/bulk")
    async def take(request: Request, actor: Changer) -> Response:
        """Registers what the table asks for. The same form again changes nothing."""
        async with request.form() as sent:
            here = await find_community(console, actor, read_text(sent, "community"))
            key, file = read_key(read_text(sent, "id")), sent.get("file")
            if not isinstance(file, UploadFile):
                raise Problem(422, "not-valid", "file is a table")
            is_test, fetches = read_text(sent, "test") == "1", read_text(sent, "fetches") == "1"
            data, name = await file.read(), (file.filename or "table.csv")[:60]
        present = await look(console, here.id)
        if present is None:
            return await page(request, actor, here.id, is_away=True)
        places = {place.name: place.id for place in offer_places(present.places)}
        language = choose_language(request)
        report = Report()
        wished = await asyncio.to_thread(read_registrations, name, data, places, report, is_test=is_test)
        wishes = [replace(one.wish, fetches=fetches and not one.wish.source and not one.wish.secret) for one in wished]
        try:
            outcomes = await console.desk.register_all(actor, here.id, key, wishes)
        except (DoorClosed, DoorRefused):
            return await page(request, actor, here.id, is_away=True)
        except Refused as error:
            told = [Told(0, "", "", pick_word(REFUSALS, error.code, language))]
            return await page(request, actor, here.id, told=told)
        told = [_tell_bad(row, language) for row in report.bad]
        notes = {row.line: _say(row, language) for row in report.notes if row.code == "was-number"}
        for one, outcome in zip(wished, outcomes, strict=True):
            if isinstance(outcome, Refused):
                told.append(_tell_refused(one, outcome, language))
            else:
                done = pick_word(_DONE, "repeat" if outcome.is_repeat else "done", language)
                told.append(
                    Told(
                        one.line,
                        one.wish.code,
                        outcome.device.id,
                        done,
                        True,
                        outcome.password,
                        notes.get(one.line, ""),
                    )
                )
        count = sum(one.is_in for one in told)
        await record(request, actor, "device.bulk", here.id, "done", f"{count} of {len(told)} rows of {name}")
        return await page(request, actor, here.id, told=sorted(told, key=lambda one: one.line))

    async def page(
        request: Request, actor: Actor, community: str, told: list[Told] | None = None, *, is_away: bool = False
    ) -> Response:
        here: Community = await find_community(console, actor, community)
        language = choose_language(request)
        rows = [(str(one.line), one.code, one.id, _join(one, language), one.password) for one in told or ()]
        return await console.respond(
            request,
            "bulk.html",
            503 if is_away else 200,
            communities=console.names.names.offer_communities(actor),
            community=here,
            told=told,
            report=format_table(HEAD, rows) if told else "",
            wish_id=secrets.token_hex(16),
            is_away=is_away,
            required=REQUIRED,
            optional=OPTIONAL,
            most=ROWS,
            has_products=console.products is not None
            and any(one.is_on for one in await asyncio.to_thread(console.products.products.products)),
            models=_list_models(console),
            **words(console, choose_language(request)),
        )

    return router


def _list_models(console: Console) -> list[str]:
    """The ids of the models that one can register."""
    return sorted(id for id, _ in offer_profiles(console, "zh"))


def respond_workbook(data: bytes, name: str) -> Response:
    """A workbook to save."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=WORKBOOK, headers=headers)


_TEMPLATE_NOTES: Final = (
    {
        "zh": f"code、profile、place 必填，其余可空；最多 {ROWS} 行。",
        "en": f"code, profile and place are needed; {ROWS} rows at most.",
    },
    {
        "zh": "各列已设为文本：编码 00123 按原样保留。从别处粘贴时请选「只粘贴值」。",
        "en": "The columns are text: a code 00123 stays as it is. What is copied from elsewhere: paste it as values.",
    },
    {
        "zh": "place 填位置编号，或位置表中的名称；source 填边缘代理编号，不填即自己联网。",
        "en": "place is an id or a name of the list of places; source an edge agent, or empty for a device by itself.",
    },
)
_DONE: Final = {
    "done": {"zh": "已登记", "en": "registered"},
    "repeat": {"zh": "此前已登记，没有重复办理", "en": "registered before, not done twice"},
}


def _tell_refused(one: Wished, refused: Refused, language: str) -> Told:
    """With the column that is to be mended and what stands there; a secret is never shown again."""
    value = "" if refused.field == "secret" else getattr(one.wish, refused.field, "")
    note = f"{refused.field}: {value}" if value else refused.field
    return Told(one.line, one.wish.code, "", pick_word(REFUSALS, refused.code, language), note=note)


def _tell_bad(row: BadRow, language: str) -> Told:
    where = {"zh": f"第 {row.column} 列", "en": f"column {row.column}"} if row.column else {"zh": "", "en": ""}
    return Told(row.line, "", "", _say(row, language), note=pick(where, language))


def _say(row: BadRow, language: str) -> str:
    return CODES[row.code] if language == "zh" else f"{row.what}; {row.mend}"


def _join(one: Told, language: str) -> str:
    return f"{one.words}{'；' if language == 'zh' else '; '}{one.note}" if one.note else one.words
