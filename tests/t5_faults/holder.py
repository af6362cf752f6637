"""A process that has files of the mount open: an application, as the tests' own process cannot be.

Whoever starts a process closes in it what is open in his own, which stores what is dirty and may
wait for metad; and the network is cut and healed by processes.

    python -m tests.t5_faults.holder

reads one call of `os` a line and answers with its result or its errno.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.t5_process.programs import ROOT

ANSWER_S = 20.0


class Holder:
    """The process, from outside."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.t5_faults.holder"]
        self._process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Holder:
        self.do("getpid")
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(ANSWER_S)

    def do(self, call: str, *arguments: Any) -> Any:
        """A call of `os`.  Raises OSError."""
        self.begin(call, *arguments)
        return self.end()

    def begin(self, call: str, *arguments: Any) -> None:
        """The same, without waiting for its end."""
        assert self._process.stdin is not None
        plain = [_plain(each) for each in arguments]
        self._process.stdin.write(json.dumps([call, *plain]).encode() + b"\n")
        self._process.stdin.flush()

    @property
    def is_waiting(self) -> bool:
        """Whether the call that was begun has not ended."""
        assert self._process.stdout is not None
        return not select.select([self._process.stdout], [], [], 0.0)[0]

    def end(self) -> Any:
        """Its result.  Raises OSError; AssertionError when it does not end."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        assert ready, f"a call has not ended after {ANSWER_S:g} s"
        number, result = json.loads(self._process.stdout.readline())
        if number:
            raise OSError(number, os.strerror(number))
        return base64.b64decode(result[0]) if isinstance(result, list) else result

    def killed(self, within_s: float) -> int:
        """SIGKILL; its exit status.  Raises subprocess.TimeoutExpired."""
        self._process.kill()
        return self._process.wait(within_s)


def _plain(argument: Any) -> Any:
    if isinstance(argument, bytes):
        return [base64.b64encode(argument).decode()]
    return str(argument) if isinstance(argument, Path) else argument


def main() -> None:
    """The process itself."""
    for line in sys.stdin:
        call, *plain = json.loads(line)
        arguments = [base64.b64decode(x[0]) if isinstance(x, list) else x for x in plain]
        try:
            answer = [0, _plain(getattr(os, call)(*arguments))]
        except OSError as problem:
            answer = [problem.errno, None]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
