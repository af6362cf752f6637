"""The mount's log leaves out the one complaint of pyfuse3 that means nothing, and only that."""

from __future__ import annotations

import logging

import pytest

from dfsmount.__main__ import worth_logging


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("fuse_release(): fuse_reply_* failed with No such file or directory", False),
        ("fuse_write(): fuse_reply_* failed with No such file or directory", True),
        ("fuse_release(): fuse_reply_* failed with Bad address", True),
    ],
)
def test_an_answer_to_release_may_come_after_the_unmounting(text: str, worth: bool) -> None:
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, text, None, None)
    assert worth_logging(record) == worth
