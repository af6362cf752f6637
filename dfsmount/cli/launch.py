"""Start a process that goes on by itself, and learn when it is ready.

The process gets its own session and a log file, and says `READY=1` through NOTIFY_SOCKET, as it
would to systemd.  Waiting is for that datagram or for the end of the process, whichever comes
first; nothing polls.  Used by `dfs up` for daemons and mounts, and by `dfs mount`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from dfsmount.cli.processes import Identity, identity_of


class Launch:
    """One process that was started.  Use `with`, and call `wait_ready` once."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start `command`; what it prints is appended to `log`.  Raises OSError."""
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        # The path of a socket holds 107 characters at most, so it does not lie beside the data.
        self._directory = tempfile.mkdtemp(prefix="dfs-")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"{self._directory}/ready"
        self._socket.bind(address)
        with log.open("ab") as output:
            self.process = self._spawn(command, output, address)

    def _spawn(
        self, command: Sequence[str], output: IO[bytes], notify_socket: str
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",  # a daemon keeps no directory busy
            env={**os.environ, "NOTIFY_SOCKET": notify_socket},
            start_new_session=True,
        )

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *problem: object) -> None:
        self._socket.close()
        shutil.rmtree(self._directory)

    def wait_ready(self, timeout_s: float) -> str:
        """Wait until it is ready; "" then, else a line that says why it is not.

        A process that is not ready in time is ended.  `process.returncode` tells how one ended.
        """
        deadline = time.monotonic() + timeout_s
        handle = os.pidfd_open(self.process.pid)
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(os.close, handle)
            waiting = cleanup.enter_context(selectors.DefaultSelector())
            waiting.register(self._socket, selectors.EVENT_READ)
            waiting.register(handle, selectors.EVENT_READ)
            while (left_s := deadline - time.monotonic()) > 0:
                events = {key.fileobj for key, _ in waiting.select(left_s)}
                if self._socket in events and b"READY=1" in self._socket.recv(4096).splitlines():
                    return ""
                if handle in events:
                    self.process.wait()
                    return self._last_words()
        self.process.terminate()
        self.process.wait()
        return f"not ready after {timeout_s:g} s, ended; see {self._log}"

    def identity(self, mount_point: str = "") -> Identity | None:
        """Who it is, while it runs."""
        return identity_of(self.process.pid, mount_point)

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1] if spoken else f"ended with status {self.process.returncode}, silently"
