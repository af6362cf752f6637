"""Neighbouring releases understand each other: what was released is not changed, only added to."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire import codec
from dfswire.calls import CALLS
from tests.t1_wire.released import RELEASED, REQUIRED, describe
from tests.t1_wire.strategies import of_type

KINDS = sorted(
    {kind for call in CALLS.values() for kind in (call.request, call.reply)},
    key=lambda kind: str(kind.__name__),
)
NO_MESSAGES = {"figures", "disk_admin", "disk_traffic"}  # fields that are maps from names to values


def test_what_was_released_is_as_it_was() -> None:
    """Without another PROTOCOL_VERSION no field goes, changes its type or becomes required, and a
    new one has a default."""
    now = describe()
    for name, fields in json.loads(RELEASED.read_text()).items():
        assert {field: now[name].get(field) for field in fields} == fields, name
        added = now[name].keys() - fields.keys()
        assert not [field for field in added if now[name][field].endswith(REQUIRED)], name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
@settings(max_examples=10)
@given(data=st.data())
def test_what_a_later_release_adds_is_ignored(kind: Any, data: st.DataObject) -> None:
    """Everywhere in the message, not only at its top."""
    message = data.draw(of_type(kind))
    document = _with_more(msgspec.msgpack.decode(codec.encode(message)))
    assert codec.decode(kind, msgspec.msgpack.encode(document)) == message


def _with_more(document: Any) -> Any:
    """The same with a field more in each message."""
    if isinstance(document, dict):
        fields = {
            key: each if key in NO_MESSAGES else _with_more(each) for key, each in document.items()
        }
        return {**fields, "added": [1, {}]}
    if isinstance(document, list):
        return [_with_more(each) for each in document]
    return document
