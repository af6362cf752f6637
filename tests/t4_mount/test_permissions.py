"""Who may do what, and which mode bits go: one mount against ext4."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.t4_mount.compare import Sides
from tests.t4_mount.harness import LiveCluster, acting_as

OWNER, OTHER, GROUP, SECOND = 12_345, 12_346, 23_456, 23_457


def acting(
    sides: Sides, action: Callable[[], Any], who: tuple[int, int, tuple[int, ...]], about: object
) -> None:
    """As another user, in both directories."""

    def run(side: Path) -> Any:
        with acting_as(who[0], who[1], side, who[2]):
            return action()

    sides.same(run, (who, about))


WHO: list[tuple[int, int, tuple[int, ...]]] = [
    (OWNER, GROUP, ()),
    (OTHER, GROUP, ()),
    (OTHER, SECOND, (GROUP,)),
    (OTHER, SECOND, ()),
    (OTHER, SECOND, (SECOND, GROUP, 7)),
]


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o040, 0o004, 0o620, 0o060, 0o706, 0o777])
def test_files_and_directories_open_for_whom_their_mode_says(sides: Sides, mode: int) -> None:
    for side in (sides.mine, sides.plain):
        (side / "f").write_bytes(b"#!/bin/sh\n")
        (side / "d").mkdir()
        (side / "d" / "inside").touch()
        for name in ("f", "d"):
            os.chown(side / name, OWNER, GROUP)
            os.chmod(side / name, mode)
    for who in WHO:
        for action in (
            lambda: os.close(os.open("f", os.O_RDONLY)),
            lambda: os.close(os.open("f", os.O_WRONLY)),
            lambda: os.close(os.open("f", os.O_RDWR | os.O_TRUNC)),
            lambda: os.truncate("f", 0),
            lambda: os.access("f", os.X_OK, effective_ids=True),
            lambda: os.utime("f"),
            lambda: os.setxattr("f", "user.x", b"1"),
            lambda: os.getxattr("f", "user.none"),
            lambda: os.listdir("d"),
            lambda: os.stat("d/inside").st_size,
            lambda: os.mkdir("d/new"),
            lambda: os.rmdir("d/new"),
            lambda: os.rename("d/inside", "d/inside2"),
            lambda: os.rename("d/inside2", "d/inside"),
            lambda: os.link("d/inside", "d/linked"),
            lambda: os.unlink("d/linked"),
        ):
            acting(sides, action, who, mode)


@pytest.mark.parametrize("sticky", [0o777, 0o1777])
def test_sticky_directories_protect_what_belongs_to_others(sides: Sides, sticky: int) -> None:
    for side in (sides.mine, sides.plain):
        (side / "d").mkdir()
        for name in ("owned", "others"):
            (side / "d" / name).touch()
            (side / "d" / f"{name}.d").mkdir()
        os.chown(side / "d" / "owned", OWNER, GROUP)
        os.chown(side / "d" / "owned.d", OWNER, GROUP)
        (side / "d").chmod(sticky)
    for action in (
        lambda: os.rename("d/others", "d/x"),
        lambda: os.rename("d/owned", "d/others"),
        lambda: os.rename("d/owned", "d/x"),
        lambda: os.rmdir("d/others.d"),
        lambda: os.rmdir("d/owned.d"),
        lambda: os.unlink("d/others"),
        lambda: os.unlink("d/x"),
    ):
        acting(sides, action, (OWNER, GROUP, ()), sticky)
    sides.same(lambda side: sorted(os.listdir(side / "d")))


CALLERS: list[tuple[int, int, tuple[int, ...]]] = [
    (0, 0, ()),
    (OWNER, GROUP, ()),
    (OWNER, SECOND, ()),
    (OTHER, SECOND, ()),
]
CLEARING: list[Callable[[], Any]] = [
    lambda: Path("f").write_bytes(b"x"),
    lambda: os.truncate("f", 1),
    lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)),
    lambda: os.chown("f", -1, -1),
    lambda: os.chown("f", -1, GROUP),
    lambda: os.chown("f", -1, SECOND),
    lambda: os.chown("f", OWNER, -1),
    lambda: os.chmod("f", 0o6777),
    lambda: os.chmod("f", 0o2766),
]


@pytest.mark.parametrize("number", range(len(CLEARING)))
def test_set_uid_and_set_gid_go_when_they_must(sides: Sides, number: int) -> None:
    """setgid without group execution is no privilege.  The kernel leaves it on FUSE; on ext4 it
    goes since Linux 6.2 when the caller is not of the group, so then it is not compared."""
    for mode, who in product((0o4777, 0o2777, 0o6777, 0o2767, 0o6767), CALLERS):
        differs = mode & stat.S_ISGID and not mode & stat.S_IXGRP and who[1] not in (0, GROUP)
        for side in (sides.mine, sides.plain):
            (side / "f").write_bytes(b"program")
            os.chown(side / "f", OWNER, GROUP)
            os.chmod(side / "f", mode)
        if differs and who[0] == OTHER:
            continue
        acting(sides, CLEARING[number], who, oct(mode))
        compared = 0o5777 if differs else 0o7777
        sides.same(
            lambda side, mask=compared: oct(os.stat(side / "f").st_mode & mask),
            (number, oct(mode), who),
        )


def test_set_bits_of_directories_stay(sides: Sides) -> None:
    for side in (sides.mine, sides.plain):
        (side / "f").mkdir()
    for who in CALLERS:
        for number in (3, 4, 5, 6, 7, 8):
            for side in (sides.mine, sides.plain):
                os.chown(side / "f", OWNER, GROUP)
                os.chmod(side / "f", 0o6777)
            acting(sides, CLEARING[number], who, number)
            sides.same(lambda side: oct(os.stat(side / "f").st_mode), (number, who))


def test_who_may_chown_and_chgrp(sides: Sides) -> None:
    for side in (sides.mine, sides.plain):
        (side / "f").touch()
    for who in ((OWNER, GROUP, (SECOND,)), (OTHER, GROUP, ())):
        for action in (
            lambda: os.chown("f", OTHER, -1),
            lambda: os.chown("f", -1, SECOND),
            lambda: os.chown("f", OWNER, SECOND),
            lambda: os.chown("f", -1, 99),
            lambda: os.chown("f", -1, -1),
        ):
            for side in (sides.mine, sides.plain):
                os.chown(side / "f", OWNER, GROUP)
            acting(sides, action, who, "")
            sides.same_attributes("f")


def test_what_is_made_belongs_to_whom(sides: Sides) -> None:
    for bits in (0o777, 0o2777):
        for side in (sides.mine, sides.plain):
            os.chown(side, 0, GROUP)
            side.chmod(bits)
        for who in WHO:
            for action in (
                lambda: os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o6777)),
                lambda: os.mkdir("d", 0o6777),
                lambda: os.mkfifo("p", 0o6777),
                lambda: os.symlink("x", "l"),
            ):
                acting(sides, action, who, oct(bits))
            sides.same_attributes("f", "d", "p", "l")
            for side in (sides.mine, sides.plain):
                for name in ("f", "p", "l"):
                    (side / name).unlink()
                (side / "d").rmdir()


def test_a_program_in_use_cannot_be_written_and_one_being_written_not_run(sides: Sides) -> None:
    def busy(side: Path) -> Any:
        program = side / "sleep"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o755)
        pid = os.posix_spawn(program, ["sleep", "60"], {})
        try:
            return os.open(program, os.O_WRONLY)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def written(side: Path) -> Any:
        with (side / "sleep").open("r+b"):
            return os.posix_spawn(side / "sleep", ["sleep", "0"], {})

    assert sides.same(busy) == ("errno", "ETXTBSY")
    assert sides.same(written) == ("errno", "ETXTBSY")


def test_mounts_without_programs_devices_or_set_uid(cluster: LiveCluster, here: Path) -> None:
    """-o noexec, and what is so without options."""
    (here / "run").write_text("#!/bin/sh\n")
    (here / "run").chmod(0o755)
    os.mknod(here / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    mount = cluster.mount("noexec", "noexec,allow_other")
    try:
        there = mount.point / here.name
        with pytest.raises(PermissionError):
            os.posix_spawn(there / "run", ["run"], {})
        with pytest.raises(PermissionError):
            os.open(there / "null", os.O_RDONLY)
        flags = os.statvfs(there).f_flag
        assert flags & os.ST_NOEXEC and flags & os.ST_NODEV and flags & os.ST_NOSUID
    finally:
        cluster.unmount(mount)
