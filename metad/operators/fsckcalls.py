"""The call cluster.fsck: check, show what a repair would do, or repair.

A check runs on a snapshot beside everything else.  A repair is one transaction, so that no client
sees half of it; a plan is the same transaction, undone.  metad serves nobody meanwhile (some
seconds per million rows), which is why nothing is begun when the check has found nothing.
"""

from __future__ import annotations

import logging

import msgspec

from dfswire.fsck import Finding, FsckReport, FsckRequest
from metad.checks import fsck
from metad.checks.mend import mend
from metad.checks.rescue import Rescue
from metad.clients.recalls import Recalls
from metad.state import State

log = logging.getLogger(__name__)


class _OnlyPlanned(Exception):
    """Undoes what a plan did."""


class FsckCalls:
    """The handler."""

    def __init__(self, state: State, recalls: Recalls) -> None:
        self._state = state
        self._recalls = recalls

    async def fsck(self, request: FsckRequest) -> FsckReport:
        """Raises NoSpace, InputOutput when the database cannot be written."""
        report = await self._check(request.limit)
        damaged = any(finding.check == "damage" for finding in report.findings)
        if request.repair == "no" or not report.count or damaged:
            return report
        fixes = await self._mend(do=request.repair == "do")
        if request.repair == "do" and fixes:
            report = await self._check(request.limit)
        return msgspec.structs.replace(
            report,
            fixes=fixes[: request.limit],
            fixes_count=len(fixes),
            repaired=request.repair == "do",
        )

    async def _check(self, limit: int) -> FsckReport:
        return await self._state.db.read_in_thread(lambda db: fsck.run(db, limit))

    async def _mend(self, *, do: bool) -> list[Finding]:
        state = self._state
        fixes: list[Finding] = []
        rescue = Rescue(state.db, state.now_ns())

        def work() -> None:
            fixes.extend(mend(rescue))
            if not do:
                raise _OnlyPlanned

        try:
            await state.db.write(work)
        except _OnlyPlanned:
            return fixes
        for fix in fixes:
            log.warning("fsck repaired %s: %s: %s", fix.check, fix.subject, fix.message)
        state.policies.refresh()
        self._recalls.announce(state.leases.invalidate(rescue.effects.invalidations, ""))
        if fixes:
            text = f"{len(fixes)} repairs by dfs fsck --repair; metad's log names each"
            state.event_log.add("fsck.repaired", state.cluster_id, text)
        return fixes
