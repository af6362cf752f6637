"""Log lines, for people and for programs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from dfswire.daemon import REQUEST_ID
from dfswire.errors import UsageError
from dfswire.logs import setup_logging


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The root logger is ours for a while, within a request."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    token = REQUEST_ID.set("abc-1")
    logger.handlers = []  # or basicConfig(force=True) would close pytest's own
    yield
    REQUEST_ID.reset(token)
    logger.handlers, logger.level = handlers, level


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "text")
    logging.getLogger("dfs.test").info("hello")
    logging.getLogger("dfs.test").debug("too much")
    stamp, _, rest = capsys.readouterr().err.partition(" INFO ")
    assert rest == "dfs.test [abc-1] hello\n"
    assert stamp


def test_journald_stamps_the_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    setup_logging("info", "text")
    logging.getLogger("dfs.test").info("hello")
    assert capsys.readouterr().err == "INFO dfs.test [abc-1] hello\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("debug", "json", "chunkd")
    logging.getLogger("dfs.test").debug("a %s\nof two lines", '"message" \udcff')
    try:
        raise ValueError("told to")
    except ValueError:
        logging.getLogger("dfs.test").exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert list(first) == ["time", "level", "service", "pid", "logger", "request", "message"]
    assert first["level"] == "DEBUG"
    assert (first["service"], first["request"]) == ("chunkd", "abc-1")
    assert first["message"] == 'a "message" \udcff\nof two lines'
    assert first["time"].endswith("Z")
    assert second["exception"].startswith("Traceback")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_auto(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    setup_logging()
    logging.getLogger("dfs.test").info("hello")
    assert capsys.readouterr().err.startswith("{") != is_terminal


@pytest.mark.parametrize(("level", "log_format"), [("LOUD", "text"), ("info", "xml")])
def test_unknown_words(level: str, log_format: str) -> None:
    with pytest.raises(UsageError, match="one of"):
        setup_logging(level, log_format)
