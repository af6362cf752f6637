"""What a client remembers of changes whose result nobody waited for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.exclusive import Leases
from dfsmount.names.mutations import Mutations
from dfsmount.remote.followed import FollowedPolicies
from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.errors import NoSpace, SessionLost
from dfswire.operations import Release, SetAttr
from tests.t2_dfsmount.fakes_meta import client


async def test_after_a_cancelled_change_everything_is_dropped_when_it_is_over(
    autojump_clock: MockClock,
) -> None:
    """Not before: what is learnt while it may still happen would be wrong."""
    async with trio.open_nursery() as background:
        metad, session, meta = await client(nursery=background)
        attrs = AttrCache(lambda: True)
        mutations = Mutations(
            meta, attrs, Leases(meta, session, attrs, background), FollowedPolicies()
        )
        settled = trio.Event()

        async def settle() -> None:
            await mutations.settle()
            settled.set()

        background.start_soon(settle)
        metad.gate = trio.Event()
        with trio.move_on_after(1):
            await mutations.submit(SetAttr(inode=5, mode=0o600))
        metad_goes_on, metad.gate = metad.gate, trio.Event()
        await wait_all_tasks_blocked()
        assert not settled.is_set()
        metad_goes_on.set()
        metad.gate.set()
        await settled.wait()
        assert [type(batch.operations[0]).__name__ for batch in metad.batches] == [
            *("SetAttr", "SetAttr", "Release")
        ]
        assert len(metad.executed) == 2


@pytest.mark.parametrize("lost", [False, True])
async def test_it_is_over_when_metad_says_so(
    autojump_clock: MockClock, lost: bool, expect_log: Callable[[str], None]
) -> None:
    """Refused for now, it is asked again; a session that is gone changes nothing any more."""
    if lost:
        expect_log("metad ended this client's session")
    async with trio.open_nursery() as background:
        metad, session, meta = await client(nursery=background)
        attrs = AttrCache(lambda: True)
        mutations = Mutations(
            meta, attrs, Leases(meta, session, attrs, background), FollowedPolicies()
        )
        problems = [SessionLost("gone") if lost else NoSpace("for now")]

        def refuse_once(batch: Batch) -> BatchReply:
            if problems and isinstance(batch.operations[0], Release):
                if lost:
                    metad.end_session()
                raise problems.pop()
            return BatchReply(results=[OpResult()])

        metad.answers["meta.batch"] = refuse_once
        metad.gate = trio.Event()
        with trio.move_on_after(1):
            await mutations.submit(SetAttr(inode=5, mode=0o600))
        metad.gate.set()
        await mutations.settle()
        asked = [batch for batch in metad.batches if isinstance(batch.operations[0], Release)]
        assert len(asked) == (1 if lost else 2) and not problems
        background.cancel_scope.cancel()
