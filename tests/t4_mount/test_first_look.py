"""A name that one mount looks up for the first time, while another mount changes what it names.

The process that looks is not run again for a while after it was answered (SCHED_IDLE, and all cores
are busy): the kernel has the answer by then, and knows no inode yet that it could be told to
forget.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.t4_mount.conftest import TwoViews

ROUNDS = 40
SPREAD_S = 0.02
LOOK = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
for line in sys.stdin:
    print(os.stat(line.rstrip()).st_mtime_ns, flush=True)
"""
BUSY = "while True: pass"


@contextlib.contextmanager
def _programs(*texts: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs, until the end of the block."""
    with contextlib.ExitStack() as cleanup:
        programs = []
        for text in texts:
            program = subprocess.Popen(
                [sys.executable, "-c", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            cleanup.enter_context(program)
            cleanup.callback(program.kill)
            programs.append(program)
        yield programs


def test_a_change_is_seen_though_a_first_look_is_still_under_way(views: TwoViews) -> None:
    rng = random.Random(1)
    busy = [BUSY] * (os.cpu_count() or 1)
    with _programs(LOOK, *busy) as (looker, *_):
        assert looker.stdin is not None and looker.stdout is not None
        for number in range(ROUNDS):
            (views.a / f"f{number}").touch()
            os.utime(views.a / f"f{number}", ns=(1, 1))
            looker.stdin.write(f"{views.b / f'f{number}'}\n")
            looker.stdin.flush()
            time.sleep(rng.uniform(0, SPREAD_S))  # to meet the moment between answer and inode
            os.utime(views.a / f"f{number}", ns=(2, 2))
            assert (views.b / f"f{number}").stat().st_mtime_ns == 2, f"round {number}"
            assert int(looker.stdout.readline()) in (1, 2)
