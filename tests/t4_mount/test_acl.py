"""POSIX ACLs on mounts with -o acl: ext4 is asked what is right.

Both sides get the same lists, modes and umasks; results, modes and lists must be the same.
"""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stateful.twin import outcome
from tests.t4_mount.compare import Sides
from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveMount, acting_as, run

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
ANNA, BERT, STAFF, GUESTS = 11_001, 11_002, 12_001, 12_002

Entries = list[tuple[int, int, int]]


def packed(entries: Entries, version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *each) for each in entries)


def entries_of(owner: int, group: int, others: int, **more: int) -> Entries:
    """user::, group::, other:: and what is named: anna, bert, staff, guests, mask."""
    named = {"anna": (USER, ANNA), "bert": (USER, BERT)}
    groups = {"staff": (GROUP, STAFF), "guests": (GROUP, GUESTS), "mask": (MASK, NOBODY)}
    return [
        (USER_OBJ, owner, NOBODY),
        *((tag, more[name], number) for name, (tag, number) in named.items() if name in more),
        (GROUP_OBJ, group, NOBODY),
        *((tag, more[name], number) for name, (tag, number) in groups.items() if name in more),
        (OTHER, others, NOBODY),
    ]


def acl(owner: int, group: int, others: int, **more: int) -> bytes:
    return packed(entries_of(owner, group, others, **more))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class Oracle(Sides):
    """Sides that are compared with their lists."""

    def same_state(self, name: str) -> Any:
        return self.same(lambda side: state(side / name), name)

    def set(self, name: str, value: bytes, kind: str = ACCESS) -> Any:
        result = self.same(lambda side: os.setxattr(side / name, kind, value), name)
        self.same_state(name)
        return result


def state(path: Path) -> dict[str, Any]:
    """Type, mode and lists."""
    attributes = os.lstat(path)
    found = {"mode": oct(attributes.st_mode)}
    if not stat.S_ISLNK(attributes.st_mode):
        found |= {
            name: os.getxattr(path, name).hex()
            for name in sorted(os.listxattr(path))
            if name.startswith("system.")
        }
    return found


@pytest.fixture
def both(here: Path, acl_mounts: tuple[LiveMount, LiveMount]) -> TwoViews:
    """A directory, open to everybody, on two mounts with ACLs."""
    here.chmod(0o777)
    one, other = acl_mounts
    return TwoViews(one.point / here.name, other.point / here.name)


@pytest.fixture
def oracle(both: TwoViews, sides: Sides) -> Oracle:
    with umask(0o022):
        for side in (both.a, sides.plain):
            (side / "f").write_bytes(b"data")
            (side / "d").mkdir()
            os.symlink("f", side / "l")
    return Oracle(both.a, sides.plain)


@pytest.mark.parametrize(
    "value",
    [
        acl(6, 4, 0),
        acl(7, 5, 5, mask=4),
        acl(6, 4, 0, anna=6, mask=6),
        acl(7, 1, 3, anna=0, bert=7, staff=5, guests=0, mask=7),
        acl(6, 4, 4, staff=7, mask=0),
        packed([]),
    ],
    ids=range(6),
)
def test_a_list_and_the_mode_go_together(oracle: Oracle, value: bytes) -> None:
    for name in ("f", "d"):
        oracle.same(lambda side, name=name: (side / name).chmod(0o6751))
        oracle.set(name, value)
        for mode in (0o000, 0o2470, 0o777):
            oracle.same(lambda side, name=name, mode=mode: (side / name).chmod(mode))
            oracle.same_state(name)
    oracle.set("d", value, DEFAULT)
    oracle.set("f", value, DEFAULT)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        packed(entries_of(6, 4, 0), version=1),
        packed(entries_of(6, 4, 0)[1:]),
        packed(entries_of(6, 4, 0)[::-1]),
        packed(entries_of(6, 4, 0, anna=6)),  # without a mask
        packed([(USER_OBJ, 9, NOBODY), *entries_of(6, 4, 0)[1:]]),
        packed(entries_of(6, 4, 0)) + b"x",
    ],
    ids=range(8),
)
def test_what_is_no_list_is_refused_alike(oracle: Oracle, value: bytes) -> None:
    for name, kind in (("f", ACCESS), ("d", DEFAULT)):
        oracle.set(name, value, kind)


