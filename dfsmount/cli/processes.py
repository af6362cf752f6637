"""Daemons that outlive the command that started them: who they are, and how they end.

A pid alone names nobody: numbers come back, after a reboot at once.  So a process is remembered by
its pid, the tick at which it started, and the boot in which that was, and is only ever signalled
through a pidfd that was opened before this was checked.  (psutil's create_time() is not used: it is
computed from the wall clock, and a daemon must not be forgotten because the clock was set.)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class Identity(msgspec.Struct, frozen=True):
    """One process of one boot of this host; `mount_point` when it serves a mount."""

    pid: int
    start_ticks: int
    boot_id: str
    mount_point: str = ""


def identity_of(pid: int, mount_point: str = "") -> Identity | None:
    """The identity of a live process, or None when there is none (or only its corpse; or pid 0)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, which may contain anything.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), boot_id(), mount_point)


def boot_id() -> str:
    """What distinguishes this boot of the host from all others."""
    return BOOT_ID_FILE.read_text("ascii").strip()


def remember(identity: Identity, pid_file: Path) -> None:
    """Write the identity down, whole or not at all."""
    fresh = pid_file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(identity))
    fresh.replace(pid_file)


def recall(pid_file: Path) -> Identity | None:
    """The process that `pid_file` names, if it still runs; None otherwise."""
    written = read_pid_file(pid_file)
    if written is None or identity_of(written.pid, written.mount_point) != written:
        return None
    return written


def read_pid_file(pid_file: Path) -> Identity | None:
    """What was remembered there, whether it still runs or not."""
    try:
        return msgspec.json.decode(pid_file.read_bytes(), type=Identity)
    except (FileNotFoundError, msgspec.DecodeError):
        # Never written, or by a host that lost power meanwhile: then the process is gone as well.
        return None


@contextlib.contextmanager
def handle_of(identity: Identity) -> Iterator[int | None]:
    """A pidfd for the process, or None when it has ended."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        same = identity_of(identity.pid, identity.mount_point) == identity
        yield handle if same else None
    finally:
        os.close(handle)


def wait_end(handle: int, timeout_s: float) -> bool:
    """Whether the process behind the pidfd ended within `timeout_s`."""
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    return bool(waiting.poll(timeout_s * 1000))


def stop(*identities: Identity, grace_s: float) -> list[str]:
    """End processes, all at once: SIGTERM, and SIGKILL for those that still run after `grace_s`.

    Returns what each took: "gone" (it had ended), "stopped" or "killed".
    """
    with contextlib.ExitStack() as cleanup:
        handles = [cleanup.enter_context(handle_of(identity)) for identity in identities]
        for handle in handles:
            _signal(handle, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        return [_await_end(handle, deadline, grace_s) for handle in handles]


def _await_end(handle: int | None, deadline: float, kill_s: float) -> str:
    if handle is None:
        return "gone"
    if wait_end(handle, max(0.0, deadline - time.monotonic())):
        return "stopped"
    _signal(handle, signal.SIGKILL)
    wait_end(handle, kill_s)
    return "killed"


def _signal(handle: int | None, number: signal.Signals) -> None:
    # ProcessLookupError: it ended by itself since the pidfd was opened.
    if handle is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
