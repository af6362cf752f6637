"""Asks metad's database and the simulated disks themselves what is true, past all daemons."""

from __future__ import annotations

import trio

from metad.checks import fsck
from metad.copies import replicas
from tests.simulation.cluster import RECLAIM_GRACE_S, Cluster, Machine
from tests.simulation.history import FileHistory, Violation
from tests.simulation.schedule import CELL_BYTES

FINDINGS_MAX = 20
TELLS_S = 12.0  # in which a server in a calm run tells metad what it has found


class Oracle:
    """`damaged` are the machines whose copies were spoilt behind everybody's back."""

    def __init__(self, cluster: Cluster, *, calm: bool = False) -> None:
        self._cluster = cluster
        self.damaged: set[int] = set()
        self.cut: set[int] = set()  # machines that have lost their power
        self.spoilt: list[tuple[int, bytes]] = []  # (machine, chunk) whose files were changed
        self._taken: set[tuple[int, bytes]] = set()  # of these, whole again and then gone
        self.wants_change = False  # operators have changed how many copies there are to be
        self._calm = calm
        self._set_aside_s: dict[tuple[int, bytes], float] = {}
        self._good: dict[bytes, set[int]] = {}  # at the last look: the disks of each chunk
        self._named_s: dict[bytes, float] = {}  # chunks, and when a file was last seen to name them
        self.wanted = cluster.shape.replicas

    def copies(self, chunk: bytes, digest: bytes) -> list[str]:
        """The disks that really have a good copy of what metad knows, and would keep it."""
        return [
            machine.disk.name
            for machine in self._cluster.machines
            if machine.disk.holds(chunk, durable=True, digest=digest)
        ]

    def promised(self, inode: int, offset: int, length: int) -> None:
        """fsync of this range has just succeeded.  Raises Violation unless the bytes are on
        platters, as often as was promised."""
        database = self._cluster.database
        assert database is not None
        rows = database.read(
            "SELECT chunk, digest FROM extent e JOIN chunk c ON c.id = chunk WHERE inode = ? "
            "AND offset < ? AND offset + e.length > ?",
            (inode, offset + length, offset),
        )
        least = min(self._cluster.shape.replicas, 2) - len(self.damaged)
        for chunk, digest in rows:
            found = self.copies(chunk, digest)
            if len(found) < least:
                raise Violation(
                    "I1", f"fsync of inode {inode}: chunk {chunk.hex()[:8]} is durable on {found}"
                )

    def unhealthy(self, excused: set[bytes]) -> list[str]:
        """Why the cluster is not well yet; empty when it is.  Chunks in `excused` may be lost."""
        cluster = self._cluster
        database = cluster.database
        if cluster.metad is None or database is None:
            return ["metad is not running"]
        found = []
        for chunk, digest in database.read("SELECT id, digest FROM chunk WHERE state = 'live'"):
            if chunk in excused:
                continue
            reported = [
                disk
                for disk, state in replicas.replicas_of(database, chunk)
                if state == replicas.GOOD
            ]
            real = self.copies(chunk, digest)
            # Copies too many are given up in time, and none too many of them.
            if len(reported) != self.wanted or not set(reported) <= set(real):
                found.append(f"I6: chunk {chunk.hex()[:8]} is on {reported}, really on {real}")
        if found:  # fsck takes long, and there is something to wait for already
            return found
        return [
            f"I10: {finding.check}: {finding.subject}: {finding.message}"
            for finding in fsck.run(database, FINDINGS_MAX).findings
            if not any(chunk.hex() in finding.subject for chunk in excused)
        ]

    def check_honesty(self) -> None:
        """Raise Violation when metad believes at this moment in a copy that is not there.

        Of machines whose disks were let down by nobody, for of these there is no news to wait for;
        and in calm runs, of those that had the time to tell their news.
        """
        database = self._cluster.database
        if self._cluster.metad is None or database is None or database.is_busy:
            return
        rows = database.read(
            "SELECT r.chunk, digest, identity FROM replica r JOIN disk d ON d.key = r.disk "
            "JOIN chunk c ON c.id = r.chunk WHERE r.state = 'good' AND c.state = 'live'"
        )
        for machine in self._cluster.machines:
            if not self._has_told(machine):
                continue
            for chunk, digest, disk in rows:
                if disk == machine.disk.name and not machine.disk.holds(
                    chunk, durable=False, digest=digest
                ):
                    raise Violation("I6", f"metad believes that {disk} has {chunk.hex()[:8]}")

    def _has_told(self, machine: Machine) -> bool:
        if machine.number not in self.damaged | self.cut:
            return True
        told = machine.process is not None and trio.current_time() > machine.started_s + TELLS_S
        return told and self._calm and machine.number not in self.damaged

    def check_findings(self) -> None:
        """Raise Violation when metad still believes in a copy that its server has set aside.

        In calm runs, where the server could tell it.
        """
        database, now_s = self._cluster.database, trio.current_time()
        if not self._calm or database is None or database.is_busy:
            return
        for number, chunk in self.spoilt:
            machine = self._cluster.machines[number]
            if machine.disk.has(chunk):
                self._set_aside_s.pop((number, chunk), None)
                self._taken.discard((number, chunk))
            elif machine.process is None or self._cluster.metad is None:
                self._set_aside_s.pop((number, chunk), None)
            elif (number, chunk) not in self._taken:
                since_s = self._set_aside_s.setdefault((number, chunk), now_s)
                good = database.read(
                    "SELECT 1 FROM replica r JOIN disk d ON d.key = r.disk JOIN chunk c "
                    "ON c.id = r.chunk WHERE r.chunk = ? AND identity = ? AND r.state = 'good' "
                    "AND c.state = 'live'",
                    (chunk, machine.disk.name),
                )
                if good and now_s > since_s + TELLS_S:
                    raise Violation("I6", f"metad has not noted that {chunk.hex()[:8]} is bad")

    def check_surplus(self) -> None:
        """Raise Violation when a copy is given up of a chunk that needs it.

        That is: those that were good at the last look are given up or still good now (none was
        found bad), and these are too few.
        """
        cluster, database = self._cluster, self._cluster.database
        if cluster.metad is None or database is None or database.is_busy:
            return
        good: dict[bytes, set[int]] = {}
        given_up: dict[bytes, set[int]] = {}
        for chunk, disk, state in database.read(
            "SELECT chunk, disk, r.state FROM replica r JOIN chunk c ON c.id = chunk "
            "WHERE c.state = 'live' AND r.state IN ('good', 'excess')"
        ):
            (good if state == "good" else given_up).setdefault(chunk, set()).add(disk)
        for chunk, disks in given_up.items():
            left = good.get(chunk, set())
            before = self._good.get(chunk, set())
            if self.wants_change:  # and chunks may follow an older policy for a while
                continue
            if len(left) < self.wanted <= len(before) and before <= left | disks:
                text = (
                    f"copies of {chunk.hex()[:8]} are given up, {len(left)} of {self.wanted} stay"
                )
                raise Violation("I6", text)
        self._good = good

    def check_grace(self) -> None:
        """Raise Violation when a chunk was deleted too soon after some file has still named it.

        While metad's clock on the wall is right, for by that it goes.
        """
        database, clocks = self._cluster.database, self._cluster.clocks
        if self._cluster.metad is None or database is None or database.is_busy:
            return
        now_s = trio.current_time()
        states: dict[bytes, str] = dict(database.read("SELECT id, state FROM chunk"))
        for chunk, seen_s in list(self._named_s.items()):
            if chunk in states:
                continue
            del self._named_s[chunk]
            right = not clocks.skipped_s and not clocks.error_s.get("metad")
            if right and now_s < seen_s + RECLAIM_GRACE_S:
                raise Violation("I1", f"chunk {chunk.hex()[:8]} was deleted within its grace")
        self._named_s |= {chunk: now_s for chunk, state in states.items() if state == "live"}

    def vanishes(self, machine: Machine, chunk: bytes) -> None:
        """The nemesis takes this file away: if it is a damaged one, the daemons can't keep it.

        A whole one was put there after the damaged one was set aside, which must still be there.
        """
        if machine.disk.holds(chunk, durable=False):
            self._taken.add((machine.number, chunk))
        else:
            self.spoilt = [each for each in self.spoilt if each != (machine.number, chunk)]

    def check_evidence(self) -> None:
        """Raise Violation when a damaged copy of a chunk in use was destroyed, not set aside.

        For runs in which no server was away, so that there never were copies too many.
        """
        database = self._cluster.database
        assert database is not None
        for number, chunk in self.spoilt:
            live = database.read("SELECT 1 FROM chunk WHERE id = ? AND state = 'live'", (chunk,))
            if live and not self._cluster.machines[number].disk.has_evidence(chunk):
                raise Violation("I2", f"the damaged copy of chunk {chunk.hex()[:8]} was deleted")

    def untidy(self) -> list[str]:
        """What should have been reclaimed by now."""
        cluster = self._cluster
        database = cluster.database
        assert database is not None
        found = [
            f"I10: chunk {chunk.hex()[:8]} is still {state}"
            for chunk, state in database.read("SELECT id, state FROM chunk WHERE state <> 'live'")
        ]
        found += [
            f"I10: inode {inode} has no name and is still there"
            for (inode,) in database.read("SELECT inode FROM orphan")
        ]
        known = {chunk for (chunk,) in database.read("SELECT id FROM chunk")}
        for machine in cluster.machines:
            found += [
                f"I10: {machine.disk.name} still has chunk {chunk.hex()[:8]}"
                for chunk in machine.disk.chunks()
                if chunk not in known
            ]
        return found

    def excused(self, files: dict[int, FileHistory]) -> set[bytes]:
        """Chunks of which nobody was promised that they are durable: bytes that were not synced,
        by inode of the files that have them."""
        database = self._cluster.database
        found: set[bytes] = set()
        if database is None:
            return found
        for inode, history in files.items():
            for chunk, offset, length in database.read(
                "SELECT chunk, offset, length FROM extent WHERE inode = ? AND chunk IS NOT NULL",
                (inode,),
            ):
                cells = range(offset // CELL_BYTES, (offset + length) // CELL_BYTES)
                if not all(history.is_certain(cell) for cell in cells):
                    found.add(chunk)
        return found
