"""Is anything mounted inside of our mount?  Asked of all mount namespaces that this process sees.

`KernelCaches` wants to know before it lets all names expire: when the kernel next walks through a
name that has expired so, it takes away what is mounted on it or below, without a word (tried with
Linux 6.18).  Containers often have something mounted below a directory that they are given.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def is_mounted_upon(device: int, proc: Path = PROC) -> bool:
    """Whether another mount lies on the file system with this device number, as far as we can see:
    processes of other users are not shown to those who are not root."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    seen: set[str] = set()
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            namespace = str((directory / "ns" / "mnt").readlink())
            if namespace in seen:
                continue
            seen.add(namespace)
            table = (directory / "mountinfo").read_bytes()
        except OSError:  # the process has ended, or is not ours to look at
            continue
        if carries_mounts(os.fsdecode(table), wanted):
            return True
    return False


def carries_mounts(table: str, device: str) -> bool:
    """The same of one mountinfo file."""
    mounts = [line.split(maxsplit=3)[:3] for line in table.splitlines()]
    ours = {mount for mount, _parent, its_device in mounts if its_device == device}
    return any(parent in ours for _mount, parent, _device in mounts)
