"""The log checker of conftest.py fails what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CONFTEST = (Path(__file__).parents[1] / "conftest.py").read_text()

CASES = """
    import logging

    log = logging.getLogger("dfs.test")

    def test_quiet():
        log.info("all is well")

    def test_surprise():
        log.warning("disk is full")

    def test_expected(expect_log):
        expect_log("disk .* full")
        log.warning("disk is full")

    def test_missing(expect_log):
        expect_log("disk is full")

    async def test_asynchronous():
        log.error("disk is full")
"""


def test_unexpected_and_missing_records_fail(
    pytester: pytest.Pytester, expect_log: Callable[[str], None]
) -> None:
    expect_log("disk is full")  # the inner tests log in this process
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(CASES)
    result = pytester.runpytest_inprocess("-rA")
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(["*unexpected log records*", "WARNING dfs.test: disk is full"])
    result.stdout.fnmatch_lines(["*expected log records did not come*"])
    result.stdout.fnmatch_lines(["PASSED*test_quiet", "PASSED*test_expected"])
