"""fsx on the client until it is told to stop: random operations on files, compared with a model.

It is this file, sent over SSH together with tests/fsx and run by the host's own Python, as load.py
is; `Load` is the test's side here too.  The first byte that is not what the model says, or the
first operation that fails, ends it.
"""

from __future__ import annotations

import json
import select
import sys
from pathlib import Path

PIECE = 100  # operations between two looks whether to stop
PLACE = "/tmp/fsx"
CLONE = Path(__file__).parents[2]
PROGRAM = [
    *("tests/__init__.py", "tests/syscalls.py", "tests/fsx/__init__.py"),
    *(f"tests/fsx/{name}.py" for name in ("campaign", "model", "operations", "player")),
    *(f"tests/fsx/{name}.py" for name in ("shrink", "system")),
]


def files() -> dict[str, str]:
    """Path on the client -> text."""
    sent = {f"{PLACE}/{name}": (CLONE / name).read_text() for name in PROGRAM}
    return {f"{PLACE}/fsxload.py": Path(__file__).read_text(), **sent}


def work(directory: Path) -> dict[str, float]:
    """Until standard input ends; how many operations there were."""
    from tests.fsx.campaign import Settings, run
    from tests.fsx.system import missing_kinds

    without = frozenset(missing_kinds(directory)) | {"drop_caches"}
    seed, done = 0, 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        log = Path(PLACE) / f"{seed}.log"
        settings = Settings([directory], log, seed=seed, operations=PIECE, without=without)
        done += run(settings)
        seed += 1
    return {"rounds": done}


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]))))
