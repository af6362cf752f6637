"""Who may do what after another mount has changed owner or mode; and the privileges that go.

The kernel decides by the attributes that it remembers, for chmod, chown, utimes and sticky
directories even by those that it was told to forget.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveCluster, LiveMount, acting_as

STRANGER, GROUP = 12_345, 23_456


@pytest.fixture(scope="module")
def other_mount(cluster: LiveCluster) -> LiveMount:
    return cluster.mount("others", "allow_other,suid")


@pytest.fixture
def both(here: Path, other_mount: LiveMount) -> TwoViews:
    """One directory on two mounts that other users may use, open to everybody."""
    here.chmod(0o777)
    return TwoViews(here, other_mount.point / here.name)


def used(path: Path) -> None:
    """The kernel of this mount knows it, and has looked at its attributes."""
    os.stat(path)
    os.access(path, os.R_OK)


OWNERS_RIGHTS: list[Callable[[str], object]] = [
    lambda name: os.chmod(name, 0o600),
    lambda name: os.utime(name, ns=(1, 1)),
    lambda name: os.chown(name, -1, GROUP),
    lambda name: os.setxattr(name, "user.x", b"1"),
]


@pytest.mark.parametrize("right", OWNERS_RIGHTS)
def test_a_new_owner_has_his_rights_on_every_mount(
    both: TwoViews, right: Callable[[str], object]
) -> None:
    (both.a / "f").touch()
    used(both.b / "f")
    os.chown(both.a / "f", STRANGER, GROUP)
    with acting_as(STRANGER, GROUP, both.b):
        right("f")


@pytest.mark.parametrize("right", OWNERS_RIGHTS)
def test_an_old_owner_has_none_on_any_mount(both: TwoViews, right: Callable[[str], object]) -> None:
    (both.a / "f").touch()
    os.chown(both.a / "f", STRANGER, GROUP)
    used(both.b / "f")
    os.chown(both.a / "f", 0, 0)
    with acting_as(STRANGER, GROUP, both.b), pytest.raises(PermissionError):
        right("f")


def test_what_a_sticky_directory_protects_follows_the_owner(both: TwoViews) -> None:
    (both.a / "tmp").mkdir()
    (both.a / "tmp").chmod(0o1777)
    for name in ("given", "taken"):
        (both.a / "tmp" / name).touch()
    os.chown(both.a / "tmp" / "taken", STRANGER, GROUP)
    for name in ("given", "taken"):
        used(both.b / "tmp" / name)
    os.chown(both.a / "tmp" / "given", STRANGER, GROUP)
    os.chown(both.a / "tmp" / "taken", 0, 0)
    with acting_as(STRANGER, GROUP, both.b / "tmp"):
        os.unlink("given")
        with pytest.raises(PermissionError):
            os.unlink("taken")


def test_setgid_goes_when_others_have_changed_the_group(both: TwoViews) -> None:
    """chmod by who is not of the file's group, which another mount has just changed."""
    (both.a / "f").touch()
    os.chown(both.a / "f", STRANGER, GROUP)
    used(both.b / "f")
    os.chown(both.a / "f", STRANGER, GROUP + 1)
    with acting_as(STRANGER, GROUP, both.b):
        os.chmod("f", 0o2755)
    assert stat.S_IMODE(os.stat(both.a / "f").st_mode) == 0o755
