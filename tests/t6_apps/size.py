"""How much the applications are given to do: a little, or with DFS_TEST_SIZE=nightly a lot.

Only tests of this directory use it.  The default sizes are for every run of `make test`; the
nightly ones take a day and need some 100 GB of disk: what is deleted goes some minutes later.
"""

from __future__ import annotations

import os

SIZES = ("default", "nightly")
SIZE = os.environ.get("DFS_TEST_SIZE") or "default"
if SIZE not in SIZES:
    raise ValueError(f"DFS_TEST_SIZE={SIZE}: must be one of {', '.join(SIZES)}")

NIGHTLY = SIZE == "nightly"


def sized(default: int, nightly: int) -> int:
    """The number that belongs to the chosen size."""
    return nightly if NIGHTLY else default
