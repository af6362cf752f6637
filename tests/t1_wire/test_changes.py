"""Several changes of attributes in one: the same as one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.attrchanges import changed, merged
from dfswire.messages import Attr
from dfswire.operations import Commit, SetAttr

FILE = Attr(inode=5, mode=0o106755, uid=1, gid=2, size=3, atime_ns=4, mtime_ns=5, ctime_ns=6)

changes = st.builds(
    SetAttr,
    inode=st.just(5),
    mode=st.none() | st.integers(0, 0o7777),
    uid=st.none() | st.integers(0, 9),
    gid=st.none() | st.integers(0, 9),
    atime_ns=st.none() | st.integers(0, 9),
    mtime_ns=st.none() | st.integers(0, 9),
)


@given(st.lists(changes, min_size=1, max_size=5))
def test_merged_changes_do_the_same(steps: list[SetAttr]) -> None:
    one_by_one, together = FILE, None
    for step in steps:
        one_by_one = changed(one_by_one, step)
        together = merged(together, step)
    assert together is not None
    assert changed(FILE, together) == one_by_one


@pytest.mark.parametrize("change", [SetAttr(inode=6, mode=0), SetAttr(inode=5, size=0)])
def test_a_commit_takes_only_attributes_of_its_inode(change: SetAttr) -> None:
    with pytest.raises(ValueError, match="attributes of another inode, or with a size"):
        Commit(inode=5, extents=[], size=0, mtime_ns=0, attributes=change)
