"""The same file system operations on a mount and on a plain local directory, compared.

`Twin` carries each operation out on both sides and compares what came of it: a value, or an errno.
`tree` describes a whole directory for comparison.  Times are compared where a test has set them,
which is recognised by their lying in the past.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONG_AGO_NS = 1_000_000_000 * 10**9  # in 2001; times before it were set by a test

Outcome = tuple[str, Any]


def outcome(action: Callable[[], Any]) -> Outcome:
    """("ok", value) or ("errno", its name)."""
    try:
        return "ok", action()
    except OSError as problem:
        return "errno", errno.errorcode.get(problem.errno or 0, str(problem))


def described(attributes: os.stat_result) -> dict[str, Any]:
    """What must be the same on both sides."""
    kind = stat.S_IFMT(attributes.st_mode)
    description = {
        "mode": oct(attributes.st_mode),
        "nlink": attributes.st_nlink,
        "uid": attributes.st_uid,
        "gid": attributes.st_gid,
        "size": None if kind == stat.S_IFDIR else attributes.st_size,
    }
    if attributes.st_mtime_ns < LONG_AGO_NS:
        description["mtime_ns"] = attributes.st_mtime_ns
    return description


def tree(root: Path) -> dict[str, Any]:
    """Everything below `root`: attributes, contents, targets, xattrs, and which names are one."""
    found: dict[str, Any] = {}
    first_names: dict[int, str] = {}

    def visit(directory: Path) -> None:
        for name in sorted(os.listdir(directory)):
            path = directory / name
            attributes = os.lstat(path)
            relative = str(path.relative_to(root))
            entry = described(attributes)
            entry["same_as"] = first_names.setdefault(attributes.st_ino, relative)
            if stat.S_ISLNK(attributes.st_mode):
                entry["target"] = os.readlink(path)
            else:
                entry["xattrs"] = {
                    key: os.getxattr(path, key)
                    for key in sorted(os.listxattr(path))
                    if key.startswith("user.")
                }
            if stat.S_ISREG(attributes.st_mode):
                entry["content"] = path.read_bytes()
            found[relative] = entry
            if stat.S_ISDIR(attributes.st_mode):
                visit(path)

    visit(root)
    return found


def assert_same_tree(mine: Path, plain: Path) -> None:
    """Fail with the first difference."""
    ours, theirs = tree(mine), tree(plain)
    assert list(ours) == list(theirs), f"names: {sorted(ours)} instead of {sorted(theirs)}"
    for name, entry in theirs.items():
        for key, value in entry.items():
            assert ours[name].get(key) == value, (
                f"{name}: {key} is {_short(ours[name].get(key))} instead of {_short(value)}"
            )
        assert set(ours[name]) == set(entry), f"{name}: {set(ours[name]) ^ set(entry)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:150]}... ({len(text)} characters)"
