"""Leases: whoever may have something cached is named, until it said otherwise or is fenced; and
nobody has anything exclusively beside others.

test_leases_explored.py tries every order of what can happen, in a small world.
"""

from __future__ import annotations

import pytest

from dfswire.errors import SessionLost
from dfswire.messages import Lease
from metad.leases.table import NAMES, Blocked
from tests.t2_metad.lease_names import ALL_NAMES, ATTR, DATA, FILE, GONE, NAME, Names, change


@pytest.fixture
def world() -> Names:
    return Names("a", "b", "c")


def test_a_session_lives_from_renewal_to_renewal(world: Names) -> None:
    leases = world.leases
    leases.renew("a", 20.0)
    assert leases.next_expiry(20.0) == 30.0
    assert leases.expired(29.9) == []
    assert leases.expired(30.0) == ["b", "c"]
    leases.check("a", 49.9)
    with pytest.raises(SessionLost):
        leases.check("a", 50.0)
    with pytest.raises(SessionLost):
        leases.renew("a", 50.0)
    with pytest.raises(SessionLost):
        leases.check("unknown", 0.0)
    for session in "abc":
        leases.end(session)
        leases.end(session)
    assert "b" not in leases and leases.expired(30.0) == []
    assert leases.next_expiry(30.0) == 60.0, "nobody can expire earlier"


# what is shared


def test_only_other_holders_are_told(world: Names) -> None:
    world.hold("a", 1, parts=NAMES)
    world.hold("a", 5)
    world.hold("b", 5)
    changes = change(5, ATTR), change(1, NAME, b"x")
    assert world.tell("a", *changes) == {"b": [change(5, ATTR)]}
    assert world.tell("b", *changes) == {"a": [*changes]}


def test_each_part_is_held_for_itself(world: Names) -> None:
    world.hold("a", 1, parts=NAMES)
    assert not world.tell("b", change(1, ATTR))
    world.hold("a", 1, parts=ATTR)
    assert world.tell("b", change(1, ATTR))
    world.confirm("a")
    assert not world.tell("b", change(1, ATTR)), "it was told, and has not asked since"
    assert world.tell("b", change(1, NAME, b"x")), "its names stay"
    assert world.tell("b", change(1, NAME, b"y"))
    assert world.tell("b", change(1, ALL_NAMES))
    world.confirm("a")
    assert not world.tell("b", change(1, NAME, b"z"))


def test_who_has_not_confirmed_is_told_again(world: Names) -> None:
    world.hold("a", 5)
    first = world.leases.invalidate([change(5, FILE)], "b")
    second = world.leases.invalidate([change(5, FILE)], "c")
    assert list(second.tell) == ["a"], "c must not be done before a has forgotten what b changed"
    assert world.leases.confirmed("a", first.number) == ([], False)
    assert list(world.tell("c", change(5, ATTR))) == ["a"]
    world.confirm("a")
    assert not world.tell("c", change(5, FILE))
    world.hold("a", 5)
    assert world.tell("c", change(5, FILE)), "it asked again"


def test_an_unlinked_file_that_is_open_keeps_its_data(world: Names) -> None:
    world.hold("a", 5)
    world.tell("b", change(5, ATTR | GONE))
    world.confirm("a")
    assert world.tell("b", change(5, FILE)), "it still has the pages"


def test_a_session_that_holds_too_much_drops_everything_but_what_it_asks_now() -> None:
    world = Names("a", "b", held_inodes_max=3)
    assert not world.hold("a", 1, 2, 3)
    dropping = world.hold("a", 4)
    assert dropping
    assert world.tell("b", change(1, ATTR)), "it has not dropped anything yet"
    assert world.leases.confirmed("a", dropping - 1) == ([], False)
    assert world.leases.confirmed("a", dropping) == ([], True)
    assert not world.tell("b", change(1, ATTR))
    assert world.tell("b", change(4, ATTR))
    assert world.tell("b", change(1, GONE)), "it may have it open all the same"


def test_reopening_the_stream_forgets_what_was_cached(world: Names) -> None:
    world.hold("a", 5, 6)
    world.tell("b", change(6, FILE))
    world.leases.connect("a")
    assert not world.tell("b", change(5, FILE), change(6, FILE))
    assert world.tell("b", change(5, GONE)), "but it may have been opened meanwhile"


def test_a_confirmation_of_a_session_that_ended_is_void(world: Names) -> None:
    world.leases.end("a")
    assert world.leases.confirmed("a", 1) == ([], False)
    assert world.leases.confirmed("unknown", 1) == ([], False)


# what is exclusive


