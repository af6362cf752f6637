"""What chunkd answers about the journal that it keeps: to operators, for a restore."""

from __future__ import annotations

from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.storage import Runner
from dfswire.dispatch import BodySource, Handler, Reply
from dfswire.errors import NoEntry
from dfswire.journal import JournalFiles, ReadJournalFile
from dfswire.messages import Empty


class JournalCalls:
    """The handlers; `journal` None: this server keeps none."""

    def __init__(self, journal: Journal | None, identity: ServerIdentity, run: Runner) -> None:
        self._journal = journal
        self._identity = identity
        self._run = run

    @property
    def handlers(self) -> dict[str, Handler]:
        """By call name, for the Dispatcher."""
        return {"journal.files": self.files, "journal.read": self.read}

    async def files(self, request: Empty, body: BodySource) -> JournalFiles:
        """What there is."""
        journal = self._journal
        files, damaged = await self._run(journal.list_files) if journal is not None else ([], [])
        return JournalFiles(
            cluster_id=self._identity.cluster_id,
            server_id=self._identity.server_id,
            files=files,
            damaged=damaged,
        )

    async def read(self, request: ReadJournalFile, body: BodySource) -> Reply:
        """Bytes of one file.  Raises NoEntry."""
        journal = self._journal
        if journal is None:
            raise NoEntry("this server keeps no journal")
        found = await self._run(
            lambda: journal.read_part(request.name, request.offset, request.length)
        )
        return Reply(Empty(), found)
