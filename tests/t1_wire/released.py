"""What crosses the network, as a table: every message with its fields, their types, and which must
be there.

    python -m tests.t1_wire.released

writes that of the present source to data/protocol-VERSION.json.  That is done when a release is
made, and test_compatibility.py compares: what was released stays as it was.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path
from typing import Any

import msgspec

from dfswire.calls import CALLS
from dfswire.messages import PROTOCOL_VERSION, Fault

RELEASED = Path(__file__).with_name("data") / f"protocol-{PROTOCOL_VERSION}.json"

Fields = dict[str, str]  # name on the wire -> type, and whether it is REQUIRED
REQUIRED = ", required"
_MODULE = re.compile(r"<class '(?:\w+\.)*(\w+)'>|\b(?:\w+\.)+(?=\w)")


def describe() -> dict[str, Fields]:
    """All messages that can be reached from the table of calls."""
    found: dict[str, Fields] = {}
    for call in CALLS.values():
        for kind in (call.request, call.reply):
            _add(kind, found)
    _add(Fault, found)
    return dict(sorted(found.items()))


def _add(kind: Any, found: dict[str, Fields]) -> None:
    for part in typing.get_args(kind):
        _add(part, found)
    if not (inspect.isclass(kind) and issubclass(kind, msgspec.Struct)) or kind.__name__ in found:
        return
    hints = typing.get_type_hints(kind)
    found[kind.__name__] = {
        field.encode_name: _name_of(hints[field.name]) + (REQUIRED if field.required else "")
        for field in msgspec.structs.fields(kind)
    }
    for hint in hints.values():
        _add(hint, found)


def _name_of(hint: Any) -> str:
    """Wherever the classes are."""
    return _MODULE.sub(lambda match: match[1] or "", repr(hint))


if __name__ == "__main__":
    RELEASED.parent.mkdir(exist_ok=True)
    RELEASED.write_text(json.dumps(describe(), indent=1) + "\n")
