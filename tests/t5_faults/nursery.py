"""Starts daemons and mounts in a fiftieth of a second: by fork of a process that has all modules.

Half of a power cut's time would go into five interpreters that import the same modules.  Otherwise
they are the same processes as ever: own sessions, own logs, own READY=1.

    python -m tests.t5_faults.nursery

reads commands (one JSON object a line) and prints the pid of each process.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from dfsmount.cli.launch import Launch

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """The other process; `close` ends it, and lets its children be."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.t5_faults.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def launch(self, command: Sequence[str], log: Path) -> Launch:
        """Start `python -P -m MODULE WORDS...`."""
        return _Forked(self, command, log)

    def fork(self, module: str, words: Sequence[str], log: str, notify_socket: str) -> int:
        """The pid of a process that runs the module's `main`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wish = {"module": module, "words": list(words), "log": log, "notify": notify_socket}
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class _Forked(Launch):
    def __init__(self, nursery: Nursery, command: Sequence[str], log: Path) -> None:
        self._nursery = nursery
        super().__init__(command, log)

    def _spawn(
        self, command: Sequence[str], output: IO[bytes], notify_socket: str
    ) -> subprocess.Popen[bytes]:
        at = command.index("-m")
        pid = self._nursery.fork(command[at + 1], command[at + 2 :], output.name, notify_socket)
        return cast("subprocess.Popen[bytes]", Child(pid))


class Child:
    """What is used of Popen, for somebody else's child."""

    returncode = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def wait(self) -> None:
        """Until it has ended."""
        if self._handle >= 0:
            waiting = select.poll()
            waiting.register(self._handle, select.POLLIN)
            waiting.poll()
            os.close(self._handle)
            self._handle = -1

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self._handle, number)


def serve() -> None:
    """Fork as told, until the input ends."""
    # All that the daemons need is imported once, here.
    import chunkd.__main__
    import dfsmount.__main__
    import metad.__main__

    mains = {
        "chunkd": chunkd.__main__.main,
        "dfsmount": dfsmount.__main__.main,
        "metad": metad.__main__.main,
    }
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    gc.freeze()
    for line in sys.stdin:
        wish = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(mains[wish["module"]], wish)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(main: Callable[[], None], wish: dict[str, str]) -> None:
    """The child: a daemon, as if it had been started by itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir("/")
    nothing = os.open("/dev/null", os.O_RDONLY)
    log = os.open(wish["log"], os.O_WRONLY | os.O_APPEND)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 1000)
    os.environ["NOTIFY_SOCKET"] = wish["notify"]
    sys.argv = [wish["module"], *wish["words"]]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
