"""A short run, and that the runner would notice.  The long one: make corruptions COUNT=10000."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from trio.testing import MockClock

from chunkd.openchunk import OpenChunk
from tests.corruptions.kinds import KINDS
from tests.corruptions.runner import Violation, run

COUNT = int(os.environ.get("DFS_TEST_CORRUPTIONS", "150"))


@pytest.fixture(autouse=True)
def quiet() -> object:
    """Hundreds of warnings about bad chunks, as there should be."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


async def test_all_are_found_and_repaired_and_none_is_served(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    figures = await run(tmp_path, COUNT, seed=1)
    assert figures.injected.total() == COUNT
    assert len(figures.injected) >= min(len(KINDS), 8)


async def test_a_store_that_checks_nothing_is_noticed(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenChunk, "verify", lambda self: None)
    monkeypatch.setattr("dfsmount.remote.chunkclient._check", lambda *_: None)
    with pytest.raises(ExceptionGroup) as caught:
        await run(tmp_path, 40, seed=1)
    # By one of the readers or by both: they end each other, but may come upon damage together.
    assert caught.value.split(Violation)[1] is None
