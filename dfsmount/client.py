"""One client of a cluster, put together: session, metadata, data path, vfs.

`open_file_system` is what the mount process, the cluster simulation and later the gateway begin
with. It opens a session, starts the background work in its own nursery, and at the end stores what
is dirty and gives the session back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from dfsmount.config import NOATIME, MountConfig
from dfsmount.files.datapath import DataPath, DataSettings
from dfsmount.files.layouts import LAYOUTS_MAX
from dfsmount.files.openfiles import OpenFiles
from dfsmount.files.writeback import WriteSettings
from dfsmount.files.writer import Writer
from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.coherence import Coherence
from dfsmount.leases.exclusive import Leases
from dfsmount.leases.kernel import Notices
from dfsmount.locks.hostlocks import Locks
from dfsmount.names.accesstimes import AccessTimes
from dfsmount.names.attributes import Parts
from dfsmount.names.mutations import Mutations
from dfsmount.remote.followed import FollowedPolicies
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfsmount.vfs import Vfs
from dfswire.client import Client
from dfswire.errors import DFSError, SessionLost
from dfswire.metadata import OpenSession, SessionGrant
from dfswire.operations import Release

log = logging.getLogger(__name__)

RELEASE_PAUSE_S = 5.0  # a soft mount gives up, a metad whose disk is full refuses: then once more


@dataclass(frozen=True)
class FileSystem:
    """A connected client.  Set `notices.kernel` when a kernel caches for it."""

    vfs: Vfs
    files: OpenFiles
    coherence: Coherence
    session: Session
    data: DataPath
    times: AccessTimes
    leases: Leases
    notices: Notices


@asynccontextmanager
async def open_file_system(
    client: Client,
    config: MountConfig,
    introduction: OpenSession,
    opened: Callable[[SessionGrant], None] = lambda grant: None,
    closed: Callable[[], None] = lambda: None,
    now_ns: Callable[[], int] = time.time_ns,
    local_hosts: tuple[str, ...] = (),
) -> AsyncIterator[FileSystem]:
    """A client of the metad that `config` names, for the length of the context.

    Raises Unavailable or ProtocolError when no session can be had.
    """
    session = Session(client, config.metad, introduction, opened=opened, closed=closed)
    grant = await session.open()
    try:
        async with trio.open_nursery() as nursery:
            file_system = _assemble(client, config, session, grant, nursery, now_ns, local_hosts)
            session.take_experiences = file_system.data.health.take
            file_system.data.health.on_trouble = session.renew_soon
            nursery.start_soon(session.run, file_system.coherence)
            nursery.start_soon(file_system.data.run)
            try:
                yield file_system
            finally:
                nursery.cancel_scope.cancel()
    finally:  # a crash, too, must not leave others waiting for the lease to end
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
            await session.close()


def _assemble(
    client: Client,
    config: MountConfig,
    session: Session,
    grant: SessionGrant,
    nursery: trio.Nursery,
    now_ns: Callable[[], int],
    local_hosts: tuple[str, ...],
) -> FileSystem:
    attrs = AttrCache(lambda: not config.nocache and session.lease_left_s() > 0)
    meta = MetaClient(
        client,
        session,
        attrs.forget_answers,
        soft_timeout_s=config.soft_s or None,
        nursery=nursery,
    )
    leases = Leases(meta, session, attrs, nursery, hard=not config.soft_s)
    policies = FollowedPolicies()
    mutations = Mutations(meta, attrs, leases, policies)
    settings = _data_settings(config, grant, local_hosts)
    data = DataPath(
        client, mutations, nursery, settings, policies, lambda: session.lease_left_s() > 0
    )
    mutations.created = data.grants.prepare

    def make_writer(inode: int) -> Writer:
        known = attrs.attr(inode)
        return data.writer(inode, size=known.size if known else 0)

    async def release(inode: int) -> None:
        """Until metad has it: the inode stays there for as long as this client does not say so."""
        attrs.forget_attr(inode)  # nobody tells of its end
        while True:
            try:
                await mutations.submit(Release(inode=inode))
            except SessionLost:
                return  # the end of a session releases everything that it had open
            except DFSError as problem:
                log.info("inode %d not released yet: %s", inode, problem)
                await trio.sleep(RELEASE_PAUSE_S)
            else:
                return

    files = OpenFiles(
        make_writer,
        data.reader,
        release=lambda inode: nursery.start_soon(release, inode),
        session_lost=data.session_lost,
        closed=leases.returns.closed,
    )
    notices = Notices(nursery)
    coherence = Coherence(attrs, data.layouts, files, leases, notices, policies)
    leases.returns.contents = coherence
    coherence.locks = locks = Locks(meta, session, nursery)
    nursery.start_soon(leases.returns.run)

    async def settle() -> None:
        while True:
            await mutations.settle()
            await coherence.drop_all()

    nursery.start_soon(settle)
    rule = NOATIME if config.ro else config.atime
    times = AccessTimes(rule, attrs, mutations, now_ns)
    nursery.start_soon(times.run)
    parts = Parts(
        meta,
        mutations,
        session,
        attrs,
        data.layouts,
        files,
        coherence,
        locks,
        data.durability,
        times,
        leases,
        notices,
        config.acl,
        now_ns,
    )
    vfs = Vfs(parts)
    return FileSystem(vfs, files, coherence, session, data, times, leases, notices)


def _data_settings(
    config: MountConfig, grant: SessionGrant, local_hosts: tuple[str, ...]
) -> DataSettings:
    return DataSettings(
        write=WriteSettings(
            chunk_size_bytes=grant.chunk_size_bytes,
            inline_max_bytes=grant.inline_max_bytes,
            dirty_max_bytes=config.dirty_bytes,
        ),
        replicas=grant.replicas,
        cache_bytes=0 if config.nocache else config.cache_bytes,
        layouts_max=0 if config.nocache else LAYOUTS_MAX,
        local_hosts=local_hosts,
    )
