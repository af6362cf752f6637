"""ACLs as values: the format, and how they and mode bits move together.

tests/t4_mount/test_acl.py compares the same rules with a local file system's.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.errors import Invalid
from metad.names import acl
from metad.names.acl import GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, Acl, Entry

MINIMAL = (Entry(USER_OBJ, 6), Entry(GROUP_OBJ, 4), Entry(OTHER, 0))
FULL = (
    Entry(USER_OBJ, 7),
    Entry(USER, 6, 1000),
    Entry(USER, 4, 1001),
    Entry(GROUP_OBJ, 5),
    Entry(GROUP, 7, 2000),
    Entry(MASK, 6),
    Entry(OTHER, 1),
)


def make(perms: tuple[int, ...], users: dict[int, int], groups: dict[int, int]) -> Acl:
    """A valid list; without named entries one without a mask."""
    named = bool(users or groups)
    return (
        Entry(USER_OBJ, perms[0]),
        *(Entry(USER, perm, uid) for uid, perm in users.items()),
        Entry(GROUP_OBJ, perms[1]),
        *(Entry(GROUP, perm, gid) for gid, perm in groups.items()),
        *([Entry(MASK, perms[2])] if named else []),
        Entry(OTHER, perms[3]),
    )


perms = st.integers(0, 7)
named = st.dictionaries(st.integers(0, (1 << 32) - 2), perms, max_size=4)
acls = st.builds(make, st.tuples(perms, perms, perms, perms), named, named)
modes = st.integers(0, 0o7777)


def test_the_format_is_the_kernels() -> None:
    value = bytes.fromhex("02000000 01000600ffffffff 04000400ffffffff 20000000ffffffff")
    assert acl.build(MINIMAL) == value
    assert acl.parse(value) == MINIMAL
    assert acl.parse(bytes.fromhex("02000000")) == ()


@given(acls)
def test_what_is_built_can_be_parsed(entries: Acl) -> None:
    assert acl.parse(acl.build(entries)) == entries


@pytest.mark.parametrize(
    "value",
    [b"", b"\2\0\0", b"\1\0\0\0", b"\2\0\0\0x", acl.build(MINIMAL)[:-1], acl.build(MINIMAL) + b"x"],
)
def test_bytes_that_are_no_acl_are_refused(value: bytes) -> None:
    with pytest.raises(Invalid):
        acl.parse(value)


@pytest.mark.parametrize(
    "entries",
    [
        MINIMAL[1:],
        MINIMAL[:-1],
        MINIMAL[::-1],
        (*MINIMAL, Entry(OTHER, 0)),
        (Entry(USER_OBJ, 6), Entry(USER, 6, 1), *MINIMAL[1:]),  # without a mask
        (Entry(USER_OBJ, 8), *MINIMAL[1:]),
        (Entry(64, 6), *MINIMAL[1:]),
        (FULL[0], Entry(USER, 6), *FULL[3:]),  # a user without a number
    ],
)
def test_lists_that_the_kernel_refuses_are_refused(entries: Acl) -> None:
    with pytest.raises(Invalid):
        acl.parse(acl.build(entries))


def test_only_named_entries_and_a_mask_go_beyond_the_mode() -> None:
    assert acl.is_minimal(MINIMAL)
    assert not acl.is_minimal(FULL)
    assert not acl.is_minimal((*MINIMAL[:2], Entry(MASK, 4), MINIMAL[2]))


def test_the_mask_stands_for_the_group_in_the_mode() -> None:
    assert acl.mode_of(MINIMAL) == 0o640
    assert acl.mode_of(FULL) == 0o761


def test_chmod_changes_the_mask_and_not_the_group() -> None:
    changed = acl.with_mode(FULL, 0o4420)
    assert changed == (Entry(USER_OBJ, 4), *FULL[1:5], Entry(MASK, 2), Entry(OTHER, 0))
    assert acl.with_mode(MINIMAL, 0o124) == (
        Entry(USER_OBJ, 1),
        Entry(GROUP_OBJ, 2),
        Entry(OTHER, 4),
    )


@given(acls, modes)
def test_after_chmod_the_mode_is_the_one_that_was_given(entries: Acl, mode: int) -> None:
    assert acl.mode_of(acl.with_mode(entries, mode)) == mode & 0o777


def test_a_new_file_gets_what_both_the_list_and_its_mode_allow() -> None:
    assert acl.inherited(FULL, 0o100666) == (
        (Entry(USER_OBJ, 6), *FULL[1:5], Entry(MASK, 6), Entry(OTHER, 0)),
        0o100660,
    )


@given(acls, modes)
def test_inherited_permissions_never_exceed_the_mode(entries: Acl, mode: int) -> None:
    access, given_mode = acl.inherited(entries, mode)
    assert given_mode == mode & (0o7000 | acl.mode_of(entries))
    assert acl.mode_of(access) == given_mode & 0o777
    assert [entry.tag for entry in access] == [entry.tag for entry in entries]
