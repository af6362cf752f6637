"""For all tests: log records must be expected, mounts do not stay behind, runs can be repeated.

A record of level WARNING or above fails the test unless `expect_log(regex)` announced it; an
announced record that does not come fails it too.  Random choices come from the fixture `rng`,
seeded with DFS_SEED (printed in the header) and the test's name.
"""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from metad.storage.database import Database
from tests.noloop import without_loop

pytest_plugins = ["pytester"]  # for the test of this file

# In the environment, so that the processes of `pytest -n` have the same.
SEED = os.environ.setdefault("DFS_SEED", secrets.token_hex(4))

_expected_key = pytest.StashKey[list[str]]()
_tolerated_key = pytest.StashKey[list[str]]()

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_report_header() -> str:
    """So that a failure can be repeated."""
    return f"DFS_SEED={SEED}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Repeatable randomness of this test alone."""
    return random.Random(f"{SEED}:{request.node.nodeid}")


@pytest.fixture(autouse=True)
def reads_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What inline databases read at once must work in a thread as well; see noloop.py."""
    read_in_thread = Database.read_in_thread

    async def checked(database: Database, work: Callable[[Database], Any]) -> Any:
        def apart(snapshot: Database) -> Any:
            with without_loop():
                return work(snapshot)

        return await read_in_thread(database, apart if database.inline else work)

    monkeypatch.setattr(Database, "read_in_thread", checked)


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """expect_log(regex): a warning or error that matches must be logged in this test."""
    patterns: list[str] = request.node.stash.setdefault(_expected_key, [])
    return patterns.append


@pytest.fixture
def tolerate_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """tolerate_log(regex): such warnings may come; for tests whose faults are drawn by chance."""
    patterns: list[str] = request.node.stash.setdefault(_tolerated_key, [])
    return patterns.append


class _Collector(logging.Handler):
    """Keeps the warnings and errors of one test."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self.lines.append(text)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run the test with its log watched."""
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        result = yield
    finally:
        logging.getLogger().removeHandler(collector)
    expected = pyfuncitem.stash.get(_expected_key, [])
    allowed = expected + pyfuncitem.stash.get(_tolerated_key, [])
    surprises = [
        line for line in collector.lines if not any(re.search(each, line) for each in allowed)
    ]
    missing = [
        each for each in expected if not any(re.search(each, line) for line in collector.lines)
    ]
    if surprises:
        pytest.fail("unexpected log records:\n" + "\n".join(surprises), pytrace=False)
    if missing:
        pytest.fail(f"expected log records did not come: {missing}", pytrace=False)
    return result


def _sweep_mounts(root: Path) -> None:
    """Unmount what FUSE has mounted under `root`, the innermost first."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    points = [fields[1] for fields in lines if fields[2].startswith("fuse")]
    for point in sorted((each for each in points if each.startswith(f"{root}/")), reverse=True):
        subprocess.run(["fusermount3", "-uz", point], check=True, timeout=10)


def _is_running(run: Path) -> bool:
    """Whether the pytest process that made the directory `run` still lives."""
    try:
        pid = int((run / ".lock").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="session", autouse=True)
def sweep_mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A killed run leaves mounts, on which later commands would hang: none outlives the session.

    Runs that are still going on are left alone.
    """
    base = tmp_path_factory.getbasetemp()
    whole = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # of all processes
    for run in whole.parent.glob("pytest-[0-9]*"):
        if not _is_running(run):
            _sweep_mounts(run)
    yield
    _sweep_mounts(base)
