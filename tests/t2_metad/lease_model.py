"""A small world around metad/leases.py, in which one step at a time happens, in any order.

`World.steps()` are all things that can happen next; `do` makes one happen.  metad's half does with
leases.py what recalls, reads, leasecalls and mutations do, without tasks: an operation that must
wait is simply tried again.  Clients obey the rules of exclusive leases and nothing more: they are
as slow, and their messages as late, as is allowed.  Instead of bytes there are versions: each write
has a larger one than all before it, of every part of an inode by itself.

`check` raises Wrong when a promise is broken:
* nobody has a part exclusively beside somebody else;
* no copy that a client may use is older than a write that was completed;
* a reader sees what was completed before it asked, and nothing that was stored is lost;
* no invalidation arrives for what is leased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dfswire.messages import Invalidation, Lease
from metad.leases import Announcement, Blocked, Leases
from metad.turns import Turn

FENCE_S = 30.0
PARTS = (1, 2)  # ATTR, DATA
Step = tuple[Any, ...]


class Wrong(AssertionError):
    """A promise was broken."""


@dataclass
class Limits:
    """How much may happen in one history: what keeps the world small."""

    starts: int = 4  # reads, writes and changes
    flushes: int = 1  # that nobody asked for
    gives: int = 0  # leases given back that nobody asked for
    copies: int = 0  # messages that come twice
    slow: int = 0  # commits during which other things happen
    breaks: int = 0  # streams
    deaths: int = 0  # clients
    restarts: int = 0  # metad


@dataclass
class Own:
    """A lease as its holder knows it."""

    number: int
    versions: dict[int, int]  # of each leased part
    dirty: set[int] = field(default_factory=set)
    recalled: bool = False
    flushing: int = 0  # the commit that is under way; with `closing` it gives the lease back
    closing: bool = False

    unused: int = 0  # parts that metad has granted or speaks of, and that are not used here

    @property
    def parts(self) -> int:
        return sum(self.versions) | self.unused


@dataclass
class Client:
    """One session.  `cache` is what it shares: (inode, part) -> version."""

    name: str
    dead: bool = False
    follows: bool = True
    cache: dict[tuple[int, int], int] = field(default_factory=dict)
    leases: dict[int, Own] = field(default_factory=dict)


@dataclass
class Operation:
    """A call that is under way."""

    number: int
    client: str
    kind: str  # read, take, change, flush, copy (of a take: nobody wants its answer)
    inode: int
    parts: int
    versions: dict[int, int] = field(default_factory=dict)  # to be stored, or read
    floor: dict[int, int] = field(default_factory=dict)  # a reader must see these at least
    give_back: Lease | None = None
    wants_lease: bool = False
    phase: str = "asked"  # executed, stored, announced, answered; lost
    stale: bool = False  # something was invalidated or recalled since it was asked
    turn: Turn | None = None
    unconfirmed: dict[str, int] = field(default_factory=dict)
    lease: Lease | None = None


class World:
    """See the module's text."""

    def __init__(
        self,
        limits: Limits,
        *,
        clients: int = 2,
        inodes: int = 1,
        masks: tuple[int, ...] = (3,),
        kind: type[Leases] = Leases,
    ) -> None:
        """`masks`: the parts that an operation may be about.  `kind`: for faults put in by hand."""
        self.left = limits
        self.kind = kind
        self.masks = masks
        self.inodes = range(1, inodes + 1)
        self.clients = {name: Client(name) for name in "abc"[:clients]}
        self.leases = kind(FENCE_S)
        for name in self.clients:
            self.leases.open(name, 0.0)
        self.stored = {(inode, part): 0 for inode in self.inodes for part in PARTS}
        self.floor = dict(self.stored)
        self.applied: set[int] = set()
        self.operations: dict[int, Operation] = {}
        self.unannounced: list[int] = []
        self.slow_commits: set[int] = set()
        self.streams: dict[str, list[Any] | None] = {name: [] for name in self.clients}
        self.acks: dict[str, int] = {}
        self.given: list[tuple[str, Lease]] = []  # messages
        self.follows: dict[str, list[Lease]] = {}
        self.next_version = 1
        self.next_number = 1

    # -- what can happen ------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Everything that can happen next; the first word says what."""
        return [*self.necessary(), *self._voluntary()]

    def necessary(self) -> Iterator[Step]:
        """What happens in the end, if nothing new is begun."""
        for number, op in self.operations.items():
            if op.phase == "asked":
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
                if version < self.floor[item]:
                    raise Wrong(f"{client.name} has an old copy of {item}")

    # -- clients --------------------------------------------------------------------------------

    def _ask(self, client: str, kind: str, inode: int, parts: int, **more: Any) -> None:
        floor = {part: self.floor[inode, part] for part in PARTS if part & parts}
        op = Operation(self.next_number, client, kind, inode, parts, floor=floor, **more)
        self.operations[op.number] = op
        self.next_number += 1

    def _version(self) -> int:
        self.next_version += 1
        return self.next_version

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
        elif op.kind == "change":
            for part, version in op.versions.items():
                self.floor[op.inode, part] = max(version, self.floor[op.inode, part])
                client.cache.pop((op.inode, part), None)  # even if the answer is not kept
        if op.kind == "flush":
            self._flushed(client, op)
        elif op.lease is not None:
            self._granted(client, op, op.lease)
        elif client.follows and not op.stale and op.inode not in client.leases:
            for part, version in op.versions.items():
                client.cache[op.inode, part] = version

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
                own.versions.setdefault(part, op.versions.get(part, 0))
                client.cache.pop((op.inode, part), None)
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

    # -- metad ----------------------------------------------------------------------------------

    def _is_changing(self, session: str, inode: int) -> bool:
        return any(
            self.operations[number].inode == inode and self.operations[number].client != session
            for number in self.unannounced
        )

    def _serve(self, number: int) -> None:
        op = self.operations[number]
        leases, wanted = self.leases, {op.inode: op.parts}
        if op.client not in leases:
            self._drop(op)
            return
        if op.kind in ("take", "copy"):
            outcome = leases.take(op.client, op.inode, op.parts, op.turn, self._is_changing)
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
                self._execute(op)
                return
            leases.hold(op.client, wanted)
        op.versions = {part: self.stored[op.inode, part] for part in PARTS if part & op.parts}
        if op.lease is not None:
            op.versions = {part: self.stored[op.inode, part] for part in PARTS}
        self._answered(op)

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
        if op.client in self.leases:
            self.leases.hold(op.client, {op.inode: op.parts})
        changes = [Invalidation(inode=op.inode, what=op.parts)]
        op.unconfirmed = self._push(self.leases.invalidate(changes, op.client))
        if op.give_back is not None:
            self.leases.give_back(op.client, op.give_back)

    def _answer(self, number: int) -> None:
        op = self.operations[number]
        if op.wants_lease:
            op.lease = self.leases.take_if_free(op.client, op.inode, op.parts, self._is_changing)
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
            op.turn = None
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

    # -- for the exploration --------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Nobody waits for anything."""
        return not any(
            op.kind != "copy" and not self.clients[op.client].dead
            for op in self.operations.values()
        )

    def key(self) -> tuple[Any, ...]:
        """Equal for two worlds in which the same can happen: of numbers only their order counts."""
        ops = [self.operations[number] for number in sorted(self.operations)]
        place = {op.number: index for index, op in enumerate(ops)}
        version = _ranks(self._versions(ops))
        lease = _ranks(each.number for each in self._leases(ops))
        told = _ranks(self._announcements(ops))

        def short(each: Lease | None) -> tuple[int, ...] | None:
            return each and (each.inode, each.parts, lease[each.number])

        def event(each: tuple[Any, ...]) -> tuple[Any, ...]:
            if each[0] == "recall":
                return "recall", short(each[1])
            if each[0] == "tell":
                return "tell", told[each[1]], tuple((i.inode, i.what) for i in each[2])
            return each

        turns = _ranks(op.turn.number for op in ops if op.turn is not None)
        exclusives = self.leases._exclusives._of_inode
        return (
            tuple(vars(self.left).values()),
            tuple(
                (
                    client.dead,
                    client.follows,
                    tuple(sorted((*item, version[at]) for item, at in client.cache.items())),
                    tuple(
                        (
                            inode,
                            lease[own.number],
                            tuple(sorted((p, version[v]) for p, v in own.versions.items())),
                            tuple(sorted(own.dirty)),
                            own.recalled,
                            place.get(own.flushing, -1),
                            own.closing,
                            own.unused,
                        )
                        for inode, own in sorted(client.leases.items())
                    ),
                )
                for client in self.clients.values()
            ),
            tuple(
                (
                    op.client,
                    op.kind,
                    op.inode,
                    op.parts,
                    tuple(sorted((p, version[v]) for p, v in op.versions.items())),
                    tuple(sorted((p, version[v]) for p, v in op.floor.items())),
                    short(op.give_back),
                    op.wants_lease,
                    op.phase,
                    op.stale,
                    turns[op.turn.number] if op.turn else -1,
                    tuple(sorted((name, told[at]) for name, at in op.unconfirmed.items())),
                    short(op.lease),
                    op.number in self.applied,
                )
                for op in ops
            ),
            tuple(version[at] for at in self.stored.values()),
            tuple(version[at] for at in self.floor.values()),
            tuple(place[number] for number in self.unannounced),
            tuple(sorted(place.get(number, -1) for number in self.slow_commits)),
            tuple(
                None if stream is None else tuple(event(each) for each in stream)
                for stream in self.streams.values()
            ),
            tuple(sorted((name, told[at]) for name, at in self.acks.items())),
            tuple(sorted((name, short(each)) for name, each in self.given)),
            tuple(sorted((name, tuple(map(short, each))) for name, each in self.follows.items())),
            tuple(
                (
                    each.session,
                    each.synced,
                    tuple(sorted(each.held.items())),
                    tuple((i, parts, told[at]) for i, (parts, at) in each.telling.items()),
                )
                for each in self.leases
            ),
            tuple(
                (inode, name, each.parts, lease[each.number], each.recalled)
                for inode in sorted(exclusives)
                for name, each in sorted(exclusives[inode].items())
            ),
        )

    def _versions(self, ops: list[Operation]) -> Iterator[int]:
        yield from self.stored.values()
        yield from self.floor.values()
        for client in self.clients.values():
            yield from client.cache.values()
            for own in client.leases.values():
                yield from own.versions.values()
        for op in ops:
            yield from op.versions.values()
            yield from op.floor.values()

    def _leases(self, ops: list[Operation]) -> Iterator[Any]:
        for held in self.leases._exclusives._of_inode.values():
            yield from held.values()
        for client in self.clients.values():
            yield from client.leases.values()
        for _name, lease in self.given:
            yield lease
        for used in self.follows.values():
            yield from used
        for stream in self.streams.values():
            yield from (each[1] for each in stream or () if each[0] == "recall")
        for op in ops:
            yield from (each for each in (op.lease, op.give_back) if each is not None)

    def _announcements(self, ops: list[Operation]) -> Iterator[int]:
        for session in self.leases:
            yield from (number for _parts, number in session.telling.values())
        for stream in self.streams.values():
            yield from (each[1] for each in stream or () if each[0] == "tell")
        yield from self.acks.values()
        for op in ops:
            yield from op.unconfirmed.values()


def _ranks(numbers: Iterable[int]) -> dict[int, int]:
    return {number: rank for rank, number in enumerate(sorted(set(numbers)))}
