"""The call table is complete and unambiguous."""

from __future__ import annotations

import msgspec

from dfswire.calls import CALLS, by_path


def test_names_say_who_answers_what_uniquely() -> None:
    assert {call.service for call in CALLS.values()} == {"metad", "chunkd"}
    assert all(name == call.name for name, call in CALLS.items())
    count = sum(len(by_path(service)) for service in ("metad", "chunkd"))
    assert count == len(CALLS), "two calls share a method and path"


def test_each_call_is_sound() -> None:
    for call in CALLS.values():
        assert issubclass(call.request, msgspec.Struct)
        assert issubclass(call.reply, msgspec.Struct)
        assert call.method in ("GET", "POST", "PUT")
        assert call.path.startswith("/v1/")
        assert call.callers and set(call.callers) <= {"client", "chunkd", "operator", "guest"}
        assert not (call.stream and (call.request_body or call.reply_body))
        assert not (call.stream and call.idempotent), "a broken stream is opened by its owner"
