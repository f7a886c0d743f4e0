"""The example request in docs/platform.md. ``python -m tests.ports.platform_example`` writes it there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gateway.adapters.platform import CONTENT_TYPE, KEY_HEADER, SIGNATURE_HEADER, encode_event, sign
from tests.ports.incidents import FIRE, effect_id
from tests.simulators.platform_process import KEY

DOCUMENT = Path(__file__).parents[2] / "docs" / "platform.md"
_EXAMPLE = re.compile(r"(<!-- example: begin .*?-->\n).*?(<!-- example: end -->)", re.DOTALL)


def render() -> tuple[dict[str, str], bytes]:
    """The example's headers and its body."""
    body = encode_event(effect_id(FIRE), FIRE)
    headers = {
        "Content-Type": CONTENT_TYPE,
        KEY_HEADER: effect_id(FIRE),
        SIGNATURE_HEADER: sign(KEY.encode(), body),
    }
    return headers, body


def replace_example(document: str) -> str:
    """The document with the example as it would be sent now."""
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
    return replaced


if __name__ == "__main__":
    DOCUMENT.write_text(replace_example(DOCUMENT.read_text("utf-8")), "utf-8")
