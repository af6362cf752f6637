"""`python -m tests.fsx`: random operations on a directory, or on a cluster of its own.

    python -m tests.fsx DIRECTORY --seed 1 --ops 100000      any file system
    python -m tests.fsx --mounts /mnt/a /mnt/b               two mounts of one cluster
    python -m tests.fsx --live 2 --ops 1000000               a cluster of its own, with two mounts
    python -m tests.fsx --live 1 --replay FILE               the operations of a log again

It ends with status 0 when all was right, 1 after a mismatch, with what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fsx.campaign import Failed, Settings, load, replay, run
from tests.fsx.operations import SMALL, SPARSE
from tests.fsx.player import Mismatch
from tests.fsx.system import missing_kinds
from tests.t4_mount.harness import LiveCluster

Views = tuple[list[Path], list[Callable[[], None]]]


def main() -> int:
    arguments = _arguments()
    try:
        with _views(arguments) as (roots, remounts):
            _work(arguments, roots, remounts)
    except (Failed, Mismatch) as problem:
        print(f"MISMATCH: {problem}")
        return 1
    print("no mismatch")
    return 0


def _work(
    arguments: argparse.Namespace, roots: list[Path], remounts: list[Callable[[], None]]
) -> None:
    missing = missing_kinds(roots[0])
    for kind, reason in missing.items():
        print(f"without {kind}: {reason}")
    settings = Settings(
        roots=roots,
        log=Path(arguments.log or f"fsx-{arguments.seed}.log").absolute(),
        seed=arguments.seed,
        operations=arguments.ops,
        shape=SPARSE if arguments.sparse else SMALL,
        without=frozenset(missing) | (set() if arguments.drop_caches else {"drop_caches"}),
        remounts=remounts,
        shrinks=not arguments.no_shrink,
        say=lambda text: print(text, flush=True),
    )
    if arguments.replay:
        replay(settings, load(Path(arguments.replay)))
    else:
        run(settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fsx")
    parser.add_argument("directory", nargs="?", help="where to work")
    parser.add_argument("--mounts", nargs="+", help="directories that show the same files")
    parser.add_argument("--live", type=int, default=0, help="start a cluster with so many mounts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ops", type=int, default=20_000)
    parser.add_argument("--sparse", action="store_true", help="files of up to 16 TiB, mostly holes")
    parser.add_argument("--drop-caches", action="store_true", help="drop the whole host's caches")
    parser.add_argument("--log", help="where the operations are written")
    parser.add_argument("--replay", help="do the operations of this log")
    parser.add_argument("--no-shrink", action="store_true")
    arguments = parser.parse_args()
    if bool(arguments.directory) + bool(arguments.mounts) + bool(arguments.live) != 1:
        parser.error("give a directory, or --mounts, or --live")
    return arguments


@contextlib.contextmanager
def _views(arguments: argparse.Namespace) -> Iterator[Views]:
    """The directories to work in, and how each is mounted anew."""
    if not arguments.live:
        yield [Path(each) for each in arguments.mounts or [arguments.directory]], []
        return
    with tempfile.TemporaryDirectory(prefix="fsx-") as directory:
        cluster = LiveCluster(Path(directory) / "cluster")
        try:
            mounts = [cluster.mount(f"m{number}") for number in range(arguments.live)]
            yield [mount.point for mount in mounts], [mount.restart for mount in mounts]
            report = cluster.fsck()
            if report.count:
                raise Failed(f"dfs fsck: {report.findings}")
            if alarming := cluster.alarming_lines():
                raise Failed("in the logs:\n" + "\n".join(alarming))
        finally:
            cluster.down()


if __name__ == "__main__":
    sys.exit(main())
