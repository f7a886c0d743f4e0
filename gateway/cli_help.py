"""The command line's part for the residents' help pages: ``python -m gateway qr …`` and ``qr-key …``."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path
from typing import Annotated

import typer

from gateway import assembly
from gateway.errors import GatewayError
from gateway.runtime.help_pages import PageKeys
from gateway.settings import read_settings
from gateway.web.posters import bind_posters, draw_poster

key_app = typer.Typer(no_args_is_help=True, help="The keys that sign the addresses behind QR codes.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="a TOML file; SCG_… variables override it")]


def qr(
    out: Annotated[Path, typer.Option(help="the folder that the sheets are written into")],
    community: Annotated[str, typer.Option(help="its id; without --place for all its buildings and public spots")] = "",
    place: Annotated[list[str] | None, typer.Option(help="a place's id; may be repeated")] = None,
    phone: Annotated[
        str | None, typer.Option(help="the number that sheet and page tell to dial, for all to see")
    ] = None,
    url: Annotated[str, typer.Option(help="where residents reach the web process; otherwise web.public_url")] = "",
    renew: Annotated[bool, typer.Option(help="new addresses: the sheets that hang there now are void")] = False,
    config: ConfigOption = None,
) -> None:
    """Print sheets with QR codes: one SVG for each place, and sheets.html with all of them for the printer."""
    settings = read_settings(config)
    base = (url or settings.web.public_url or "").rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise GatewayError(
            "no-address", "nobody knows where residents reach it", "--url", "give it, or set SCG_WEB__PUBLIC_URL"
        )
    if not community and not place:
        raise GatewayError("no-place", "for which places?", "--community or --place", "name one")
    actor = f"cli:{getpass.getuser()}"
    pages = asyncio.run(assembly.issue_help_pages(settings, community, place or (), phone, actor, renew=renew))
    keys = PageKeys(settings.data)
    out.mkdir(parents=True, exist_ok=True)
    posters = []
    for page in pages:
        address = f"{base}/r/{keys.sign(page.code)}"
        poster = draw_poster(page, address)
        posters.append(poster)
        (out / f"{page.code.place}.svg").write_text(poster, encoding="utf-8")
        typer.echo(json.dumps({"place": page.code.place, "name": page.place_name, "url": address}, ensure_ascii=False))
    (out / "sheets.html").write_text(bind_posters(posters), encoding="utf-8")


@key_app.command()
def rotate(config: ConfigOption = None) -> None:
    """Make a new key: new sheets are signed with it, and sheets of the earlier ones stay good."""
    typer.echo(json.dumps({"version": PageKeys(read_settings(config).data).rotate()}))


@key_app.command("end-overlap")
def end_overlap(config: ConfigOption = None) -> None:
    """Take all keys but the newest away: sheets that they signed are void from now on."""
    typer.echo(json.dumps({"ended": PageKeys(read_settings(config).data).end_overlap()}))
