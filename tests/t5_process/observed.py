"""What tests ask a cluster of real processes, and how they judge it.

Questions go through the `dfs` command itself or through the calls behind it; the disks of the
chunkds are looked at directly.  Nothing here changes anything.  harness.py adds what starts and
kills.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import trio

from chunkd.chunkfile import TAIL_MAX_BYTES, check_blocks, parse_tail
from chunkd.layout import Layout
from dfsmount.cli.app import main as dfs_main
from dfsmount.cli.cluster import ask
from dfsmount.cli.localcluster import Daemon, LocalCluster
from dfswire.client import Client
from dfswire.errors import CorruptChunk, Unavailable
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.info import ChunkInfo, InfoReply, InfoRequest
from dfswire.messages import Empty
from dfswire.status import ClusterStatus, ServerStatus
from metad.hosts.grayness import HOLD_S

T = TypeVar("T")

NODES = 3
REPLICAS = 2
HEAL_S = 40.0
HELD_SLOW_S = 2 * HOLD_S  # whom callers found slow twice within minutes, as on a busy machine
POLL_S = 0.05


def wait_for(
    condition: Callable[[], T], what: str, timeout_s: float = HEAL_S, *, poll_s: float = POLL_S
) -> T:
    """The first true value of `condition`, asked again and again.  Fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}; last seen: {value!r}")
        time.sleep(poll_s)
    return value


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_dfs(*words: str) -> tuple[int, str]:
    """The `dfs` command, in this process: (exit status, what it printed)."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = dfs_main(words)
    return status, output.getvalue()


class Observed:
    """A cluster that can be asked and judged."""

    def __init__(self, local: LocalCluster) -> None:
        self.local = local
        self.directory = local.directory
        self.address = local.metad_address
        self.mount_point = self.directory / "mnt"
        self._logs_seen: dict[str, int] = {}  # bytes

    @property
    def chunkd_names(self) -> list[str]:
        return [daemon.name for daemon in self.local.chunkds]

    def daemon(self, name: str) -> Daemon:
        """One of the daemons, by name ("metad", "chunkd1", ...)."""
        return next(daemon for daemon in self.local.daemons if daemon.name == name)

    def data(self, name: str) -> Path:
        """The data directory of a chunkd."""
        return self.daemon(name).config.parent / "data"

    # -- asking

    def status(self) -> ClusterStatus:
        """What `dfs status` shows."""
        reply: ClusterStatus = ask(self.address, "cluster.status", Empty())
        return reply

    def server(self, name: str) -> ServerStatus:
        """What metad knows of one chunkd."""
        port = self.daemon(name).port
        return next(
            server for server in self.status().servers if server.address.endswith(f":{port}")
        )

    def info(self, path: Path) -> InfoReply:
        """Where the bytes of a file on the mount are."""
        return self.infos([path])[0]

    def infos(self, paths: Iterable[Path]) -> list[InfoReply]:
        """The same of many files, over one connection."""
        requests = [InfoRequest(inode=path.stat().st_ino) for path in paths]

        async def ask_all() -> list[InfoReply]:
            client = Client()
            try:
                return [await client.call("cluster.info", self.address, each) for each in requests]
            finally:
                await client.aclose()

        return trio.run(ask_all)

    def orphans(self) -> int:
        """Files without a name that are still kept for somebody who has them open."""
        report: FsckReport = ask(self.address, "cluster.fsck", FsckRequest())
        return report.orphans

    def answers(self) -> bool:
        """Whether metad does."""
        try:
            self.status()
        except Unavailable:
            return False
        return True

    def healthy(self) -> bool:
        """All servers up, every chunk with its full number of replicas."""
        return self._is_whole(but_slow=False)

    def healed(self) -> bool:
        """The same, but servers may still be held for slow: `reason` says so of them."""
        return self._is_whole(but_slow=True)

    def _is_whole(self, *, but_slow: bool) -> bool:
        try:
            status = self.status()
        except Unavailable:
            return False
        return (
            len(status.servers) == NODES
            and all(each.state == "up" or (but_slow and each.reason) for each in status.servers)
            and status.chunks.under_replicated == 0
        )

    def wait_healthy(self) -> float:
        """Wait for `healthy`; how long it took, in seconds.  Only for slow servers is more time."""
        started = time.monotonic()
        wait_for(self.healed, "full redundancy again")
        wait_for(self.healthy, "nobody is held for slow", HELD_SLOW_S)
        return time.monotonic() - started

    def log_text(self, name: str) -> str:
        """All that a daemon or mount has logged."""
        return (self.directory / "log" / f"{name}.log").read_text("utf-8", "replace")

    # -- judging

    def check_fsck(self) -> None:
        """`dfs fsck` has no findings."""
        status, output = run_dfs("fsck", "--json", "--url", self.address)
        assert status == 0, output

    def check_files(self, digests: dict[str, str]) -> None:
        """Every file, by its path below the mount, has the content that was acknowledged."""
        for name, digest in digests.items():
            assert sha256_of(self.mount_point / name) == digest, f"{name} has wrong bytes"

    def wait_sound(self, *paths: Path) -> None:
        """Wait until every chunk of these files has its replicas, and they are what metad says.

        The disks themselves are looked at, and nothing is changed by that.
        """
        deadline = time.monotonic() + HEAL_S
        pending = list(paths)
        while pending:
            unsound = []
            for path, info in zip(pending, self.infos(pending), strict=True):
                try:
                    for chunk in info.chunks:
                        self.check_chunk(chunk)
                except (AssertionError, CorruptChunk, OSError):
                    if time.monotonic() > deadline:
                        raise
                    unsound.append(path)
            pending = unsound
            if pending:
                time.sleep(POLL_S)

    def check_chunk(self, chunk: ChunkInfo) -> None:
        """Raises AssertionError, CorruptChunk or OSError.  Changes nothing."""
        good = [each for each in chunk.replicas if each.state == "good"]
        assert len(good) >= REPLICAS, f"too few replicas: {chunk}"
        for replica in good:
            data = Layout(self._root_of(replica.address)).file(chunk.chunk).read_bytes()
            index = parse_tail(chunk.chunk, len(data), data[-TAIL_MAX_BYTES:])
            check_blocks(chunk.chunk, data[: index.length], index.checksums)

    def _root_of(self, address: str) -> Path:
        port = int(address.rpartition(":")[2])
        return next(self.data(each.name) for each in self.local.chunkds if each.port == port)

    def unseen_log(self, name: str) -> str:
        """What a daemon or mount has logged since its log was looked at."""
        return self._log_from(name, self._logs_seen.get(name, 0)).decode("utf-8", "replace")

    def see_log(self, name: str) -> str:
        """The same, and now it was looked at."""
        start = self._logs_seen.get(name, 0)
        text = self._log_from(name, start)
        self._logs_seen[name] = start + len(text)
        return text.decode("utf-8", "replace")

    def _log_from(self, name: str, start: int) -> bytes:
        with (self.directory / "log" / f"{name}.log").open("rb") as file:
            file.seek(start)
            return file.read()

    def check_logs(self) -> None:
        """Bad weather makes warnings, but never a traceback.  Each line is looked at once."""
        for log in (self.directory / "log").glob("*.log"):
            text = self.see_log(log.stem)
            assert "Traceback" not in text, f"{log.name}:\n{text[text.index('Traceback') :][:4000]}"
