"""The dfs mounts of this host, as the kernel lists them.

Used by every verb that deals with a mount point.  Nothing here touches the mounted file system
itself unless it says so: a mount whose process died, or whose cluster is away, must not hang the
command that is to help with it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dfswire.errors import UsageError

FILE_SYSTEM_TYPE = "fuse.dfs"
MOUNT_TABLE = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    """One mounted dfs: the metad it belongs to, where it is, and its device number."""

    metad: str
    point: Path
    device: tuple[int, int]


def parse_mounts(table: str) -> list[Mount]:
    """The dfs mounts in the text of a mountinfo file, in the order of mounting."""
    mounts = []
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        device, point = before.split()[2], before.split()[4]
        kind, source = after.split()[:2]
        if kind == FILE_SYSTEM_TYPE:
            major, minor = device.split(":")
            mounts.append(
                Mount(_unescape(source), Path(_unescape(point)), (int(major), int(minor)))
            )
    return mounts


def _unescape(field: str) -> str:
    # The kernel writes blanks, tabs, newlines and backslashes as octal numbers.
    octets = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(field))
    return os.fsdecode(octets)


def mounts_now() -> list[Mount]:
    """The dfs mounts that this process sees."""
    return parse_mounts(os.fsdecode(MOUNT_TABLE.read_bytes()))


def location(path: Path) -> Path:
    """`path` made absolute without a look at what is mounted on it."""
    full = path.absolute()
    return full.resolve() if full.name == ".." else full.parent.resolve() / full.name


def mount_at(point: Path) -> Mount | None:
    """The uppermost dfs mount on `point`, or None."""
    wanted = location(point)
    return next((mount for mount in reversed(mounts_now()) if mount.point == wanted), None)


def mount_of(path: Path) -> Mount | None:
    """The dfs mount that holds `path` (which is looked at), or None.  Raises OSError."""
    device = path.stat().st_dev
    wanted = (os.major(device), os.minor(device))
    return next((mount for mount in reversed(mounts_now()) if mount.device == wanted), None)


def unmount(mount: Mount, *, lazy: bool = False, dead: bool = False) -> None:
    """Take the mount out of the tree.  `lazy`: even while it is in use.  Raises UsageError.

    `dead`: no process serves it any more.  Then whoever waits for an answer is told that there will
    be none; the last threads of the process may be among them, and as long as they wait the
    kernel does not notice that the process is gone.
    """
    if dead and os.geteuid() == 0:
        # It may say that the mount is busy, and has ended the waiting nevertheless.
        subprocess.run(["umount", "-f", "--", str(mount.point)], capture_output=True)
        if mount_at(mount.point) is None:
            return
    options = ["-u", "-z"] if lazy else ["-u"]
    try:
        done = subprocess.run(
            ["fusermount3", *options, "--", str(mount.point)], capture_output=True, text=True
        )
    except FileNotFoundError as problem:
        raise UsageError("fusermount3 is missing: install the package fuse3") from problem
    if done.returncode == 0:
        return
    users = users_of(mount.point)
    if users:
        raise UsageError(f"{mount.point} is in use by {', '.join(users)}: end it, then try again")
    reason = done.stderr.strip().removeprefix("fusermount3: ")
    raise UsageError(reason or f"fusermount3 ended with status {done.returncode}")


def users_of(point: Path) -> list[str]:
    """The processes with a working directory or an open file below `point`, as "name (pid)"."""
    root = str(point)
    return [
        f"{process.info['name']} ({process.pid})"
        for process in psutil.process_iter(["name"])
        if any(used == root or used.startswith(root + "/") for used in _paths_of(process.pid))
    ]


def _paths_of(pid: int) -> list[str]:
    # Not psutil's open_files(): it stats each file, which would hang on a mount that hangs.
    process = Path(f"/proc/{pid}")
    try:
        open_files = list((process / "fd").iterdir())
    except OSError:  # it ended meanwhile, or belongs to somebody else
        open_files = []
    return [_target(link) for link in (process / "cwd", process / "exe", *open_files)]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # as above; or this one file was closed meanwhile
        return ""


def mount_process(point: Path, command_lines: Sequence[tuple[int, list[str]]] | None = None) -> int:
    """The pid of the process that serves the mount on `point`; 0 when none is found.

    The kernel does not tell, so this looks for `python -m dfsmount ADDRESS POINT`.
    """
    found = _command_lines() if command_lines is None else command_lines
    for pid, words in found:
        for at in range(len(words) - 3):
            if words[at : at + 2] == ["-m", "dfsmount"] and words[at + 3] == str(point):
                return pid
    return 0


def _command_lines() -> list[tuple[int, list[str]]]:
    return [
        (process.pid, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
