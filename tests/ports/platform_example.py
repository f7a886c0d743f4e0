"""The example requests in docs/platform.md. ``python -m tests.ports.platform_example`` writes them there."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx

from gateway.adapters.platform import KEY_HEADER, SIGNATURE_HEADER, HttpPlatform, encode_event, sign
from gateway.runtime.cloud_events import CONTENT_TYPE
from tests.ports.incidents import FIRE, effect_id
from tests.simulators.platform_process import KEY

DOCUMENT = Path(__file__).parents[2] / "docs" / "platform.md"
_EXAMPLE = re.compile(r"(<!-- example: begin .*?-->\n).*?(<!-- example: end -->)", re.DOTALL)
_LIST_EXAMPLE = re.compile(r"(<!-- list example: begin .*?-->\n).*?(<!-- list example: end -->)", re.DOTALL)


def render() -> tuple[dict[str, str], bytes]:
    """The example's headers and its body."""
    body = encode_event(effect_id(FIRE), FIRE)
    headers = {
        "Content-Type": CONTENT_TYPE,
        KEY_HEADER: effect_id(FIRE),
        SIGNATURE_HEADER: sign(KEY.encode(), body),
    }
    return headers, body


def render_list() -> str:
    """The request for the first page, as the adapter sends it."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b'{"items": []}'))

    async def ask() -> None:
        transport = httpx.MockTransport(answer)
        address = "https://platform.example/held"
        platform = HttpPlatform(address, KEY.encode(), transport=transport, list_url=address)
        assert [held async for held in platform.list_held(FIRE.opened_at)] == []
        await platform.close()

    asyncio.run(ask())
    [request] = requests
    address = request.url.raw_path.decode()
    return f"GET {address} HTTP/1.1\n{SIGNATURE_HEADER}: {request.headers[SIGNATURE_HEADER]}"


def replace_example(document: str) -> str:
    """The document with the examples as they would be sent now."""
    headers, body = render()
    request = "\n".join(["POST /events HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())])
    readable = json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    example = (
        f"```http\n{request}\n\n{body.decode()}\n```\n\n"
        f"The same body, set out for reading (this form has another signature):\n\n```json\n{readable}\n```\n\n"
        f'Answered with `201` and `{{"id": "{effect_id(FIRE)}", "revision": {FIRE.revision}}}`.\n'
    )
    replaced, count = _EXAMPLE.subn(lambda found: found[1] + example + found[2], document)
    assert count == 1, f"{DOCUMENT} has {count} places for the example"
    listed = f"```http\n{render_list()}\n```\n"
    replaced, count = _LIST_EXAMPLE.subn(lambda found: found[1] + listed + found[2], replaced)
    assert count == 1, f"{DOCUMENT} has {count} places for the list's example"
    return replaced


if __name__ == "__main__":
    DOCUMENT.write_text(replace_example(DOCUMENT.read_text("utf-8")), "utf-8")
