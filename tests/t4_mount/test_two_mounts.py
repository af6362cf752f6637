"""Two mounts of one cluster, kernel caches on: what is done on one is seen on the other at once.

B looks first, so that it (and its kernel) has something to forget; then A changes; then B must see
the change without waiting.  test_deaf_mount.py shows that such tests can fail.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from tests.syscalls import RENAME_EXCHANGE, rename_with_flags
from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.direct import check_metadata
from tests.t4_mount.harness import LiveCluster, eventually

MIB = 1 << 20


def test_a_new_name_is_seen_where_it_was_missed_before(views: TwoViews) -> None:
    assert not (views.b / "f").exists()
    assert os.listdir(views.b) == []
    (views.a / "f").write_bytes(b"data")
    assert (views.b / "f").read_bytes() == b"data"
    assert os.listdir(views.b) == ["f"]
    assert not (views.b / "d").exists()
    (views.a / "d").mkdir()
    assert (views.b / "d").is_dir()
    assert not (views.b / "l").is_symlink()
    (views.a / "l").symlink_to("f")
    assert (views.b / "l").read_bytes() == b"data"


def test_a_removed_name_is_gone(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"data")
    (views.a / "d").mkdir()
    assert (views.b / "f").read_bytes() == b"data"
    assert (views.b / "d").stat().st_nlink == 2
    (views.a / "f").unlink()
    (views.a / "d").rmdir()
    assert not (views.b / "f").exists()
    assert not (views.b / "d").exists()
    assert os.listdir(views.b) == []
    (views.a / "f").write_bytes(b"again")
    assert (views.b / "f").read_bytes() == b"again"


def test_a_renamed_file_is_found_under_its_new_name_only(views: TwoViews) -> None:
    (views.a / "old").write_bytes(b"data")
    (views.a / "d").mkdir()
    assert (views.b / "old").exists()
    assert not (views.b / "d" / "new").exists()
    os.rename(views.a / "old", views.a / "d" / "new")
    assert not (views.b / "old").exists()
    assert (views.b / "d" / "new").read_bytes() == b"data"


def test_a_replaced_file_shows_its_new_content(views: TwoViews) -> None:
    """How editors and package managers write."""
    (views.a / "f").write_bytes(b"old" * 10_000)
    assert (views.b / "f").read_bytes() == b"old" * 10_000
    (views.a / "f.new").write_bytes(b"new")
    os.rename(views.a / "f.new", views.a / "f")
    assert (views.b / "f").read_bytes() == b"new"


def test_exchanged_names_are_exchanged(views: TwoViews) -> None:
    (views.a / "x").write_bytes(b"X")
    (views.a / "y").write_bytes(b"Y")
    assert ((views.b / "x").read_bytes(), (views.b / "y").read_bytes()) == (b"X", b"Y")
    rename_with_flags(views.a / "x", views.a / "y", RENAME_EXCHANGE)
    assert ((views.b / "x").read_bytes(), (views.b / "y").read_bytes()) == (b"Y", b"X")


def test_a_moved_directory_takes_its_content_along(views: TwoViews) -> None:
    (views.a / "one" / "deep").mkdir(parents=True)
    (views.a / "one" / "deep" / "f").write_bytes(b"data")
    (views.a / "two").mkdir()
    assert (views.b / "one" / "deep" / "f").exists()
    os.rename(views.a / "one" / "deep", views.a / "two" / "moved")
    assert not (views.b / "one" / "deep").exists()
    assert (views.b / "two" / "moved" / "f").read_bytes() == b"data"
    assert (views.b / "two" / "moved" / "..").samefile(views.b / "two")
    assert (views.b / "one").stat().st_nlink == 2


def test_attributes_change(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"data")
    changes: tuple[Callable[[], None], ...] = (
        lambda: (views.a / "f").chmod(0o640),
        lambda: os.chown(views.a / "f", 5, 6),
        lambda: os.utime(views.a / "f", ns=(1, 2_000_000_003)),
        lambda: os.truncate(views.a / "f", 2),
        lambda: os.truncate(views.a / "f", 20_000),
        lambda: os.link(views.a / "f", views.a / "g"),
    )
    for change in changes:
        before = (views.b / "f").stat()
        change()
        after, truth = (views.b / "f").stat(), (views.a / "f").stat()
        assert after != before
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_nlink", "st_mtime_ns"):
            assert getattr(after, field) == getattr(truth, field), field


def test_a_file_closed_to_others_is_closed_at_once(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"data")
    assert os.access(views.b / "f", os.R_OK)
    (views.a / "f").chmod(0o000)
    assert (views.b / "f").stat().st_mode & 0o777 == 0


def test_xattrs_change(views: TwoViews) -> None:
    (views.a / "f").touch()
    os.setxattr(views.a / "f", "user.x", b"1")
    assert os.getxattr(views.b / "f", "user.x") == b"1"
    os.setxattr(views.a / "f", "user.x", b"2")
    assert os.getxattr(views.b / "f", "user.x") == b"2"
    os.removexattr(views.a / "f", "user.x")
    assert os.listxattr(views.b / "f") == []


def test_a_replaced_link_points_elsewhere(views: TwoViews) -> None:
    (views.a / "l").symlink_to("here")
    assert os.readlink(views.b / "l") == "here"
    (views.a / "l2").symlink_to("there")
    os.rename(views.a / "l2", views.a / "l")
    assert os.readlink(views.b / "l") == "there"


@pytest.mark.parametrize("size", [10, 300_000, 5 * MIB], ids=["inline", "chunk", "chunks"])
def test_data_is_seen_after_close_by_a_reader_that_has_the_file_open(
    views: TwoViews, size: int
) -> None:
    (views.a / "f").write_bytes(b"1" * size)
    with (views.b / "f").open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 2 * size, 0) == b"1" * size
        (views.a / "f").write_bytes(b"2" * size)
        assert os.pread(reader.fileno(), 2 * size, 0) == b"2" * size
        with (views.a / "f").open("r+b") as writer:
            writer.seek(size // 2)
            writer.write(b"3")
        assert os.pread(reader.fileno(), 1, size // 2) == b"3"
        with (views.a / "f").open("ab") as writer:
            writer.write(b"4" * size)
        assert os.fstat(reader.fileno()).st_size == 2 * size
        assert os.pread(reader.fileno(), size, size) == b"4" * size
        os.truncate(views.a / "f", 5)
        assert os.pread(reader.fileno(), size, 0) == b"22222"


def test_data_is_seen_after_fsync_without_a_close(views: TwoViews) -> None:
    with (views.a / "f").open("wb", buffering=0) as writer:
        assert (views.b / "f").read_bytes() == b""
        writer.write(b"data")
        os.fsync(writer.fileno())
        assert (views.b / "f").read_bytes() == b"data"


def test_a_mapping_is_refreshed(views: TwoViews) -> None:

    (views.a / "f").write_bytes(b"1" * 10_000)
    with (
        (views.b / "f").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
    ):
        assert mapping[5000:5003] == b"111"
        with (views.a / "f").open("r+b") as writer:
            writer.seek(5001)
            writer.write(b"2")
        assert mapping[5000:5003] == b"121"


def test_appends_by_turns_never_overwrite_each_other(views: TwoViews) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    descriptors = [os.open(view / "f", flags) for view in (views.a, views.b)]
    expected = b""
    for turn in range(20):
        line = b"%04d\n" % turn
        os.write(descriptors[turn % 2], line)
        os.fsync(descriptors[turn % 2])
        expected += line
    for descriptor in descriptors:
        os.close(descriptor)
    assert (views.a / "f").read_bytes() == expected
    assert (views.b / "f").read_bytes() == expected


def test_what_is_appended_is_seen_by_readers_on_both_sides(views: TwoViews) -> None:
    """Readers have the last page cached, and appending goes past that page."""
    (views.a / "f").write_bytes(b"start;")
    expected = b"start;"
    with (views.a / "f").open("rb") as on_a, (views.b / "f").open("rb") as on_b:
        for turn in range(30):
            for reader in (on_a, on_b):
                assert os.pread(reader.fileno(), 1 << 16, 0) == expected
            with ((views.a, views.b)[turn % 2] / "f").open("ab") as writer:
                writer.write(b"%d;" % turn * 100)
            expected += b"%d;" % turn * 100
        assert (views.a / "f").read_bytes() == (views.b / "f").read_bytes() == expected


def test_a_file_unlinked_elsewhere_lives_as_long_as_it_is_open_here(
    views: TwoViews, cluster: LiveCluster
) -> None:
    data = os.urandom(5 * MIB)
    (views.a / "f").write_bytes(data)
    eventually(lambda: check_metadata(cluster.metad).orphans == 0)
    chunks = check_metadata(cluster.metad).extents
    with (views.b / "f").open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 10, 0) == data[:10]
        (views.a / "f").unlink()
        assert not (views.b / "f").exists()
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(reader.fileno(), 10 * MIB, 0) == data
        assert os.fstat(reader.fileno()).st_nlink == 0
        assert check_metadata(cluster.metad).orphans == 1
    eventually(lambda: check_metadata(cluster.metad).orphans == 0)
    assert check_metadata(cluster.metad).extents < chunks


def test_a_file_unlinked_elsewhere_can_still_be_written(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"data")
    with (views.b / "f").open("r+b", buffering=0) as file:
        (views.a / "f").unlink()
        file.write(b"x" * 100_000)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 200_000, 0) == b"x" * 100_000


def test_a_file_replaced_elsewhere_lives_as_long_as_it_is_open_here(views: TwoViews) -> None:
    (views.a / "f").write_bytes(b"old")
    (views.a / "new").write_bytes(b"new")
    with (views.b / "f").open("rb", buffering=0) as reader:
        os.rename(views.a / "new", views.a / "f")
        assert reader.read() == b"old"
        assert (views.b / "f").read_bytes() == b"new"


def test_a_listing_follows_every_change(views: TwoViews) -> None:
    expected: set[str] = set()
    for number in range(30):
        (views.a / f"f{number}").touch()
        expected.add(f"f{number}")
        if number % 3 == 0:
            os.rename(views.a / f"f{number}", views.a / f"r{number}")
            expected ^= {f"f{number}", f"r{number}"}
        if number % 5 == 0:
            victim = min(expected)
            (views.a / victim).unlink()
            expected.remove(victim)
        with os.scandir(views.b) as entries:
            assert {entry.name for entry in entries} == expected
        for name in expected:
            assert (views.b / name).stat().st_size == 0
