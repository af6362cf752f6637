"""What a completed change on one mount does to another that has the old state in its caches.

Every row of the promise (coherent*.py) is run twice: on ordinary mounts the change
is seen by whatever starts after it; on a mount that obeys no invalidation it is not, so each row
can fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t4_mount.coherent import NAMES, Row, Scene
from tests.t4_mount.coherent_attributes import ACCESS_LISTS, ATTRIBUTES, SIZES
from tests.t4_mount.coherent_data import DATA
from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveMount

ROWS = (*NAMES, *ATTRIBUTES, *SIZES, *DATA)
# These see the change without any invalidation, because nothing is kept that could be old.
NOTHING_KEPT = {
    "listing_grows": "each readdir asks metad; the kernel is not told to keep listings",
    "listing_shrinks": "likewise",
    "hole_found_by_seek": "each lseek with SEEK_HOLE or SEEK_DATA asks metad",
}


@pytest.mark.parametrize("prepare", ROWS, ids=lambda prepare: prepare.__name__)
def test_a_completed_change_is_seen(views: TwoViews, prepare: Callable[[Scene], Row]) -> None:
    _check_seen(prepare, Scene(views.a, views.b))


@pytest.mark.parametrize("prepare", ACCESS_LISTS, ids=lambda prepare: prepare.__name__)
def test_a_changed_access_list_is_seen(
    here: Path, acl_mounts: tuple[LiveMount, LiveMount], prepare: Callable[[Scene], Row]
) -> None:
    one, other = acl_mounts
    _check_seen(prepare, Scene(one.point / here.name, other.point / here.name))


@pytest.mark.parametrize("prepare", ROWS, ids=lambda prepare: prepare.__name__)
def test_without_invalidation_it_is_not(
    here: Path, deaf: LiveMount, prepare: Callable[[Scene], Row]
) -> None:
    _check_stale(prepare, Scene(here, deaf.point / here.name))


@pytest.mark.parametrize("prepare", ACCESS_LISTS, ids=lambda prepare: prepare.__name__)
def test_without_invalidation_the_access_list_is_the_old_one(
    here: Path,
    acl_mounts: tuple[LiveMount, LiveMount],
    deaf: LiveMount,
    prepare: Callable[[Scene], Row],
) -> None:
    _check_stale(prepare, Scene(acl_mounts[0].point / here.name, deaf.point / here.name))


def _check_seen(prepare: Callable[[Scene], Row], scene: Scene) -> None:
    with scene.cleanup:
        row = prepare(scene)
        before = _seen_twice(row)
        assert before != row.expected
        row.change()
        assert row.look() == row.expected


def _check_stale(prepare: Callable[[Scene], Row], scene: Scene) -> None:
    with scene.cleanup:
        row = prepare(scene)
        before = _seen_twice(row)
        row.change()
        assert row.look() == (row.expected if prepare.__name__ in NOTHING_KEPT else before)


def _seen_twice(row: Row) -> object:
    """What B sees, and keeps: a second look is answered by its caches if anything is."""
    before = row.look()
    assert row.look() == before
    return before
