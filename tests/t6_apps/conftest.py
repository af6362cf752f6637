"""Applications on a cluster of their own: the fixtures of the tests on mounts, with more patience.

A test names the programs that it runs with `@needs("git")`: without them it is skipped, except in
CI, where it fails.  scripts/setup.sh installs them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.t4_mount.conftest import (
    can_mount,
    cluster,
    guard,
    here,
    mount_a,
    mount_b,
    pytest_runtest_makereport,
    views,
)
from tests.t6_apps.programs import find_program
from tests.t6_apps.size import sized

__all__ = [  # fixtures and hooks are found by their names
    "can_mount",
    "cluster",
    "guard",
    "here",
    "mount_a",
    "mount_b",
    "pytest_runtest_makereport",
    "views",
]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mount)


@pytest.fixture
def limit_s() -> float:
    """The default is patient: databases and compilers, on a machine that has other work too."""
    return float(sized(600, 24 * 3600))


@pytest.fixture(autouse=True)
def programs(request: pytest.FixtureRequest) -> None:
    """The programs that the test needs."""
    for marker in request.node.iter_markers("needs"):
        for program in marker.args:
            if find_program(program) is None:
                reason = f"{program} is not installed (scripts/setup.sh test installs it)"
                if os.environ.get("CI"):
                    pytest.fail(reason, pytrace=False)
                pytest.skip(reason)


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    """A local directory of 90 files of all kinds."""
    root = tmp_path / "source"
    for number in range(90):
        path = root / f"d{number % 10}" / f"e{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 10, 3000, 9000])))
        path.chmod(rng.choice([0o644, 0o600, 0o755]))
    (root / "large").write_bytes(rng.randbytes(6 << 20))
    (root / "link").symlink_to("d0/e0")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "large", root / "hard")
    os.setxattr(root / "large", "user.x", b"value")
    return root
