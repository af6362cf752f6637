"""Frames of a stream, and bodies in the shapes that they take."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.bodies import END_FRAME, BodyStream, FrameReader, to_frame
from dfswire.codec import encode
from dfswire.errors import ProtocolError
from dfswire.messages import MESSAGE_MAX_BYTES, Event


@given(st.lists(st.integers(0, 1 << 60), max_size=5), st.integers(1, 20))
def test_frames_come_back_however_they_are_cut(numbers: list[int], size: int) -> None:
    events = [Event(number=number) for number in numbers]
    data = b"".join(to_frame(event) for event in events) + END_FRAME
    reader = FrameReader()
    messages = [
        message for at in range(0, len(data), size) for message in reader.feed(data[at : at + size])
    ]
    assert messages == [*(encode(event) for event in events), b""]


def test_an_impossible_frame_is_refused_at_its_length() -> None:
    with pytest.raises(ProtocolError, match="frame"):
        FrameReader().feed((MESSAGE_MAX_BYTES + 1).to_bytes(4, "big"))


async def test_a_body_in_memory_is_one_piece_and_not_copied() -> None:
    buffer = bytearray(b"abc")
    (piece,) = [each async for each in BodyStream(buffer).pieces()]
    assert isinstance(piece, memoryview) and piece.obj is buffer
    assert [each async for each in BodyStream(b"").pieces()] == []
    assert [each async for each in BodyStream(memoryview(b"abc"))] == [b"abc"]


async def test_a_body_closes_its_iterator() -> None:
    closed = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            yield b"def"
        finally:
            closed.append(True)

    body = BodyStream(pieces())
    assert await anext(aiter(body.pieces())) == b"abc"
    await body.aclose()
    assert closed == [True]
    await BodyStream(b"abc").aclose()
