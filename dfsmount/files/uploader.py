"""Gets the bytes of one chunk stored on enough servers, whatever fails on the way.

The writer uses it.  A chunk that fewer than min(R, 2) servers acknowledged (R of the file's policy)
does not count: another grant is taken, away from the servers that failed, and the same bytes are
written under its id (the first id is garbage that metad collects).  A chunk on fewer than R servers
is accepted, since metad repairs it.
"""

from __future__ import annotations

import trio

from dfsmount.remote.chunkclient import ChunkClient, Stored
from dfsmount.remote.grants import GrantPool
from dfswire.errors import DFSError, InputOutput, NoSpace, SessionLost, Unavailable

OPERATION_DEADLINE_S = 30.0
PAUSE_FIRST_S = 0.1
PAUSE_MOST_S = 2.0


class Uploader:
    """Stores chunks.  `replicas` is R of the cluster, for files whose policy says nothing else."""

    def __init__(self, grants: GrantPool, chunks: ChunkClient, *, replicas: int) -> None:
        self._grants = grants
        self._chunks = chunks
        self._needed = min(replicas, 2)

    @property
    def needed(self) -> int:
        """On how many servers data must be before it may be acknowledged, unless its grant says."""
        return self._needed

    def distrust_grants(self) -> None:
        """metad did not know a grant any more: the others of its batch are no better."""
        self._grants.clear()

    async def store(self, inode: int, data: memoryview, *, durable: bool) -> Stored:
        """Store `data` as a new chunk of a file.

        Raises NoSpace or InputOutput when servers refused for OPERATION_DEADLINE_S; SessionLost.
        Waiting for metad itself does not count: that is as long as the mount allows.
        """
        give_up_at = float("inf")
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                grant = await self._grants.take(inode)
                give_up_at = min(give_up_at, trio.current_time() + OPERATION_DEADLINE_S)
                stored = await self._chunks.write(grant, data, durable=durable)
                count = len(stored.location.replicas)
                needed = grant.needed or self._needed
                if count >= needed:
                    return stored
                problem: DFSError = Unavailable(f"stored on {count} of {needed} servers")
            except SessionLost:
                raise
            except DFSError as refused:
                problem = refused
                give_up_at = min(give_up_at, trio.current_time() + OPERATION_DEADLINE_S)
            if trio.current_time() + pause_s > give_up_at:
                kind = NoSpace if isinstance(problem, NoSpace) else InputOutput
                raise kind(f"data could not be stored: {problem}") from problem
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)
