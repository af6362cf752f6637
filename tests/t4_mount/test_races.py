"""Two mounts at work in one directory at the same time.

Either they race for the same names, where the outcome must be one that some order explains; or one
changes and the other watches, where no operation may miss what was complete when it began.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.watched import KINDS, ROUNDS, Watched, link_target, new_names, removed_names

T = TypeVar("T")


def test_exclusive_creation_has_one_winner(views: TwoViews) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    for number in range(30):
        name = f"lock{number}"
        barrier = threading.Barrier(2)

        def attempt(view: Path, name: str = name, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                os.close(os.open(view / name, flags))
            except FileExistsError:
                return False
            return True

        assert sorted(_in_parallel(attempt, views)) == [False, True]


def test_both_create_in_one_directory_at_once(views: TwoViews) -> None:
    """The kernel takes the directory's lock for a create, and to forget one of its names as well;
    no circle of waiting may come of that."""
    count = 200
    started = time.monotonic()

    def create(view: Path) -> None:
        for number in range(count):
            (view / f"{view.parent.name}{number}").write_bytes(b"%d" % number)

    _in_parallel(create, views)
    assert time.monotonic() - started < 40
    for view in (views.a, views.b):
        names = os.listdir(view)
        assert len(names) == len(set(names)) == 2 * count
    for number in range(count):
        assert (views.a / f"b{number}").read_bytes() == b"%d" % number
        assert (views.b / f"a{number}").read_bytes() == b"%d" % number


def test_both_rename_across_directories_at_once(views: TwoViews) -> None:
    """A moves files from one directory to the other while B moves others back."""
    count = 60
    for name in ("left", "right"):
        (views.a / name).mkdir()
    for number in range(count):
        (views.a / "left" / f"a{number}").write_bytes(b"a%d" % number)
        (views.a / "right" / f"b{number}").write_bytes(b"b%d" % number)
    assert len(os.listdir(views.b / "left")) == len(os.listdir(views.b / "right")) == count
    started = time.monotonic()

    def move(view: Path) -> None:
        mine = view.parent.name
        source, target = ("left", "right") if mine == "a" else ("right", "left")
        for number in range(count):
            os.rename(view / source / f"{mine}{number}", view / target / f"{mine}{number}")
            os.stat(view / target / f"{mine}{number}")

    _in_parallel(move, views)
    assert time.monotonic() - started < 30
    for view in (views.a, views.b):
        assert sorted(os.listdir(view / "left")) == sorted(f"b{n}" for n in range(count))
        assert sorted(os.listdir(view / "right")) == sorted(f"a{n}" for n in range(count))


def test_both_create_remove_and_list_the_same_names_at_once(views: TwoViews) -> None:
    """Whoever loses a race gets the errno for it, and in the end both see the same."""

    def churn(view: Path) -> None:
        for turn in range(60):
            name = f"f{turn % 5}"
            for action in (
                lambda name=name: (view / name).write_bytes(b"x"),
                lambda name=name: os.rename(view / name, view / f"{name}.moved"),
                lambda: os.listdir(view),
                lambda name=name: (view / f"{name}.moved").unlink(),
            ):
                try:
                    action()
                except FileNotFoundError:
                    continue

    _in_parallel(churn, views)
    assert sorted(os.listdir(views.a)) == sorted(os.listdir(views.b))
    for name in os.listdir(views.a):
        assert (views.b / name).read_bytes() == (views.a / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_observation_misses_what_was_complete(
    views: TwoViews, kind: Callable[[TwoViews], Watched]
) -> None:
    watched = kind(views)
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(watched.watch), pool.submit(watched.watch)]
        pool.submit(watched.change).result()
        for task in tasks:
            task.result()
    watched.close()
    assert watched.observations > ROUNDS // 10


@pytest.mark.parametrize("kind", [new_names, removed_names, link_target])
def test_no_observation_misses_what_was_complete_in_a_busy_directory(
    views: TwoViews, kind: Callable[[TwoViews], Watched]
) -> None:
    watched = kind(views)

    def keep_busy() -> None:
        while not watched.finished:
            (views.b / "own").touch()
            (views.b / "own").unlink()

    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(watched.watch), pool.submit(keep_busy)]
        pool.submit(watched.change).result()
        for task in tasks:
            task.result()


def test_appends_at_the_same_time_never_overwrite_each_other(views: TwoViews) -> None:
    def append(view: Path) -> None:
        descriptor = os.open(view / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for number in range(ROUNDS):
            os.write(descriptor, f"{view.parent.name}{number}\n".encode())
            os.fsync(descriptor)
        os.close(descriptor)

    _in_parallel(append, views)
    lines = (views.a / "f").read_text().split()
    assert sorted(lines) == sorted(f"{name}{n}" for name in "ab" for n in range(ROUNDS))


def _in_parallel(action: Callable[[Path], T], views: TwoViews) -> list[T]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(action, (views.a, views.b)))
