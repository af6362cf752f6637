"""Rules by path: names, attributes, xattrs, whole files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.stateful.machine import (
    Machine,
    any_paths,
    existing,
    file_paths,
    modes,
    moments,
    names,
    offsets,
    paths,
    sizes,
    views,
)
from tests.stateful.twin import described
from tests.stateful.users import ACTIONS, act_as
from tests.syscalls import UTIME_NOW, UTIME_OMIT, rename_with_flags, set_times, statx

open_flags = st.sets(
    st.sampled_from(
        [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW, os.O_SYNC, os.O_DSYNC]
    ),
    max_size=3,
).map(sum)
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
rename_flags = st.sampled_from([0, 0, 0, 1, 2, 3, 8])
odd_paths = st.builds(
    "{}{}".format, st.one_of(any_paths, existing), st.sampled_from(["/", "/.", "/..", "//", "/./"])
)
xattr_names = st.sampled_from(
    ["user.a", "user.b", "trusted.a", "security.a", "user.", "plain", "user." + "n" * 251]
)
times = st.one_of(moments, st.sampled_from([UTIME_NOW, UTIME_OMIT]))
ids = st.integers(-1, 3)


def moved(old: Path, new: Path, flags: int = 0) -> None:
    """rename(2), and once more after a look when the kernel says ESTALE.

    It does so when another mount has moved a directory that this one knew, and nobody has looked
    at its new place since: the kernel can't take its own entry along while it renames.
    """
    try:
        rename_with_flags(old, new, flags)
    except OSError as problem:
        if problem.errno != errno.ESTALE:
            raise
        for path in (old, new):
            os.path.lexists(path)
        rename_with_flags(old, new, flags)


class Names(Machine):
    """Everything that a path is enough for."""

    # -- files

    @rule(view=views, path=file_paths, offset=offsets, size=sizes, flags=open_flags)
    def write_file(self, view: int, path: str, offset: int, size: int, flags: int) -> None:
        if self.is_fifo(path):
            return
        data = self.payload(size)

        def action(root: Path) -> int:
            descriptor = os.open(root / path, os.O_WRONLY | flags, 0o644)
            try:
                return os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)

        self.both(view, action, f"write {size} bytes to {path} at {offset}, flags {flags:#o}")

    @rule(view=views, path=file_paths)
    def read_file(self, view: int, path: str) -> None:
        if not self.is_fifo(path):
            self.both(view, lambda root: (root / path).read_bytes(), f"read {path}")

    @rule(view=views, path=file_paths, size=st.one_of(sizes, st.just(-1)))
    def truncate(self, view: int, path: str, size: int) -> None:
        self.both(view, lambda root: os.truncate(root / path, size), f"truncate {path} to {size}")

    # -- names

    @rule(view=views, path=paths, mode=modes)
    def make_directory(self, view: int, path: str, mode: int) -> None:
        self.both(view, lambda root: os.mkdir(root / path, mode), f"mkdir {path} {mode:o}")

    @rule(view=views, path=paths)
    def remove_directory(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.rmdir(root / path), f"rmdir {path}")

    @rule(view=views, path=paths)
    def unlink(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.unlink(root / path), f"unlink {path}")

    @rule(view=views, old=paths, new=paths, flags=rename_flags)
    def rename(self, view: int, old: str, new: str, flags: int) -> None:
        self.both(
            view,
            lambda root: moved(root / old, root / new, flags),
            f"rename {old} to {new}, flags {flags}",
        )

    @rule(view=views, path=existing, inner=names, deeper=names)
    def move_into_itself(self, view: int, path: str, inner: str, deeper: str) -> None:
        target = f"{path}/{inner}/{deeper}"
        self.both(
            view, lambda root: moved(root / path, root / target), f"rename {path} to {target}"
        )

    @rule(view=views, old=existing, new=existing)
    def replace_one_by_another(self, view: int, old: str, new: str) -> None:
        """Directories that are not empty, files over directories, and the like."""
        self.both(view, lambda root: moved(root / old, root / new), f"rename {old} {new}")

    @rule(view=views, old=existing, new=existing)
    def exchange(self, view: int, old: str, new: str) -> None:
        self.both(view, lambda root: moved(root / old, root / new, 2), f"exchange {old} {new}")

    @rule(view=views, old=paths, new=paths, follow=st.booleans())
    def link(self, view: int, old: str, new: str, follow: bool) -> None:
        self.both(
            view,
            lambda root: os.link(root / old, root / new, follow_symlinks=follow),
            f"link {old} as {new}, follow {follow}",
        )

    @rule(view=views, points_to=paths, path=paths)
    def make_link(self, view: int, points_to: str, path: str) -> None:
        self.both(
            view, lambda root: os.symlink(points_to, root / path), f"symlink {path} to {points_to}"
        )

    @rule(view=views, path=paths)
    def read_link(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.readlink(root / path), f"readlink {path}")

    @rule(view=views, path=paths, kind=kinds, mode=modes, device=st.integers(0, 300))
    def make_node(self, view: int, path: str, kind: int, mode: int, device: int) -> None:
        number = os.makedev(device, device) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0

        def action(root: Path) -> int:
            os.mknod(root / path, kind | mode, number)
            return os.lstat(root / path).st_rdev

        self.both(view, action, f"mknod {path} {kind | mode:o} {number}")

    @rule(view=views, path=st.one_of(st.just("."), paths))
    def list_directory(self, view: int, path: str) -> None:
        def action(root: Path) -> list[tuple[str, bool, bool]]:
            with os.scandir(root / path) as entries:
                return sorted(
                    (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                )

        self.both(view, action, f"list {path}")

    @rule(view=views, path=st.one_of(st.just("."), existing), length=st.sampled_from([255, 256]))
    def use_a_long_name(self, view: int, path: str, length: int) -> None:
        def action(root: Path) -> bool:
            long = root / path / ("n" * length)
            long.touch()
            assert os.listdir(root / path).count(long.name) == 1
            long.rename(long.with_name("m" * length))
            long.with_name("m" * length).unlink()
            return long.exists()

        self.both(view, action, f"a name of {length} in {path}")

    @rule(view=views, path=st.one_of(any_paths, existing), length=st.sampled_from([4094, 4100]))
    def use_a_long_path(self, view: int, path: str, length: int) -> None:
        def action(root: Path) -> int:
            before = f"{root}/"
            filler = "./" * length
            return os.lstat(before + filler[: (length - len(before) - len(path)) // 2 * 2] + path)[
                stat.ST_MODE
            ]

        self.both(view, action, f"a path of {length} to {path}")

    @rule(view=views, path=odd_paths)
    def use_an_odd_path(self, view: int, path: str) -> None:
        """A slash or a dot behind the name; "a/.." is a directory that stays."""
        self.both(view, lambda root: os.lstat(f"{root}/{path}").st_mode, f"stat {path}")
        self.both(view, lambda root: os.mkdir(f"{root}/{path}"), f"mkdir {path}")
        self.both(view, lambda root: os.rmdir(f"{root}/{path}"), f"rmdir {path}")
        self.both(view, lambda root: os.unlink(f"{root}/{path}"), f"unlink {path}")

    # -- attributes

    @rule(view=views, path=paths, follow=st.booleans())
    def look_at(self, view: int, path: str, follow: bool) -> None:
        self.both(
            view,
            lambda root: described(os.stat(root / path, follow_symlinks=follow)),
            f"stat {path}, follow {follow}",
        )

    @rule(view=views, path=paths)
    def look_at_by_statx(self, view: int, path: str) -> None:
        def action(root: Path) -> dict[str, int]:
            found = statx(root / path)
            return found if not stat.S_ISDIR(found["mode"]) else {**found, "size": 0}

        self.both(view, action, f"statx {path}")

    @rule(view=views, path=paths, mode=st.integers(0, 7))
    def ask_for_access(self, view: int, path: str, mode: int) -> None:
        self.both(view, lambda root: os.access(root / path, mode), f"access {path} {mode}")

    @rule(view=views, path=paths, mode=modes)
    def change_mode(self, view: int, path: str, mode: int) -> None:
        self.both(view, lambda root: os.chmod(root / path, mode), f"chmod {path} {mode:o}")

    @rule(view=views, path=paths, uid=ids, gid=ids, follow=st.booleans())
    def change_owner(self, view: int, path: str, uid: int, gid: int, follow: bool) -> None:
        self.both(
            view,
            lambda root: os.chown(root / path, uid, gid, follow_symlinks=follow),
            f"chown {path} {uid} {gid}, follow {follow}",
        )

    @rule(view=views, path=paths, atime_ns=times, mtime_ns=times)
    def set_times(self, view: int, path: str, atime_ns: int, mtime_ns: int) -> None:
        def action(root: Path) -> Any:
            set_times(root / path, atime_ns, mtime_ns)
            return described(os.lstat(root / path))

        self.both(view, action, f"utimens {path} {atime_ns} {mtime_ns}")

    @rule(view=views, path=paths)
    def set_times_to_now(self, view: int, path: str) -> None:
        self.both(view, lambda root: os.utime(root / path), f"utimens {path}")

    # -- xattrs

    @rule(
        view=views,
        path=paths,
        name=xattr_names,
        value=st.binary(max_size=40),
        flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]),
        follow=st.booleans(),
    )
    def set_xattr(
        self, view: int, path: str, name: str, value: bytes, flags: int, follow: bool
    ) -> None:
        self.both(
            view,
            lambda root: os.setxattr(root / path, name, value, flags, follow_symlinks=follow),
            f"setxattr {path} {name} {value!r}, flags {flags}, follow {follow}",
        )

    @rule(view=views, path=paths, name=xattr_names)
    def get_xattr(self, view: int, path: str, name: str) -> None:
        self.both(view, lambda root: os.getxattr(root / path, name), f"getxattr {path} {name}")

    @rule(view=views, path=paths)
    def list_xattrs(self, view: int, path: str) -> None:
        self.both(view, lambda root: sorted(os.listxattr(root / path)), f"listxattr {path}")

    @rule(view=views, path=paths, name=xattr_names)
    def remove_xattr(self, view: int, path: str, name: str) -> None:
        self.both(view, lambda root: os.removexattr(root / path, name), f"rmxattr {path} {name}")

    # -- other users

    @rule(
        view=views,
        path=paths,
        uid=st.integers(1, 3),
        gid=st.integers(1, 3),
        action=st.sampled_from(sorted(ACTIONS)),
    )
    def act_as_another_user(self, view: int, path: str, uid: int, gid: int, action: str) -> None:
        if not self.is_fifo(path):
            self.both(
                view,
                lambda root: act_as(root, uid, gid, ACTIONS[action], path),
                f"{action} {path} as {uid}:{gid}",
            )