def test_who_is_alone_gets_a_lease_and_its_number_is_new_each_time(world: Names) -> None:
    first = world.lease("a", 5)
    assert first == Lease(inode=5, parts=FILE, number=101)
    assert world.lease("a", 5).number != first.number
    assert world.lease("a", 5, NAMES).parts == FILE | NAMES


def test_sharers_forget_and_confirm_before_a_lease_is_granted(world: Names) -> None:
    world.hold("a", 5)
    world.hold("b", 5, parts=NAMES)
    blocked = world.take("c", 5)
    assert isinstance(blocked, Blocked) and blocked.announcement is not None
    assert blocked.announcement.tell == {"a": [change(5, FILE)]}
    again = world.take("c", 5)
    assert isinstance(again, Blocked) and again.announcement is None, "told once"
    world.confirm("a")
    world.lease("c", 5)


def test_names_are_forgotten_as_a_whole(world: Names) -> None:
    world.hold("a", 1, parts=NAMES)
    blocked = world.take("b", 1, NAMES)
    assert isinstance(blocked, Blocked) and blocked.announcement is not None
    assert blocked.announcement.tell == {"a": [change(1, ALL_NAMES)]}
    world.confirm("a")
    world.lease("b", 1, NAMES)


def test_an_old_invalidation_does_not_arrive_after_the_lease(world: Names) -> None:
    world.hold("a", 5)
    world.tell("b", change(5, ATTR))
    assert isinstance(world.take("a", 5), Blocked)
    world.confirm("a")
    world.lease("a", 5)


def test_a_lease_is_recalled_once_for_each_part_that_others_want(world: Names) -> None:
    lease = world.lease("a", 5)
    assert world.may_tell("a", 5)
    assert world.may_tell("b", 6), "another inode"
    assert world.may_tell("b", 5, NAMES), "another part"
    assert world.asked("b", 5, ATTR) == {"a": [Lease(inode=5, parts=ATTR, number=lease.number)]}
    assert world.asked("c", 5, ATTR) == {} and not world.may_tell("c", 5)
    assert world.asked("c", 5, FILE) == {"a": [lease]}
    assert not world.leases.is_current("a", lease)
    assert world.leases.give_back("a", Lease(inode=5, parts=ATTR, number=lease.number))
    assert world.may_tell("b", 5, ATTR) and not world.may_tell("b", 5, DATA)
    assert world.leases.give_back("a", lease)
    assert world.may_tell("b", 5, DATA)


def test_different_sessions_may_hold_different_parts(world: Names) -> None:
    world.lease("a", 5, ATTR)
    world.lease("b", 5, DATA)
    asked = world.asked("c", 5, FILE)
    assert sorted(asked) == ["a", "b"]


def test_what_was_given_back_is_still_shared(world: Names) -> None:
    lease = world.lease("a", 5)
    world.leases.give_back("a", lease)
    assert isinstance(world.take("b", 5), Blocked), "it has pages and attributes in its caches"


def test_a_late_message_about_an_older_lease_is_void(world: Names) -> None:
    old = world.lease("a", 5)
    new = world.lease("a", 5)
    assert not world.leases.give_back("a", old)
    assert not world.leases.give_back("b", new), "somebody else's"
    assert not world.leases.give_back("a", Lease(inode=6, parts=FILE, number=new.number))
    assert not world.may_tell("b", 5)
    assert world.leases.give_back("a", new)
    assert not world.leases.give_back("a", new), "only once"


def test_the_end_of_a_session_frees_what_it_had(world: Names) -> None:
    world.lease("a", 5)
    assert not world.may_tell("b", 5)
    assert world.leases.end("a") == [5]
    assert world.may_tell("b", 5)
    world.lease("b", 5)


def test_a_deleted_file_is_leased_to_nobody(world: Names) -> None:
    world.lease("a", 5)
    world.leases.forget("a", 5)
    assert world.leases.is_alone("b")


def test_free_leases_come_with_the_answer(world: Names) -> None:
    def free(session: str, inode: int) -> Lease | None:
        return world.leases.take_if_free(session, inode, FILE)

    assert free("a", 5) is None, "it was told nothing of it"
    world.hold("a", 5)
    assert free("a", 5)
    world.hold("b", 6)
    world.hold("a", 6)
    assert free("a", 6) is None, "b shares it"
    world.tell("a", change(6, FILE))
    assert free("a", 6) is None, "b has not confirmed yet"
    world.confirm("b")
    assert free("a", 6)
    world.hold("a", 7)
    world.tell("b", change(7, FILE))
    world.confirm("a")
    assert free("a", 7) is None, "what it knows is old"
    assert world.leases.take_if_free("gone", 5, FILE) is None
