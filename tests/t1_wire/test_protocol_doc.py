"""docs/protocol.md lists exactly the calls of the call table and the errors of the error table."""

from __future__ import annotations

import errno
from pathlib import Path

from dfswire.calls import CALLS, Call
from dfswire.errors import BY_CODE, DFSError
from dfswire.messages import PROTOCOL_VERSION

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


def call_row(call: Call) -> str:
    """The line of the document that describes `call`."""
    marks = [
        ("request", call.request_body),
        ("reply", call.reply_body),
        ("stream", call.stream),
    ]
    cells = [
        f"`{call.name}`",
        f"`{call.method} {call.path}`",
        f"`{call.request.__name__}`",
        f"`{call.reply.__name__}`",
        ", ".join(call.callers),
        "yes" if call.idempotent else "no",
        ", ".join(mark for mark, is_set in marks if is_set) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def error_row(kind: type[DFSError]) -> str:
    """The line of the document that describes the error `kind`."""
    return f"| `{kind.code}` | `{kind.__name__}` | {errno.errorcode[kind.errno]} |"


def _rows_after(heading: str) -> list[str]:
    section = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return sorted(rows)


def test_every_call_has_its_row_and_every_row_its_call() -> None:
    assert _rows_after("Calls") == sorted(call_row(call) for call in CALLS.values())


def test_every_error_has_its_row_and_every_row_its_error() -> None:
    assert _rows_after("Errors") == sorted(error_row(kind) for kind in BY_CODE.values())


def test_the_document_speaks_of_this_version() -> None:
    assert f"protocol version {PROTOCOL_VERSION}" in DOCUMENT.read_text()
