"""The clients of the small world of lease_model.py.

They obey the rules of exclusive leases and nothing more: they are as slow, and their messages as
late, as is allowed.
"""

from __future__ import annotations

from dfswire.messages import Invalidation, Lease
from tests.t2_metad.lease_world import (
    ATTR,
    PARTS,
    Base,
    Client,
    Operation,
    Own,
    Wrong,
)


class Clients(Base):
    """What clients do, and what they make of answers and events."""

    def _read(self, name: str, inode: int, parts: int) -> None:
        self.left.starts -= 1
        self._ask(name, "read", inode, parts)

    def _write(self, name: str, inode: int, parts: int) -> None:
        self.left.starts -= 1
        own = self.clients[name].leases.get(inode)
        if own is None or parts & ~own.parts:
            self._ask(name, "take", inode, parts)
        else:
            self._dirty(own, inode, parts)

    def _dirty(self, own: Own, inode: int, parts: int) -> None:
        for part in PARTS:
            if part & parts:
                own.versions[part] = self.floor[inode, part] = self._version()
                own.dirty.add(part)

    def _change(self, name: str, inode: int, parts: int, wants_lease: bool) -> None:
        self.left.starts -= 1
        self._ask(name, "change", inode, parts, wants_lease=wants_lease)

    def _flush(self, name: str, inode: int, close: bool) -> None:
        self.left.flushes -= 1
        self._commit(self.clients[name], inode, close)

    def _commit(self, client: Client, inode: int, close: bool) -> None:
        own = client.leases[inode]
        own.flushing, own.closing = self.next_number, close
        versions = {part: own.versions[part] for part in own.dirty}
        lease = Lease(inode=inode, parts=own.parts, number=own.number)
        self._ask(
            client.name,
            "flush",
            inode,
            sum(own.dirty),
            versions=versions,
            give_back=lease if close else None,
        )

    def _give(self, name: str, inode: int) -> None:
        self.left.gives -= 1
        self._give_back(self.clients[name], inode)

    def _give_back(self, client: Client, inode: int) -> None:
        own = client.leases[inode]
        self.given.append((client.name, Lease(inode=inode, parts=own.parts, number=own.number)))
        self._keep_shared(client, inode)

    def _keep_shared(self, client: Client, inode: int, *, is_told: bool = True) -> None:
        for part, version in client.leases.pop(inode).versions.items():
            if client.follows and is_told:
                client.cache[inode, part] = version

    def _obey(self, name: str, inode: int) -> None:
        client = self.clients[name]
        if client.leases[inode].dirty:
            self._commit(client, inode, False)
        else:
            self._give_back(client, inode)

    def _reply(self, number: int) -> None:
        op = self.operations.pop(number)
        client = self.clients[op.client]
        if client.dead or op.kind == "copy":
            return
        if op.kind == "read":
            if any(op.versions[part] < version for part, version in op.floor.items()):
                raise Wrong(f"{client.name} reads {op.versions}, {op.floor} was complete")
            if ATTR in op.versions:  # nobody must see what was before any more
                at = (op.inode, ATTR)
                self.floor[at] = max(self.floor[at], op.versions[ATTR])
        elif op.kind == "change":
            for part, version in op.versions.items():
                if part & op.parts:  # of others, which it is told with a lease, it completes none
                    self.floor[op.inode, part] = max(version, self.floor[op.inode, part])
                client.cache.pop((op.inode, part), None)  # even if the answer is not kept
        if op.fleeting:
            self._keep_no_attributes(client, op)
        if op.kind == "flush":
            self._flushed(client, op)
        elif op.lease is not None:
            self._granted(client, op, op.lease)
        elif client.follows and not op.stale and op.inode not in client.leases:
            for part, version in op.versions.items():
                known = client.cache.get((op.inode, part), 0)
                client.cache[op.inode, part] = max(known, version)

    def _keep_no_attributes(self, client: Client, op: Operation) -> None:
        """Neither of this answer nor of those that were asked for before it came."""
        if op.lease is None:
            op.versions.pop(ATTR, None)
        client.cache.pop((op.inode, ATTR), None)
        for other in self.operations.values():
            if other.client == client.name and other.inode == op.inode:
                other.fleeting = True

    def _granted(self, client: Client, op: Operation, lease: Lease) -> None:
        own = client.leases.get(op.inode)
        if op.stale or not client.follows:
            if own is not None:
                own.number, own.recalled = max(own.number, lease.number), True
                own.unused |= lease.parts
            else:
                self.given.append((client.name, lease))
            if op.kind == "take":
                # Not taken again: two who do that may recall from each other for ever.
                self._ask(client.name, "change", op.inode, op.parts)
            return
        if own is None:
            own = client.leases[op.inode] = Own(lease.number, {})
        own.number, own.closing = lease.number, False
        for part in PARTS:
            if part & lease.parts:
                known = client.cache.pop((op.inode, part), 0)  # newer than an answer that was late
                own.versions.setdefault(part, max(known, op.versions.get(part, 0)))
        if op.kind == "take":
            self._dirty(own, op.inode, op.parts)

    def _flushed(self, client: Client, op: Operation) -> None:
        own = client.leases.get(op.inode)
        if own is None or own.flushing != op.number:
            return
        own.dirty -= {
            part for part, version in op.versions.items() if own.versions[part] == version
        }
        own.flushing = 0
        if op.give_back is not None and op.give_back.number == own.number:
            self._keep_shared(client, op.inode, is_told=not op.stale)
        own.closing = False

    def _event(self, name: str) -> None:
        client, stream = self.clients[name], self.streams[name]
        assert stream is not None
        kind, *content = stream.pop(0)
        if kind == "hello":
            self._forget_all(client)
            client.follows = True
        elif kind == "recall":
            self._recalled(client, content[0])
        else:
            number, invalidations = content
            for each in invalidations:
                self._invalidated(client, each)
            self.acks[name] = number

    def _invalidated(self, client: Client, each: Invalidation) -> None:
        own = client.leases.get(each.inode)
        if own is not None and own.closing:
            del client.leases[each.inode]  # so it was given back: the answer comes later
        elif own is not None and own.parts & each.what:
            raise Wrong(f"{client.name} is told to forget what it holds")
        for part in PARTS:
            if part & each.what:
                client.cache.pop((each.inode, part), None)
        self._overtaken(client.name, each.inode)

    def _overtaken(self, name: str, inode: int | None) -> None:
        for op in self.operations.values():
            if op.client == name and inode in (None, op.inode):
                op.stale = True

    def _recalled(self, client: Client, lease: Lease) -> None:
        own = client.leases.get(lease.inode)
        self._overtaken(client.name, lease.inode)
        if own is None:
            self.given.append((client.name, lease))
        elif lease.number >= own.number:
            own.number, own.recalled = lease.number, True
            own.unused |= lease.parts

    def _forget_all(self, client: Client) -> None:
        client.cache.clear()
        for inode, own in list(client.leases.items()):
            if not own.dirty and not own.flushing:
                del client.leases[inode]
        self._overtaken(client.name, None)

    def _break(self, name: str) -> None:
        self.left.breaks -= 1
        self.streams[name] = None

    def _reopen(self, name: str) -> None:
        """The client notices that its stream is broken, and asks for a new one."""
        client = self.clients[name]
        client.follows = False
        self._forget_all(client)
        self.follows[name] = [
            Lease(inode=inode, parts=own.parts, number=own.number)
            for inode, own in client.leases.items()
        ]

    def _die(self, name: str) -> None:
        self.left.deaths -= 1
        self.clients[name].dead = True
