"""Work that runs in a thread in production runs at once in tests, and could ask trio things that it
cannot ask in a thread (the time, most of all).  Inside `without_loop` it gets trio's own refusal.

Private names of trio, which is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio._core._run import GLOBAL_RUN_CONTEXT


@contextmanager
def without_loop() -> Iterator[None]:
    """As if this were another thread: trio knows of no run and no task here."""
    kept = dict(GLOBAL_RUN_CONTEXT.__dict__)
    GLOBAL_RUN_CONTEXT.__dict__.clear()
    try:
        yield
    finally:
        GLOBAL_RUN_CONTEXT.__dict__.update(kept)
