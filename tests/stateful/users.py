"""What somebody without privileges tries: one path, one system call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.t4_mount.harness import acting_as


def _write(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, b"stranger")
    finally:
        os.close(descriptor)


def _create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


ACTIONS: dict[str, Callable[[str], Any]] = {
    "read": lambda path: Path(path).read_bytes(),
    "write": _write,
    "create": _create,
    "truncate": lambda path: os.truncate(path, 3),
    "list": lambda path: sorted(os.listdir(path)),
    "enter": lambda path: Path(path, "a").exists(),
    "mkdir": lambda path: os.mkdir(path, 0o777),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "rename here": lambda path: os.rename(path, f"{path}x"),
    "link here": lambda path: os.link(path, f"{path}x"),
    "chmod": lambda path: os.chmod(path, 0o2770),
    "chown to itself": lambda path: os.chown(path, -1, os.getegid()),
    "chown to root": lambda path: os.chown(path, 0, -1),
    "touch": os.utime,
    "old times": lambda path: os.utime(path, ns=(5, 5)),
    "setxattr": lambda path: os.setxattr(path, "user.a", b"stranger"),
    "trusted xattr": lambda path: os.setxattr(path, "trusted.a", b"stranger"),
    "getxattr": lambda path: os.getxattr(path, "user.a"),
}


def act_as(root: Path, uid: int, gid: int, action: Callable[[str], Any], path: str) -> Any:
    """Do it in `root` with these rights and no other groups."""
    with acting_as(uid, gid, root):
        return action(path)
