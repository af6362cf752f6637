"""Delivers mail: `python -m tests.t6_apps.delivery mbox FILE WRITER COUNT LOCKS`, or `maildir DIR`.

LOCKS are some of those below, taken in that order.  A dot-lock is made as mail programs have made
it since NFS: a file of an own name is linked to the lock's name; its link count tells who has won.
"""

from __future__ import annotations

import fcntl
import mailbox
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import Message
from pathlib import Path

LOCKS = ("dotlock", "fcntl", "flock")
DOTLOCK_PAUSE_S = 0.002
DOTLOCK_TRIES = 30_000


def text_of(writer: int, number: int) -> str:
    """What a message says; long ones go over block boundaries."""
    return f"message {number} of {writer}\n" * (1 + 37 * number % 400)


def message_of(writer: int, number: int) -> Message:
    message = Message()
    message["From"] = f"writer{writer}@example.org"
    message["Subject"] = f"{writer} {number}"
    message.set_payload(text_of(writer, number))
    return message


@contextmanager
def dotlock(path: Path) -> Iterator[None]:
    own = path.with_name(f"{path.name}.{os.getpid()}")
    lock = path.with_name(f"{path.name}.lock")
    for _ in range(DOTLOCK_TRIES):
        own.touch(exist_ok=False)
        try:
            os.link(own, lock)
        except FileExistsError:
            time.sleep(DOTLOCK_PAUSE_S)  # as mail programs do: nothing announces the end of it
        finally:
            won = own.stat().st_nlink == 2
            own.unlink()
        if won:
            break
    else:
        raise TimeoutError(lock)
    try:
        yield
    finally:
        lock.unlink()


def locked(path: Path, descriptor: int, kind: str) -> ExitStack:
    """One lock on the mailbox, held until the stack is closed."""
    stack = ExitStack()
    if kind == "dotlock":
        stack.enter_context(dotlock(path))
        return stack
    call: Callable[[int, int], object] = {"fcntl": fcntl.lockf, "flock": fcntl.flock}[kind]
    call(descriptor, fcntl.LOCK_EX)
    stack.callback(call, descriptor, fcntl.LOCK_UN)
    return stack


def into_mbox(path: Path, writer: int, number: int, locks: list[str]) -> None:
    """Append one message the way an mbox is appended to: at the end that is seen under the lock."""
    text = f"From writer{writer} Thu Jan  1 00:00:00 1970\n{message_of(writer, number)}\n".encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with ExitStack() as stack:
            for kind in locks:
                stack.enter_context(locked(path, descriptor, kind))
            end = os.lseek(descriptor, 0, os.SEEK_END)
            assert os.pread(descriptor, 5, 0) in (b"", b"From ")
            assert os.write(descriptor, text) == len(text)
            os.fsync(descriptor)
            assert os.pread(descriptor, len(text) + 1, end) == text, "somebody wrote here as well"
    finally:
        os.close(descriptor)


def main(kind: str, path: Path, writer: int, count: int, locks: str = "") -> None:
    for number in range(count):
        if kind == "mbox":
            into_mbox(path, writer, number, locks.split(","))
        else:
            mailbox.Maildir(path).add(message_of(writer, number))


if __name__ == "__main__":
    kind, path, writer, count, *locks = sys.argv[1:]
    main(kind, Path(path), int(writer), int(count), *locks)
