"""Mail: programs that append to one mbox under the locks that mail programs know, and a maildir.

A lost, torn or doubled message is what a lock that does not lock, or an append that overwrites,
looks like to a user.
"""

from __future__ import annotations

import mailbox
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t6_apps.delivery import LOCKS, text_of
from tests.t6_apps.programs import names_in, started, together
from tests.t6_apps.size import sized

WRITERS = 4
MESSAGES = sized(15, 2000)  # of each writer


def deliver_into_an_mbox(directories: Sequence[Path], locks: str) -> None:
    """Writers on all of these directories (each is the same one); every message must be there."""
    together(
        "delivery",
        [
            ("mbox", directory / "inbox", str(writer), str(MESSAGES), locks)
            for writer, directory in zip(range(WRITERS), cycle(directories), strict=False)
        ],
        timeout_s=sized(120, 7200),
    )
    for directory in directories:
        box = mailbox.mbox(directory / "inbox")
        try:
            found = sorted((message["Subject"], message.get_payload()) for message in box)
        finally:
            box.close()
        assert found == sorted(
            (f"{writer} {number}", text_of(writer, number))
            for writer in range(WRITERS)
            for number in range(MESSAGES)
        )
        assert names_in(directory) == ["inbox"]  # no lock file is left


@pytest.mark.parametrize("locks", LOCKS[1:])
def test_writers_of_one_mount_append_to_one_mbox(here: Path, locks: str) -> None:
    deliver_into_an_mbox([here], locks)


@pytest.mark.parametrize("locks", [*LOCKS, ",".join(LOCKS)])
def test_writers_of_two_mounts_append_to_one_mbox(views: TwoViews, locks: str) -> None:
    deliver_into_an_mbox([views.a, views.b], locks)


def test_a_maildir_is_filled_on_one_mount_and_emptied_on_the_other(views: TwoViews) -> None:
    """No locks at all: names that are made elsewhere, moved, and gone."""
    box = mailbox.Maildir(views.a / "box")
    command = [sys.executable, "-m", "tests.t6_apps.delivery", "maildir", str(views.a / "box")]
    with started(*command, "0", str(MESSAGES)) as writer:
        reader = mailbox.Maildir(views.b / "box", create=False)
        found: list[tuple[object, object]] = []
        while len(found) < MESSAGES:
            ended = writer.poll() is not None
            for key, message in list(reader.iteritems()):
                found.append((message["Subject"], message.get_payload()))
                reader.discard(key)
            assert not ended or len(found) == MESSAGES or len(reader), "messages are missing"
        assert writer.wait() == 0, writer.communicate()
    assert sorted(found) == sorted((f"0 {n}", text_of(0, n)) for n in range(MESSAGES))
    assert len(box) == 0
