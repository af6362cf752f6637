"""Each planted bug still applies to the sources, and says what it breaks; one of them is hunted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.planted import check, hunt, patches, title


@pytest.mark.parametrize("patch", patches(), ids=lambda patch: patch.stem)
def test_a_planted_bug_can_be_planted(patch: Path) -> None:
    assert check(patch) == ""
    assert title(patch).endswith(".") and not title(patch).startswith("diff")


def test_a_patch_that_does_not_apply_is_told(tmp_path: Path) -> None:
    patch = tmp_path / "stale.patch"
    patch.write_text(
        "What was changed since.\n"
        "diff --git a/metad/checks/fsck.py b/metad/checks/fsck.py\n"
        "--- a/metad/checks/fsck.py\n+++ b/metad/checks/fsck.py\n"
        "@@ -1 +1 @@\n-a line that is not there\n+another\n"
    )
    assert "does not apply" in check(patch)


def test_there_are_enough() -> None:
    assert len(patches()) >= 20


def test_a_bug_is_found() -> None:
    (patch,) = (each for each in patches() if each.stem == "acknowledge_before_fsync")
    assert hunt(patch, 50).seed is not None
