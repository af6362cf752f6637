"""Leases: whoever may have something cached or open is named, until it said otherwise or is fenced.

The last test drives random histories against clients that are modelled as badly as is allowed.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.errors import SessionLost
from dfswire.messages import Invalidated, Invalidation
from metad.leases import Leases

FENCE_S = 30.0
ATTR, DATA, NAME, GONE = (
    Invalidated.ATTR,
    Invalidated.DATA,
    Invalidated.NAME,
    Invalidated.GONE,
)


def change(inode: int, what: int, name: bytes = b"") -> Invalidation:
    return Invalidation(inode=inode, what=what, name=name)


@pytest.fixture
def leases() -> Leases:
    made = Leases(FENCE_S)
    made.open("a", 0.0)
    made.open("b", 0.0)
    return made


def test_a_session_lives_from_renewal_to_renewal(leases: Leases) -> None:
    leases.renew("a", 20.0)
    assert leases.expired(30.0) == ["b"]
    leases.check("a", 49.9)
    with pytest.raises(SessionLost):
        leases.check("a", 50.0)
    with pytest.raises(SessionLost):
        leases.renew("a", 50.0)
    with pytest.raises(SessionLost):
        leases.check("unknown", 0.0)
    leases.end("b")
    assert "b" not in leases and leases.expired(30.0) == []


def test_only_other_holders_are_told(leases: Leases) -> None:
    leases.hold("a", [1, 5])
    leases.hold("b", [5])
    told = leases.invalidate([change(5, ATTR), change(1, NAME, b"x")], "a")
    assert told == {"b": [change(5, ATTR)]}
    told = leases.invalidate([change(5, ATTR), change(1, NAME, b"x")], "b")
    assert told == {"a": [change(5, ATTR), change(1, NAME, b"x")]}


def test_after_data_a_holder_is_not_told_again_until_it_asks_again(leases: Leases) -> None:
    leases.hold("a", [5])
    assert leases.invalidate([change(5, ATTR | DATA)], "b")
    assert not leases.invalidate([change(5, ATTR | DATA)], "b")
    leases.hold("a", [5])
    assert leases.invalidate([change(5, ATTR)], "b")


def test_a_directory_stays_held_because_its_other_names_stay_cached(leases: Leases) -> None:
    leases.hold("a", [1])
    for name in (b"x", b"y"):
        assert leases.invalidate([change(1, ATTR), change(1, NAME, name)], "b")


def test_who_was_told_to_forget_the_data_may_still_have_the_file_open(leases: Leases) -> None:
    leases.hold("a", [5])
    leases.invalidate([change(5, DATA)], "b")
    assert not leases.orphan(5, "b", held=False)
    assert leases.invalidate([change(5, GONE)], "b") == {"a": [change(5, GONE)]}
    assert leases.release("a", 5)


def test_an_orphan_lives_until_the_last_release(leases: Leases) -> None:
    leases.hold("a", [5])
    assert not leases.orphan(5, "b", held=True)
    assert not leases.release("a", 5)
    assert not leases.release("a", 5)
    assert leases.release("b", 5)
    assert not leases.release("b", 5), "only once"


def test_an_orphan_that_nobody_may_have_open_goes_at_once(leases: Leases) -> None:
    leases.hold("b", [5])
    assert leases.orphan(5, "b", held=False)


def test_the_end_of_a_session_releases_its_orphans(leases: Leases) -> None:
    leases.orphan(5, "a", held=True)
    leases.orphan(6, "a", held=True)
    leases.orphan(7, "b", held=True)
    assert leases.end("a") == [5, 6]
    assert leases.end("a") == []


def test_reopening_the_stream_says_what_is_open(leases: Leases) -> None:
    leases.hold("a", [5, 6, 7])
    leases.orphan(5, "b", held=False)
    leases.orphan(6, "b", held=False)
    assert leases.connect("a", [6]) == [5]
    assert not leases.invalidate([change(7, ATTR)], "b"), "it has forgotten"
    assert leases.invalidate([change(7, GONE)], "b"), "but may have opened it meanwhile"
    assert leases.release("a", 6)


def test_an_unsynced_session_counts_as_having_everything() -> None:
    leases = Leases(FENCE_S)
    leases.open("old", 0.0, synced=False)
    assert not leases.load_orphan(5)
    leases.open("new", 0.0)
    assert leases.unsynced() == ["old"]
    assert set(leases.invalidate([change(9, ATTR)], "new")) == {"old"}
    assert not leases.orphan(6, "new", held=False)
    assert sorted(leases.connect("old", [])) == [5, 6]
    assert not leases.invalidate([change(9, ATTR)], "new")
    assert leases.load_orphan(8), "nobody is left who might have it"


def test_a_session_that_holds_too_much_drops_everything_but_what_it_asks_now() -> None:
    leases = Leases(FENCE_S, held_inodes_max=3)
    leases.open("a", 0.0)
    leases.open("b", 0.0)
    assert not leases.hold("a", [1, 2, 3])
    assert leases.hold("a", [4])
    assert not leases.invalidate([change(1, ATTR)], "b")
    assert leases.invalidate([change(4, ATTR)], "b")
    assert leases.invalidate([change(1, GONE)], "b"), "it may have it open all the same"


INODES = st.integers(1, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from("abc"), INODES),
        st.tuples(st.just("open"), st.sampled_from("abc"), INODES),
        st.tuples(st.just("close"), st.sampled_from("abc"), INODES),
        st.tuples(st.just("change"), st.sampled_from("abc"), INODES),
        st.tuples(st.just("unlink"), st.sampled_from("abc"), INODES),
        st.tuples(st.just("reconnect"), st.sampled_from("abc"), INODES),
    ),
    max_size=25,
)


class World:
    """Clients that cache all they read, and keep files open as long as they like."""

    def __init__(self) -> None:
        self.leases = Leases(FENCE_S, held_inodes_max=2)
        self.cached: dict[str, dict[int, int]] = {name: {} for name in "abc"}
        self.opened: dict[str, set[int]] = {name: set() for name in "abc"}
        self.version = dict.fromkeys((1, 2, 3), 0)
        self.unlinked: set[int] = set()
        self.purged: set[int] = set()
        for name in "abc":
            self.leases.open(name, 0.0)

    def read(self, who: str, inode: int) -> None:
        if inode in self.purged:
            return
        if self.leases.hold(who, [inode]):
            self.cached[who].clear()
        self.cached[who][inode] = self.version[inode]

    def open(self, who: str, inode: int) -> None:
        if inode not in self.unlinked:
            self.read(who, inode)
            self.opened[who].add(inode)

    def close(self, who: str, inode: int) -> None:
        self.opened[who].discard(inode)
        if inode in self.unlinked:
            self.cached[who].pop(inode, None)
            if self.leases.release(who, inode):
                self.purged.add(inode)

    def change(self, who: str, inode: int) -> None:
        if inode in self.purged:
            return
        self.version[inode] += 1
        if self.leases.hold(who, [inode]):
            self.cached[who].clear()
        self.cached[who][inode] = self.version[inode]
        self.tell(who, change(inode, ATTR | DATA))

    def unlink(self, who: str, inode: int) -> None:
        if inode in self.unlinked:
            return
        self.unlinked.add(inode)
        if self.leases.orphan(inode, who, held=inode in self.opened[who]):
            self.purged.add(inode)
        self.tell(who, change(inode, ATTR | GONE))

    def tell(self, who: str, invalidation: Invalidation) -> None:
        for told in self.leases.invalidate([invalidation], who):
            self.cached[told].pop(invalidation.inode, None)
            if invalidation.what & GONE and invalidation.inode not in self.opened[told]:
                self.close(told, invalidation.inode)

    def reconnect(self, who: str, _: int) -> None:
        self.cached[who].clear()
        self.purged.update(self.leases.connect(who, list(self.opened[who])))


@given(STEPS)
def test_no_client_has_anything_stale_or_loses_an_open_file(
    steps: list[tuple[str, str, int]],
) -> None:
    world = World()
    for what, who, inode in steps:
        getattr(world, what)(who, inode)
        for cached in world.cached.values():
            for held, version in cached.items():
                assert version == world.version[held]
        assert not world.purged & set().union(*world.opened.values())
    for who in "abc":
        for inode in (1, 2, 3):
            world.close(who, inode)
    assert world.purged == world.unlinked, "nothing is kept for ever"
