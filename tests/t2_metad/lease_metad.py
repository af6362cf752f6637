"""metad in the small world of lease_model.py.

It does with metad/leases what recalls, reads, leasecalls and mutations do, without tasks: an
operation that must wait is simply tried again.
"""

from __future__ import annotations

from dfswire.messages import Invalidation, Lease
from metad.leases.table import Announcement, Blocked
from tests.t2_metad.lease_world import (
    PARTS,
    Base,
    Operation,
    Wrong,
)


class Metad(Base):
    """What metad does."""

    def _serve(self, number: int) -> None:
        op = self.operations[number]
        leases, wanted = self.leases, {op.inode: op.parts}
        if op.client not in leases:
            self._drop(op)
            return
        if op.kind in ("take", "copy"):
            outcome = leases.take(op.client, op.inode, op.parts, op.turn)
            if isinstance(outcome, Blocked):
                self._wait(op, outcome, wanted)
                return
            leases.hold(op.client, wanted)
            op.lease = outcome
        elif number in self.applied:
            op.phase = "announced"
            op.unconfirmed = dict.fromkeys(set(leases.unsynced()) - {op.client}, 1 << 60)
            if op.give_back is not None:
                leases.give_back(op.client, op.give_back)
            return
        else:
            blocked = leases.obstacles(op.client, wanted, op.turn)
            if blocked is not None:
                self._wait(op, blocked, wanted)
                return
            if op.kind != "read":
                if not self._foretell(op):
                    self._execute(op)
                return
            self._hold(op)
        op.versions = {part: self.stored[op.inode, part] for part in PARTS if part & op.parts}
        if op.lease is not None:
            op.versions = {part: self.stored[op.inode, part] for part in PARTS}
        self._answered(op)

    def _foretell(self, op: Operation) -> bool:
        """Must others be told first?"""
        changes = [Invalidation(inode=op.inode, what=op.parts)]
        announcement = self.leases.foretell(op.change, changes)
        if announcement is None:
            return False
        op.phase = "foretold"
        op.unconfirmed = self._push(announcement)
        if op.turn is None:
            op.turn = self.leases.enter(op.client, {op.inode: op.parts})
        return True

    def _hold(self, op: Operation) -> None:
        told = {op.inode: op.parts}
        fleeting = self.leases.changes.fleeting(op.client, told, {})
        self.leases.hold(op.client, told, fleeting)
        op.fleeting = bool(fleeting)

    def _wait(self, op: Operation, blocked: Blocked, wanted: dict[int, int]) -> None:
        if op.turn is None:
            exclusive = op.kind in ("take", "copy")
            op.turn = self.leases.enter(op.client, wanted, exclusive=exclusive)
        self._ask_back(blocked.recalls)
        if blocked.announcement is not None:
            self._push(blocked.announcement)

    def _ask_back(self, recalls: dict[str, list[Lease]]) -> None:
        for name, asked in recalls.items():
            stream = self.streams[name]
            if stream is not None:
                stream += [("recall", lease) for lease in asked]

    def _push(self, announcement: Announcement) -> dict[str, int]:
        for name, tell in announcement.tell.items():
            stream = self.streams.get(name)
            if stream is not None:
                stream.append(("tell", announcement.number, tell))
        return dict.fromkeys(announcement.tell, announcement.number)

    def _drop(self, op: Operation) -> None:
        if op.turn is not None:
            self.leases.leave(op.turn)
        self.leases.changes.end(op.change)
        del self.operations[op.number]

    def _answered(self, op: Operation) -> None:
        if op.turn is not None:
            self.leases.leave(op.turn)
            op.turn = None
        op.phase = "answered"

    def _execute(self, op: Operation) -> None:
        if op.kind == "change":
            op.versions = {part: self._version() for part in PARTS if part & op.parts}
        if op.turn is not None:
            self.leases.leave(op.turn)
            op.turn = None
        op.phase = "executed"
        self.unannounced.append(op.number)
        if self.left.slow:
            self.left.slow -= 1
            self.slow_commits.add(op.number)

    def _store(self) -> None:
        """The group commit returns."""
        for number in self.unannounced:
            op = self.operations[number]
            if op.phase == "executed":
                self._persist(op)

    def _persist(self, op: Operation) -> None:
        op.phase = "stored"
        self.applied.add(op.number)
        for part, version in op.versions.items():
            if version < self.stored[op.inode, part]:
                raise Wrong(f"what {op.client} stores is older than what is there")
            self.stored[op.inode, part] = version

    def _announce(self) -> None:
        op = self.operations[self.unannounced.pop(0)]
        op.phase = "announced"
        self.leases.changes.end(op.change)
        if op.client in self.leases:
            self._hold(op)
        changes = [Invalidation(inode=op.inode, what=op.parts)]
        op.unconfirmed = self._push(self.leases.invalidate(changes, op.client, op.change))
        if op.give_back is not None:
            self.leases.give_back(op.client, op.give_back)

    def _answer(self, number: int) -> None:
        op = self.operations[number]
        if op.wants_lease:
            op.lease = self.leases.take_if_free(op.client, op.inode, op.parts)
            if op.lease is not None:
                for part in PARTS:
                    op.versions.setdefault(part, self.stored[op.inode, part])
        self._answered(op)
        self.slow_commits.discard(number)

    def _ack(self, name: str) -> None:
        self._confirmed(name, self.acks.pop(name))

    def _confirmed(self, name: str, number: int) -> None:
        self.leases.confirmed(name, number)
        for op in self.operations.values():
            if op.unconfirmed.get(name, number + 1) <= number:
                del op.unconfirmed[name]

    def _given(self, index: int) -> None:
        self.leases.give_back(*self.given.pop(index))

    def _follow(self, name: str) -> None:
        used = self.follows.pop(name)
        if name not in self.leases:
            return
        ask = self.leases.connect(name, used)
        self.streams[name] = [("hello",)]
        self.acks.pop(name, None)
        self._ask_back(ask.recalls)
        if ask.announcement is None:
            self._confirmed(name, 1 << 60)
        else:
            self._push(ask.announcement)

    def _fence(self, name: str) -> None:
        self.leases.end(name)
        self.streams[name] = None
        self._confirmed(name, 1 << 60)
        for item, version in self.stored.items():
            # What the dead client had not stored is lost (or comes late), and it alone.
            own = self.clients[name].leases.get(item[0])
            if own is not None and item[1] in own.dirty:
                self.floor[item] = min(self.floor[item], version)
                for op in self.operations.values():
                    if op.inode == item[0] and item[1] in op.floor:
                        op.floor[item[1]] = min(op.floor[item[1]], self.floor[item])
