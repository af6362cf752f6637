"""Rules that nobody may notice: mounts mounted anew, metad restarted, a chunkd lost and back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.stateful.contents import Contents
from tests.stateful.machine import World, views

EACH = 2  # times in one example at most: they take seconds, where the others take milliseconds


class Whole(Contents):
    """All rules."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.remounts = 0
        self.restarts = 0
        self.lost = 0
        self.is_lost = False

    @precondition(lambda self: self.world.remount and self.steps > 10 and self.remounts < EACH)
    @rule(view=views)
    def mount_anew(self, view: int) -> None:
        assert self.world.remount is not None
        view %= len(self.roots)
        self.close_view(view)
        self.note(view, "mount anew")
        self.remounts += 1
        self.world.remount(view)
        self.compare()

    @precondition(
        lambda self: self.world.restart_metad and self.steps > 10 and self.restarts < EACH
    )
    @rule()
    def restart_metad(self) -> None:
        """Killed and started again: what was answered is so, what is open stays open."""
        assert self.world.restart_metad is not None
        self.trace.append("metad is killed and started again")
        self.restarts += 1
        self.world.restart_metad()

    @precondition(
        lambda self: (
            self.world.lose_chunkd and not self.is_lost and self.steps > 5 and self.lost < EACH
        )
    )
    @rule(number=st.integers(0, 2))
    def lose_chunkd(self, number: int) -> None:
        """Killed: all is readable from the others, and written to them."""
        assert self.world.lose_chunkd is not None
        self.trace.append(f"chunkd {number} is killed")
        self.lost += 1
        self.is_lost = True
        self.world.lose_chunkd(number)

    @precondition(lambda self: self.is_lost)
    @rule()
    def return_chunkd(self) -> None:
        assert self.world.return_chunkds is not None
        self.trace.append("the chunkd is started again")
        self.is_lost = False
        self.world.return_chunkds()

    @rule()
    def checkpoint(self) -> None:
        self.compare()

    def teardown(self) -> None:
        try:
            if self.is_lost:
                self.return_chunkd()
        finally:
            super().teardown()
