"""What operators ask about the cluster and its files: status, info, lost, files; and urge.

The handlers of these cluster.* calls.  status.py knows what is in the database; here it is put
together with what repair, moves, jobs, policies and locks have in memory.
"""

from __future__ import annotations

import msgspec
import trio

from dfswire.info import InfoReply, InfoRequest
from dfswire.messages import Empty
from dfswire.status import ClusterStatus
from dfswire.verify import FilesBelow, FilesReply, FindLost, LostReply, Urge
from metad.clients.locking import Locking
from metad.clients.sessioncalls import Clients
from metad.jobs.runner import Jobs
from metad.operators import status
from metad.operators.drains import Drains
from metad.operators.moving import Moving
from metad.operators.policycalls import PolicyCalls
from metad.operators.totals import Totals
from metad.state import State
from metad.upkeep.repair import Repairer
from metad.upkeep.salvage import Salvager


class ClusterCalls:
    """The handlers."""

    def __init__(
        self,
        state: State,
        clients: Clients,
        locking: Locking,
        totals: Totals,
        repairer: Repairer,
        salvager: Salvager,
        moving: Moving,
        policy_calls: PolicyCalls,
        drains: Drains,
        jobs: Jobs,
    ) -> None:
        self._state = state
        self._clients = clients
        self._locking = locking
        self._totals = totals
        self._repairer = repairer
        self._salvager = salvager
        self._moving = moving
        self._policy_calls = policy_calls
        self._drains = drains
        self._jobs = jobs

    async def status(self, request: Empty) -> ClusterStatus:
        """The cluster as a whole."""
        repair = self._repairer.status()
        found = await status.cluster_status(self._state, self._clients, self._totals, repair)
        return msgspec.structs.replace(
            found,
            unsatisfied=self._policy_calls.unsatisfied(),
            stuck=self._drains.stuck(),
            chunks=msgspec.structs.replace(found.chunks, misplaced=self._moving.misplaced),
            jobs=list(self._jobs.running()),
        )

    async def info(self, request: InfoRequest) -> InfoReply:
        """One file.  Raises NoEntry, NotDirectory, UsageError."""
        found = status.info(self._state, request)
        return msgspec.structs.replace(found, locks=self._locking.of_inode(found.attr.inode))

    async def lost(self, request: FindLost) -> LostReply:
        """Files with ranges that cannot be read."""
        return await status.lost(self._state, request)

    async def files(self, request: FilesBelow) -> FilesReply:
        """Regular files in a tree.  Raises NoEntry, NotDirectory, UsageError."""
        return await status.files_below(self._state, request)

    async def urge(self, request: Urge) -> Empty:
        """Repair these chunks before all others."""
        await trio.lowlevel.checkpoint()
        self._repairer.urge(request.chunks)
        self._salvager.urge(request.chunks)
        return Empty()
