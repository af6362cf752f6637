"""Which sessions this host's mounts have, so that a new mount can end those of dead ones.

A mount that is killed leaves its session to metad, and whatever it held stays held until its lease
ends.  But the host knows better: each mount writes a small file under /run, locked for as
long as the process lives.  A file that nobody locks names a session whose process is dead; the
next mount of the same cluster hands these sessions to metad, which ends them at once.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


def default_directory() -> Path:
    """/run/dfs for root, the user's runtime directory otherwise."""
    if os.geteuid() == 0:
        return Path("/run/dfs")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/dfs-{os.geteuid()}") / "dfs"


def dead_sessions(directory: Path, metad: str) -> list[str]:
    """Sessions with this metad whose processes have ended; their files are removed."""
    sessions = []
    for path in sorted(directory.glob("*.session")) if directory.is_dir() else []:
        with path.open("r+") as file:
            if not _lock(file):
                continue
            address, _, session = file.read().strip().partition(" ")
            if address == metad and session:
                sessions.append(session)
                path.unlink()
    return sessions


class SessionFile:
    """The record of this process's session, locked until the process ends."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / f"{os.getpid()}.session"
        self._file = self._path.open("w")
        self._names_session = False
        _lock(self._file)

    def write(self, metad: str, session: str) -> None:
        """This process has this session with this metad (and no other any more)."""
        self.clear()
        self._file.write(f"{metad} {session}\n")
        self._file.flush()
        self._names_session = True

    def clear(self) -> None:
        """It has none any more."""
        self._file.seek(0)
        self._file.truncate()
        self._names_session = False

    def close(self) -> None:
        """The process ends.  A session that could not be given back is left to the next mount."""
        if not self._names_session:
            self._path.unlink(missing_ok=True)
        self._file.close()


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
