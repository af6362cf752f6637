"""`python -m tests.corruptions --count 10000 --seed 1 [--dir DIR]`: see runner.py.

Ends with 1 when a damaged file was served, not found or not repaired.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import trio
from trio.testing import MockClock

from tests.corruptions.runner import Violation, run

FAST = Path("/dev/shm")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.corruptions")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=FAST if FAST.is_dir() else None)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # thousands of chunks are bad, as they should be
    figures = None
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        try:
            figures = trio.run(
                run,
                Path(root),
                arguments.count,
                arguments.seed,
                lambda line: print(line, flush=True),
                clock=MockClock(autojump_threshold=0),
            )
        except* Violation as problems:
            print(f"VIOLATION with seed {arguments.seed}: {problems.exceptions}")
    if figures is None:
        return 1
    print("\n".join(figures.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
