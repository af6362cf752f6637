"""One action on a mount and on ext4, and the demand that it ends in the same way on both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stateful.twin import Outcome, described, outcome


class Sides:
    """A directory of ours and one on ext4 (or where there is none, on the local file system)."""

    def __init__(self, mine: Path, plain: Path) -> None:
        self.mine, self.plain = mine, plain

    def same(self, action: Callable[[Path], Any], about: object = "") -> Outcome:
        """`action(directory)` has the same value or errno on both sides; which."""
        ours = outcome(lambda: action(self.mine))
        right = outcome(lambda: action(self.plain))
        assert ours == right, f"{about}: {ours} instead of {right}"
        return right

    def same_attributes(self, *names: str) -> None:
        """Type, mode, owner, links and size of these names are the same."""
        for name in names:
            self.same(lambda side, name=name: described(os.lstat(side / name)), name)
