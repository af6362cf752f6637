"""The calls with which clients take exclusive leases and give them back.

The same may be asked again after a lost answer: a take that was granted is granted anew, with
another number, and a lease that was given back stays so.
"""

from __future__ import annotations

from dfswire.messages import Empty, Lease
from dfswire.metadata import GiveBack, LeaseReply, LeaseRequest
from metad.clients.recalls import Recalls
from metad.clients.sessioncalls import Clients
from metad.names import namespace
from metad.state import State


class LeaseCalls:
    """Handlers of lease.*."""

    def __init__(
        self,
        state: State,
        clients: Clients,
        recalls: Recalls,
    ) -> None:
        self._state = state
        self._clients = clients
        self._recalls = recalls

    async def take(self, request: LeaseRequest) -> LeaseReply:
        """An exclusive lease, once nobody else has or shares these parts.

        Raises NoEntry, SessionLost.
        """
        session, inode = request.session, request.inode
        wanted = {inode: request.parts}
        with self._recalls.waiting(session, exclusive=True) as wait:
            while True:
                self._clients.renew(session)
                attr = namespace.getattr_(self._state.db, inode)
                outcome = self._state.leases.take(session, inode, request.parts, wait.turn)
                if isinstance(outcome, Lease):
                    self._clients.hold(session, {inode: request.parts})
                    self._recalls.changed([inode])
                    return LeaseReply(lease=outcome, attr=attr)
                await wait.until_changed(outcome, wanted)

    async def give_back(self, request: GiveBack) -> Empty:
        self._clients.renew(request.session)
        for lease in request.leases:
            self._recalls.given_back(request.session, lease)
        return Empty()
