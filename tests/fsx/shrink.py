"""The fewest operations that still fail: delta debugging, for any list and any test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TRIES_MAX = 400  # each is a whole replay


def shrunk(items: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of `items`, in order, that fails too; no single item can be left out of it.

    Ends early, with what it has, after TRIES_MAX tries.
    """
    tries = 0

    def still_fails(candidate: list[T]) -> bool:
        nonlocal tries
        tries += 1
        return fails(candidate)

    size = max(1, len(items) // 2)
    while tries < TRIES_MAX:
        before, start = len(items), 0
        while start < len(items) and tries < TRIES_MAX:
            candidate = items[:start] + items[start + size :]
            if still_fails(candidate):
                items = candidate
            else:
                start += size
        if size == 1 and len(items) == before:
            break
        if size > 1:
            size //= 2
    return items