def test_lists_are_removed_alike(oracle: Oracle) -> None:
    full = acl(6, 4, 0, anna=6, mask=6)
    for name, kind in (("f", ACCESS), ("d", ACCESS), ("d", DEFAULT), ("f", DEFAULT)):
        oracle.set(name, full, kind)
        for _ in range(2):
            oracle.same(lambda side, name=name, kind=kind: os.removexattr(side / name, kind))
            oracle.same_state(name)
        oracle.same(lambda side, name=name, kind=kind: os.getxattr(side / name, kind))


def test_links_have_none(oracle: Oracle) -> None:
    for action in (
        lambda side: os.setxattr(side / "l", ACCESS, acl(6, 4, 0), follow_symlinks=False),
        lambda side: os.getxattr(side / "l", ACCESS, follow_symlinks=False),
        lambda side: os.removexattr(side / "l", ACCESS, follow_symlinks=False),
    ):
        oracle.same(action)


def make_all(side: Path, mode: int, mask: int) -> None:
    with umask(mask):
        os.close(os.open(side / "d" / "file", os.O_CREAT | os.O_WRONLY, mode))
        os.mkdir(side / "d" / "directory", mode)
        os.mknod(side / "d" / "fifo", mode | stat.S_IFIFO)
        os.symlink("x", side / "d" / "link")


MADE = ("file", "directory", "fifo", "link")


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    "default",
    [
        acl(7, 5, 0),
        acl(7, 7, 7, anna=7, mask=7),
        acl(6, 4, 0, anna=7, bert=0, staff=6, mask=5),
        acl(0, 7, 0, guests=7, mask=0),
    ],
    ids=["minimal", "all", "some", "none"],
)
def test_new_things_inherit_alike(oracle: Oracle, default: bytes, mask: int) -> None:
    oracle.set("d", default, DEFAULT)
    for mode in (0o666, 0o777, 0o640, 0o000):
        oracle.same(lambda side, mode=mode: make_all(side, mode, mask))
        for name in MADE:
            oracle.same_state(f"d/{name}")
        oracle.same(lambda side: [os.unlink(side / "d" / name) for name in MADE[:1] + MADE[2:]])
        oracle.same(lambda side: os.rmdir(side / "d" / "directory"))


def random_acl(rng: random.Random) -> bytes:
    named = {
        name: rng.randrange(8) for name in ("anna", "bert", "staff", "guests") if rng.random() < 0.4
    }
    mask = {"mask": rng.randrange(8)} if named or rng.random() < 0.3 else {}
    return acl(rng.randrange(8), rng.randrange(8), rng.randrange(8), **named, **mask)


def test_lists_modes_and_inheritance_at_random(oracle: Oracle, rng: random.Random) -> None:
    for number in range(40):
        name = f"d/{number}"
        mode, mask = rng.randrange(0o1000), rng.randrange(0o1000)
        if rng.random() < 0.3:
            oracle.set("d", random_acl(rng), DEFAULT)

        def make(side: Path, name: str = name, mode: int = mode, mask: int = mask) -> None:
            with umask(mask):
                os.close(os.open(side / name, os.O_CREAT | os.O_WRONLY, mode))

        oracle.same(make, name)
        oracle.same_state(name)
        for _ in range(rng.randrange(3)):
            if rng.random() < 0.5:
                oracle.set(name, random_acl(rng))
            else:
                changed = rng.randrange(0o10000)
                oracle.same(lambda side, name=name, mode=changed: os.chmod(side / name, mode))
                oracle.same_state(name)


def test_lists_are_enforced_alike(oracle: Oracle) -> None:
    """For the owner's class, users, groups (the caller's own and supplementary), and others."""
    callers = [
        (ANNA, GUESTS, ()),
        (BERT, STAFF, ()),
        (BERT, 1, (STAFF, GUESTS)),
        (20_000, GUESTS, ()),
        (20_000, 1, ()),
        (20_000, 1, (STAFF,)),
    ]
    lists = [
        acl(6, 4, 0, anna=6, mask=6),
        acl(6, 0, 7, anna=0, staff=6, mask=4),
        acl(0, 0, 4, bert=2, staff=4, guests=0, mask=7),
        acl(7, 7, 7, guests=0, mask=7),
    ]
    for value in lists:
        oracle.set("f", value)
        for uid, gid, groups in callers:
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):

                def attempt(side: Path, flags: int = flags, who: Any = (uid, gid, groups)) -> None:
                    with acting_as(who[0], who[1], side, who[2]):
                        os.close(os.open("f", flags))

                oracle.same(attempt, f"{value.hex()} {uid} {gid} {groups} {flags}")


