"""Repairing metad's database: what can be mended without guessing, one function for each invariant.

What follows from other rows is counted anew; what leads nowhere is removed; what nothing leads to
gets a name in /lost+found; no byte and no name of anything that exists is thrown away.  Where two
answers are possible (overlapping extents, a damaged ACL, a chunk without a digest) nothing is done:
fsck goes on reporting it.  Runs in the caller's transaction; undone, it is a dry run.
"""

from __future__ import annotations

from collections.abc import Callable

from dfswire.fsck import Finding
from metad.checks import mendchunks, mendnames
from metad.checks.rescue import Mended, Rescue

ROUNDS_MAX = 50  # what one repair uncovers, the next one mends

# In an order in which none undoes what another did: names first, counters last.
STEPS: tuple[Callable[[Rescue], Mended], ...] = (
    mendnames.mend_root,
    mendnames.mend_dentry_inode,
    mendnames.mend_name,
    mendchunks.mend_extent_inode,
    mendnames.mend_parent,
    mendnames.mend_orphan,
    mendnames.mend_reachable,
    mendnames.mend_nlink,
    mendnames.mend_size,
    mendnames.mend_flags,
    mendnames.mend_xattr,
    mendnames.mend_acl,
    mendchunks.mend_replica,
    mendchunks.mend_lost_range,
    mendchunks.mend_allocated,
    mendchunks.mend_refs,
    mendchunks.mend_good,
    mendchunks.mend_chunk_state,
    mendchunks.mend_policy,
    mendchunks.mend_applied,
)


def mend(work: Rescue) -> list[Finding]:
    """Everything, again and again until nothing more can be done; what was done."""
    done: list[Finding] = []
    for _ in range(ROUNDS_MAX):
        fixed = [
            Finding(check=step.__name__.removeprefix("mend_"), subject=subject, message=action)
            for step in STEPS
            for subject, action in step(work)
        ]
        if not fixed:
            break
        done += fixed
    return done
