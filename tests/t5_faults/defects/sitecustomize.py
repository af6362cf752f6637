"""Mistakes in our own code: imported by Python itself before a daemon begins (see defective.py).

DFS_DEFECTS says which functions are wrong, as "module:Class.function ..."; one raises an
AssertionError when there is a file of its name in DFS_DEFECT_ORDERS, and removes that.  With a "+"
before it, it has done its work by then.  DFS_SPEAKS is the version of the protocol that this
process speaks, as if it were of another release.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MESSAGE = "a mistake made for a test"


def fail_if_due(order: Path) -> None:
    """Once for each order."""
    try:
        order.unlink()
    except FileNotFoundError:
        return
    raise AssertionError(MESSAGE)


def wrong(function: Callable[..., Any], order: Path, *, late: bool) -> Callable[..., Any]:
    """The same function, with the mistake."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not late:
            fail_if_due(order)
        result = function(*args, **kwargs)
        if late:
            fail_if_due(order)
        return result

    @functools.wraps(function)
    async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
        if not late:
            fail_if_due(order)
        result = await function(*args, **kwargs)
        if late:
            fail_if_due(order)
        return result

    return wrapped_async if inspect.iscoroutinefunction(function) else wrapped


def plant(where: str, orders: Path) -> None:
    """Put one mistake in its place."""
    module, _, path = where.removeprefix("+").partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, wrong(getattr(owner, name), orders / name, late=where.startswith("+")))


def speak(version: int) -> None:
    """Before anybody else has imported the constant."""
    importlib.import_module("dfswire.messages").__dict__["PROTOCOL_VERSION"] = version


if "DFS_SPEAKS" in os.environ:
    speak(int(os.environ["DFS_SPEAKS"]))
for each in os.environ.get("DFS_DEFECTS", "").split():
    plant(each, Path(os.environ["DFS_DEFECT_ORDERS"]))