def test_who_is_not_of_the_group_loses_setgid_alike(oracle: Oracle) -> None:
    for groups in ((), (STAFF,)):
        oracle.same(lambda side: os.chown(side / "f", ANNA, STAFF))
        oracle.same(lambda side: os.chmod(side / "f", 0o2755))

        def set_it(side: Path, groups: tuple[int, ...] = groups) -> None:
            with acting_as(ANNA, GUESTS, side, groups):
                os.setxattr("f", ACCESS, acl(7, 7, 0, bert=6, mask=7))

        oracle.same(set_it)
        oracle.same_state("f")


def test_only_the_owner_sets_lists(oracle: Oracle) -> None:
    def set_it(side: Path) -> None:
        with acting_as(ANNA, STAFF, side):
            os.setxattr("f", ACCESS, acl(7, 7, 7))

    oracle.same(set_it)


def test_a_list_set_on_one_mount_is_enforced_on_the_other_at_once(both: TwoViews) -> None:
    (both.a / "f").write_bytes(b"data")
    (both.a / "f").chmod(0o660)

    def allowed() -> bool:
        with acting_as(ANNA, GUESTS, both.b):
            return outcome(lambda: os.close(os.open("f", os.O_RDWR)))[0] == "ok"

    assert not allowed()
    os.setxattr(both.a / "f", ACCESS, acl(6, 6, 0, anna=6, mask=6))
    assert allowed()
    assert os.getxattr(both.b / "f", ACCESS) == acl(6, 6, 0, anna=6, mask=6)
    (both.a / "f").chmod(0o600)  # the mask
    assert not allowed()
    assert os.getxattr(both.b / "f", ACCESS) == acl(6, 6, 0, anna=6, mask=0)
    (both.a / "f").chmod(0o660)
    assert allowed()
    os.removexattr(both.a / "f", ACCESS)
    assert not allowed()
    assert os.listxattr(both.b / "f") == []


def test_a_default_list_set_on_one_mount_is_inherited_on_the_other(both: TwoViews) -> None:
    (both.a / "d").mkdir()
    assert os.listdir(both.b / "d") == []
    os.setxattr(both.a / "d", DEFAULT, acl(7, 7, 0, anna=7, mask=7))
    (both.b / "d" / "f").touch(0o666)
    assert os.getxattr(both.b / "d" / "f", ACCESS) == acl(6, 7, 0, anna=7, mask=6)
    assert os.getxattr(both.a / "d" / "f", ACCESS) == acl(6, 7, 0, anna=7, mask=6)


def test_a_mount_without_acls_refuses_them_but_keeps_what_is_there(
    both: TwoViews, here: Path
) -> None:
    (both.a / "d").mkdir()
    os.setxattr(both.a / "d", DEFAULT, acl(7, 7, 0, anna=7, mask=7))
    (here / "d" / "f").touch(0o600)
    assert os.listxattr(here / "d" / "f") == []
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(here / "d" / "f", ACCESS)
    assert os.getxattr(both.a / "d" / "f", ACCESS) == acl(6, 7, 0, anna=7, mask=0)
    (here / "d" / "f").chmod(0o640)
    assert os.getxattr(both.a / "d" / "f", ACCESS) == acl(6, 7, 0, anna=7, mask=4)


def test_the_tools(both: TwoViews, tmp_path: Path) -> None:
    for tool in ("setfacl", "getfacl"):
        if not any((Path(place) / tool).exists() for place in ("/usr/bin", "/bin")):
            pytest.skip("package acl is missing")
    tree = both.a / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "f").touch()
    run("setfacl", "-R", "-m", f"u:{ANNA}:rwX,d:g:{STAFF}:rx", tree, cwd=tmp_path)
    (tree / "sub" / "new").touch()
    listed = run("ls", "-ld", tree / "f", cwd=tmp_path)
    assert listed.split()[0].endswith("+"), listed
    before = run("getfacl", "-R", "-n", ".", cwd=tree)
    assert f"default:group:{STAFF}:r-x" in before
    run("cp", "-a", tree, both.a / "copy", cwd=tmp_path)
    assert run("getfacl", "-R", "-n", ".", cwd=both.b / "copy") == before
    run("rsync", "-aA", f"{tree}/", both.a / "synced", cwd=tmp_path)
    assert run("getfacl", "-R", "-n", ".", cwd=both.b / "synced") == before
    run("setfacl", "-R", "-b", tree, cwd=tmp_path)
    assert "default" not in run("getfacl", "-R", "-n", ".", cwd=both.b / "tree")
    (tmp_path / "saved").write_text(before)
    run("setfacl", f"--restore={tmp_path / 'saved'}", cwd=tree)
    assert run("getfacl", "-R", "-n", ".", cwd=both.b / "tree") == before
