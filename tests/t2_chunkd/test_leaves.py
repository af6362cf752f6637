"""Directories of chunks: those that have not changed are not read again, and none is missed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chunkd.filesystem import FileSystem
from chunkd.layout import UNSURE, Layout, Leaf

A, B, C = (bytes([1, 2, number]) + bytes(13) for number in range(3))
OTHER = bytes([9]) * 16


class Counting(FileSystem):
    def __init__(self) -> None:
        self.listed: list[str] = []

    def names(self, path: Path) -> list[str]:
        self.listed.append(path.name)
        return super().names(path)


@pytest.fixture
def files() -> Counting:
    return Counting()


@pytest.fixture
def layout(tmp_path: Path, files: Counting) -> Layout:
    layout = Layout(tmp_path, files)
    for chunk in (A, B, OTHER):
        layout.directory(chunk).mkdir(parents=True, exist_ok=True)
        layout.file(chunk).touch()
    return layout


def age(layout: Layout, chunk: bytes, at_s: float) -> None:
    os.utime(layout.directory(chunk), (at_s, at_s))


def test_a_directory_that_did_not_change_is_not_read_again(layout: Layout, files: Counting) -> None:
    age(layout, A, 100)
    age(layout, OTHER, 100)
    found = layout.leaves({}, 200)
    assert found == {A[:2]: Leaf(100, A + B), OTHER[:2]: Leaf(100, OTHER)}
    layout.file(B).unlink()
    age(layout, A, 150)
    files.listed.clear()
    found = layout.leaves(found, 200)
    assert found == {A[:2]: Leaf(150, A), OTHER[:2]: Leaf(100, OTHER)}
    assert files.listed == ["chunks", "01", "02", "09"]


def test_one_that_changed_a_moment_ago_is(layout: Layout) -> None:
    """Another change may have come in the same tick."""
    age(layout, A, 100)
    found = layout.leaves({}, 101)
    assert found[A[:2]] == Leaf(UNSURE, A + B)
    layout.file(C).touch()
    age(layout, A, 100)
    assert layout.leaves(found, 103)[A[:2]] == Leaf(100, A + B + C)


def test_one_that_is_gone_holds_nothing(layout: Layout) -> None:
    found = layout.leaves({}, 0)
    layout.file(OTHER).unlink()
    layout.directory(OTHER).rmdir()
    assert set(layout.leaves(found, 0)) == {A[:2]}
