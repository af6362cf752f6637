"""AttrCache: what may be kept, and that an answer overtaken by an invalidation never is."""

from __future__ import annotations

from dfsmount.leases.attrcache import AttrCache
from dfswire.messages import Xattr
from tests.t2_dfsmount.fakes_meta import attr


def cache(attrs_max: int = 100) -> AttrCache:
    return AttrCache(lambda: True, attrs_max=attrs_max)


def test_what_was_put_is_known() -> None:
    known = cache()
    with known.asking() as token:
        known.put_attr(attr(2), token)
        known.put_name(1, b"a", 2, token)
        known.put_name(1, b"none", None, token)
        known.put_target(3, b"there", token)
        known.put_xattrs(2, [Xattr(name=b"user.a", value=b"1")], token)
    assert known.attr(2) == attr(2)
    assert known.child(1, b"a") == (True, 2)
    assert known.child(1, b"none") == (True, None)
    assert known.child(1, b"other") == (False, None)
    assert known.target(3) == b"there"
    assert known.xattrs(2) == {b"user.a": b"1"}


def test_nothing_is_known_without_a_lease() -> None:
    valid = True
    known = AttrCache(lambda: valid)
    with known.asking() as token:
        known.put_attr(attr(2), token)
        known.put_name(1, b"a", 2, token)
    valid = False
    assert known.attr(2) is None
    assert known.child(1, b"a") == (False, None)


def test_an_answer_overtaken_by_an_invalidation_is_not_kept() -> None:
    known = cache()
    with known.asking() as token:
        known.forget_attr(2)
        known.put_attr(attr(2), token)
        known.put_attr(attr(3), token)
    assert known.attr(2) is None
    assert known.attr(3) == attr(3)


def test_an_overtaken_answer_still_removes_what_is_older() -> None:
    known = cache()
    with known.asking() as token:
        known.put_attr(attr(2, ctime_ns=5), token)
        known.put_name(1, b"a", 2, token)
    with known.asking() as token:
        known.forget_xattrs(2)
        known.forget_name(1, b"b")
        known.put_attr(attr(2, ctime_ns=6), token)
        known.put_name(1, b"a", None, token)
    assert known.attr(2) is None
    assert known.child(1, b"a") == (False, None)


def test_an_overtaken_answer_keeps_older_ones_out_that_are_on_their_way() -> None:
    """The answer to a change of one's own, which was repeated after metad had died: others asked
    the new metad meanwhile, before it was executed there."""
    known = cache()
    with known.asking() as change:
        known.drop_all()
        with known.asking() as question:
            known.put_attr(attr(2, ctime_ns=6, size=6), change)
            known.put_attr(attr(2, ctime_ns=5, size=5), question)
            known.put_attr(attr(3), question)
    assert known.attr(2) is None
    assert known.attr(3) == attr(3)
    with known.asking() as question:
        known.put_attr(attr(2, ctime_ns=6, size=6), question)
    assert known.attr(2) == attr(2, ctime_ns=6, size=6)


def test_older_attributes_do_not_replace_newer_ones() -> None:
    known = cache()
    with known.asking() as token:
        known.put_attr(attr(2, ctime_ns=5, size=5), token)
        known.put_attr(attr(2, ctime_ns=4, size=4), token)
    assert known.attr(2) == attr(2, ctime_ns=5, size=5)


def test_drop_all_outdates_every_question_under_way() -> None:
    known = cache()
    with known.asking() as token:
        known.put_name(1, b"a", 2, token)
        assert known.drop_all() == [(1, b"a")]
        known.put_attr(attr(2), token)
        known.put_name(1, b"a", 2, token)
    assert known.attr(2) is None
    assert known.child(1, b"a") == (False, None)


def test_forget_names_returns_them() -> None:
    known = cache()
    with known.asking() as token:
        known.put_name(1, b"a", 2, token)
        known.put_name(1, b"b", 3, token)
    assert sorted(known.forget_names(1)) == [b"a", b"b"]
    assert known.forget_names(1) == []


def test_full_counts_attributes_and_names() -> None:
    known = cache(attrs_max=2)
    with known.asking() as token:
        known.put_attr(attr(2), token)
        known.put_name(1, b"a", 2, token)
        assert not known.is_full
        known.put_name(1, b"b", None, token)
        assert known.is_full
    known.forget_name(1, b"b")
    assert not known.is_full


def test_in_a_complete_directory_other_names_do_not_exist() -> None:
    known = cache()
    with known.asking() as token:
        known.put_name(1, b"a", 2, token)
        known.put_complete(1, token)
    assert known.child(1, b"a") == (True, 2)
    assert known.child(1, b"b") == (True, None)
    with known.asking() as token:
        known.put_changed_name(1, b"b", 3, token)
    assert known.child(1, b"b") == (True, 3)
    assert known.child(1, b"c") == (True, None)
    known.forget_name(1, b"c")  # another client made it
    assert known.child(1, b"c") == (False, None)
    assert known.child(1, b"a") == (True, 2)


def test_a_listing_that_is_older_than_an_own_change_is_not_believed() -> None:
    known = cache()
    with known.asking() as listing:
        with known.asking() as token:
            known.put_changed_name(1, b"a", None, token)  # this client removes it
        known.put_name(1, b"a", 2, listing)
        known.put_complete(1, listing)
    assert known.child(1, b"a") == (True, None)
    assert known.child(1, b"b") == (False, None)


def test_an_invalidation_during_the_listing_leaves_it_incomplete() -> None:
    known = cache()
    with known.asking() as token:
        known.forget_name(1, b"z")
        known.put_name(1, b"a", 2, token)
        known.put_complete(1, token)
    assert known.child(1, b"a") == known.child(1, b"b") == (False, None)


def test_newer_attributes_outdate_older_ones_once() -> None:
    known = cache()
    with known.asking() as token:
        known.put_attr(attr(2, ctime_ns=5), token)
    assert not known.outdated_by(attr(2, ctime_ns=4))
    assert not known.outdated_by(attr(2, ctime_ns=5))
    assert not known.outdated_by(attr(3, ctime_ns=9))
    assert known.attr(2) == attr(2, ctime_ns=5)
    assert known.outdated_by(attr(2, ctime_ns=6))
    assert known.attr(2) is None
    assert not known.outdated_by(attr(2, ctime_ns=7))


def test_what_others_are_about_to_change_is_not_kept() -> None:
    known = cache()
    with known.asking() as token:
        known.forget_answers([2], [1])
        known.put_attr(attr(2), token)
        known.put_attr(attr(1), token)
        known.put_name(1, b"a", 2, token)
        known.put_name(2, b"b", 3, token)
        known.put_complete(1, token)
    assert known.attr(2) is None and known.attr(1) == attr(1)
    assert known.child(1, b"a") == (False, None) and known.child(2, b"b") == (True, 3)
    assert known.child(1, b"other") == (False, None), "the listing counts as little"
    with known.asking() as token:
        known.put_attr(attr(2), token)
    assert known.attr(2) == attr(2), "asked for later"
