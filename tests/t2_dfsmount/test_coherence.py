"""Coherence: everything that an invalidation names is forgotten, here and in the kernel."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import trio

from dfsmount.files.layouts import Layouts
from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.coherence import Coherence
from dfsmount.leases.exclusive import Leases
from dfsmount.leases.kernel import Notices
from dfsmount.remote.followed import FollowedPolicies
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.messages import Invalidated, Invalidation
from tests.t2_dfsmount.fakes_meta import FakeKernel, attr


class FakeLayouts:
    def __init__(self) -> None:
        self.forgotten: list[int] = []

    def invalidate(self, inode: int) -> None:
        self.forgotten.append(inode)

    def clear(self) -> None:
        self.forgotten.append(0)


class FakeFiles:
    def __init__(self) -> None:
        self.unlinked: list[int] = []
        self.changed: list[int] = []
        self.lost = False

    def open_inodes(self) -> list[int]:
        return [7]

    def writer(self, inode: int) -> object | None:
        return None

    async def flush_inode(self, inode: int, *, last: bool = False) -> None: ...

    def may_be_mapped(self, inode: int) -> bool:
        return False

    def changed_elsewhere(self, inode: int) -> None:
        self.changed.append(inode)

    def unlinked_elsewhere(self, inode: int) -> None:
        self.unlinked.append(inode)

    def session_lost(self, fenced: Collection[int]) -> None:
        self.lost = True


def leases_of(attrs: AttrCache, nursery: trio.Nursery) -> Leases:
    return Leases(cast(MetaClient, None), cast(Session, None), attrs, nursery)


def parts(nursery: trio.Nursery) -> tuple[Coherence, AttrCache, FakeLayouts, FakeFiles, FakeKernel]:
    attrs, layouts, files, kernel = (
        AttrCache(lambda: True),
        FakeLayouts(),
        FakeFiles(),
        FakeKernel(),
    )
    with attrs.asking() as token:
        for inode in (1, 7, 8):
            attrs.put_attr(attr(inode), token)
        attrs.put_name(1, b"a", 7, token)
        attrs.put_name(1, b"b", 8, token)
    notices = Notices(nursery)
    leases = leases_of(attrs, nursery)
    coherence = Coherence(attrs, cast(Layouts, layouts), files, leases, notices, FollowedPolicies())
    notices.kernel = kernel
    return coherence, attrs, layouts, files, kernel


def said(inode: int, what: Invalidated, name: bytes = b"") -> list[Invalidation]:
    return [Invalidation(inode=inode, what=int(what), name=name)]


async def test_attributes(nursery: trio.Nursery) -> None:
    coherence, attrs, layouts, files, kernel = parts(nursery)
    await coherence.tell_kernel(coherence.forget(said(7, Invalidated.ATTR)))
    assert files.changed == [7]
    assert attrs.attr(7) is None and attrs.attr(8) is not None
    assert layouts.forgotten == []
    assert kernel.heard == [(7, False)]


async def test_data_means_pages_and_extents_too(nursery: trio.Nursery) -> None:
    coherence, attrs, layouts, _files, kernel = parts(nursery)
    both = said(7, Invalidated.DATA) + said(7, Invalidated.ATTR)
    await coherence.tell_kernel(coherence.forget(both))
    assert attrs.attr(7) is None
    assert layouts.forgotten == [7]
    assert kernel.heard == [(7, True)]


async def test_names(nursery: trio.Nursery) -> None:
    coherence, attrs, _layouts, files, kernel = parts(nursery)
    await coherence.tell_kernel(coherence.forget(said(1, Invalidated.NAME, b"a")))
    assert files.changed == []
    assert attrs.child(1, b"a") == (False, None)
    assert attrs.child(1, b"b") == (True, 8)
    assert kernel.heard == [(1, b"a")]
    await coherence.tell_kernel(coherence.forget(said(1, Invalidated.ALL_NAMES)))
    assert attrs.child(1, b"b") == (False, None)
    assert kernel.heard[1:] == [(1, b"b")]


async def test_a_last_name_that_went_elsewhere(nursery: trio.Nursery) -> None:
    coherence, attrs, _layouts, files, _kernel = parts(nursery)
    await coherence.tell_kernel(coherence.forget(said(7, Invalidated.GONE)))
    assert files.unlinked == [7]
    assert attrs.attr(7) is None


async def test_drop_all_reaches_the_kernel(nursery: trio.Nursery) -> None:
    coherence, attrs, layouts, _files, kernel = parts(nursery)
    await coherence.drop_all()
    assert attrs.attr(8) is None and layouts.forgotten == [0]
    assert kernel.heard == [(1, b"a"), (1, b"b"), (1, True), (7, True)]


async def test_without_a_kernel_nothing_is_told(nursery: trio.Nursery) -> None:
    attrs = AttrCache(lambda: True)
    leases = leases_of(attrs, nursery)
    layouts = cast(Layouts, FakeLayouts())
    coherence = Coherence(attrs, layouts, FakeFiles(), leases, Notices(nursery), FollowedPolicies())
    await coherence.drop_all()
    assert coherence.open_inodes() == [7]


async def test_a_lost_session_is_passed_on(nursery: trio.Nursery) -> None:
    coherence, _attrs, _layouts, files, _kernel = parts(nursery)
    await coherence.session_lost()
    assert files.lost


async def test_what_this_client_finds_out_itself_reaches_the_kernel(nursery: trio.Nursery) -> None:
    coherence, _attrs, layouts, _files, kernel = parts(nursery)
    await coherence.attr_changed(7)
    await coherence.pages_written(8)
    assert kernel.heard == [(7, False), (8, True)]
    assert layouts.forgotten == []
