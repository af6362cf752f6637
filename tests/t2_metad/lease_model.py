"""A small world around metad/leases/table.py, in which one step at a time happens, in any order.

`World.steps()` are all things that can happen next; `do` makes one happen.  lease_clients.py and
lease_metad.py are its halves.  Instead of bytes there are versions: each write has a larger one
than all before it, of every part of an inode by itself.

`check` raises Wrong when a promise is broken:
* nobody has a part exclusively beside somebody else;
* no copy that a client may use is older than a write that was completed, or (of attributes) than
  what any other client has seen;
* a reader sees what was completed before it asked, and nothing that was stored is lost;
* no invalidation arrives for what is leased.
"""

from __future__ import annotations

from collections.abc import Iterator

from metad.leases.changes import Change
from tests.t2_metad.lease_clients import Clients
from tests.t2_metad.lease_metad import Metad
from tests.t2_metad.lease_world import (
    FENCE_S,
    Client,
    Step,
    Wrong,
)


class World(Clients, Metad):
    """See the module's text."""

    # -- what can happen ------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Everything that can happen next; the first word says what."""
        return [*self.necessary(), *self._voluntary()]

    def necessary(self) -> Iterator[Step]:
        """What happens in the end, if nothing new is begun."""
        for number, op in self.operations.items():
            if op.phase == "asked" or (op.phase == "foretold" and not op.unconfirmed):
                yield ("serve", number)
            elif op.phase == "announced" and not op.unconfirmed:
                yield ("answer", number)
            elif op.phase == "answered":
                yield ("reply", number)
            elif op.phase == "lost" and not self.clients[op.client].dead:
                yield ("resend", number)
        if any(self.operations[number].phase == "executed" for number in self.unannounced):
            yield ("store",)
        if self.unannounced and self.operations[self.unannounced[0]].phase == "stored":
            yield ("announce",)
        for name, client in self.clients.items():
            if client.dead:
                if name in self.leases:
                    yield ("fence", name)
                continue
            if self.streams[name]:
                yield ("event", name)
            if self.streams[name] is None and name in self.leases and name not in self.follows:
                yield ("reopen", name)
            for inode, own in client.leases.items():
                if own.recalled and not own.flushing:
                    yield ("obey", name, inode)
        for name in self.acks:
            yield ("ack", name)
        for name in self.follows:
            yield ("follow", name)
        for index in range(len(self.given)):
            yield ("given", index)

    def _voluntary(self) -> Iterator[Step]:
        left = self.left
        for name, client in self.clients.items():
            if client.dead or name not in self.leases:
                continue
            if left.starts and not any(
                op.client == name and op.kind in ("read", "take", "change")
                for op in self.operations.values()
            ):
                for inode in self.inodes:
                    for parts in self.masks:
                        yield from self._starts(client, inode, parts)
            for inode, own in client.leases.items():
                if own.dirty and not own.flushing and left.flushes:
                    yield ("flush", name, inode, False)
                    if not self._asks_for_more(name, inode, own.parts):
                        yield ("flush", name, inode, True)
                if not own.dirty and not own.flushing and not own.recalled and left.gives:
                    yield ("give", name, inode)
            if left.breaks and client.follows:
                yield ("break", name)
            if left.deaths:
                yield ("die", name)
        if left.copies:
            for index in range(len(self.given)):
                yield ("copy given", index)
            for number, op in self.operations.items():
                if op.kind == "take" and op.phase == "answered":
                    yield ("copy take", number)
        if left.restarts:
            yield ("restart", True)
            yield ("restart", False)

    def _asks_for_more(self, name: str, inode: int, parts: int) -> bool:
        """Is a lease on its way that would be one with the present one?  Which of the two a commit
        gives back, nobody could say: so it does not carry the end of one then."""
        return any(
            op.client == name and op.inode == inode and op.parts & ~parts
            for op in self.operations.values()
            if op.kind == "take" or op.wants_lease
        )

    def _starts(self, client: Client, inode: int, parts: int) -> Iterator[Step]:
        own = client.leases.get(inode)
        if own is None or parts & ~own.parts:
            yield ("read", client.name, inode, parts)
        if client.follows and (own is None or not (own.recalled or own.closing)):
            yield ("write", client.name, inode, parts)
        if own is None:
            yield ("change", client.name, inode, parts, False)
            yield ("change", client.name, inode, parts, True)

    def do(self, step: Step) -> None:
        """Make it happen, and check the promises."""
        getattr(self, "_" + step[0].replace(" ", "_"))(*step[1:])
        if not self.slow_commits:
            self._answer_all()
        self.check()

    def _answer_all(self) -> None:
        """No commit is slow any more: what was executed is stored and announced at once."""
        self._store()
        while self.unannounced:
            self._announce()
        for number, op in self.operations.items():
            if op.phase == "announced" and not op.unconfirmed:
                self._answer(number)

    def check(self) -> None:
        """See the module's text."""
        holders: dict[tuple[int, int], str] = {}
        for client in self.clients.values():
            if client.dead:
                continue
            for inode, own in client.leases.items():
                for part, version in own.versions.items():
                    item = (inode, part)
                    if item in holders:
                        raise Wrong(f"{holders[item]} and {client.name} both hold {item}")
                    holders[item] = client.name
                    if version < self.floor[item]:
                        raise Wrong(f"{client.name} holds {item} as it was before")
        for client in self.clients.values():
            if client.dead or not client.follows:
                continue
            for item, version in client.cache.items():
                if version < self.floor[item] and not self._is_changing_itself(client, item[0]):
                    raise Wrong(f"{client.name} has an old copy of {item}")

    def _is_changing_itself(self, client: Client, inode: int) -> bool:
        """Until its call returns it may find the old state."""
        return any(
            op.client == client.name and op.kind == "change" and op.inode == inode
            for op in self.operations.values()
        )

    def is_settled(self) -> bool:
        """Nobody waits for anything."""
        return not any(
            op.kind != "copy" and not self.clients[op.client].dead
            for op in self.operations.values()
        )

    # -- faults ---------------------------------------------------------------------------------

    def _copy_given(self, index: int) -> None:
        self.left.copies -= 1
        self.given.append(self.given[index])

    def _copy_take(self, number: int) -> None:
        self.left.copies -= 1
        op = self.operations[number]
        self._ask(op.client, "copy", op.inode, op.parts)

    def _restart(self, stored: bool) -> None:
        """metad dies, with or without a commit that was under way, and starts again."""
        self.left.restarts -= 1
        if stored:
            self._store()
        alive = [session.session for session in self.leases]
        self.leases = self.kind(FENCE_S, first_lease=1000)
        for name in alive:
            self.leases.open(name, 0.0, synced=False)
        for op in list(self.operations.values()):
            op.turn, op.change = None, Change(op.client)
            if op.phase != "answered":
                op.phase, op.unconfirmed = "lost", {}
                if op.kind == "copy":
                    del self.operations[op.number]
        self.unannounced, self.given, self.follows = [], [], {}
        self.slow_commits.clear()
        self.acks.clear()
        for name in alive:
            self.streams[name] = None

    def _resend(self, number: int) -> None:
        self.operations[number].phase = "asked"
