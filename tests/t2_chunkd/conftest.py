"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from tests.t2_chunkd.lines import Line


@pytest.fixture
def line() -> Line:
    """A metad and two servers, none of which runs yet."""
    return Line()
