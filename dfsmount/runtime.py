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
from tempfile import mkstemp
from typing import IO


def default_directory() -> Path:
    """/run/dfs for root, the user's runtime directory otherwise."""
    if os.geteuid() == 0:
        return Path("/run/dfs")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/dfs-{os.geteuid()}") / "dfs"


def dead_sessions(directory: Path, metad: str) -> list[str]:
    """Sessions with this metad whose processes have ended; their files are removed.

    Other mounts may end, or look for the same, at the same time.
    """
    sessions = []
    for path in sorted(directory.glob("*.session")) if directory.is_dir() else []:
        try:
            file = path.open("r+")
        except FileNotFoundError:  # since it was listed
            continue
        with file:
            if not _try_lock(file) or not os.fstat(file.fileno()).st_nlink:
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
        # A name of its own: a dead process with the same number may have left what is still wanted.
        descriptor, name = mkstemp(".session", f"{os.getpid()}-", directory)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "w")
        self._names_session = False
        fcntl.flock(self._file, fcntl.LOCK_EX)  # who looks for dead ones has it for a moment only

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


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
