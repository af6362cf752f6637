"""Everything is stopped, or killed at once, and started again with the `dfs` command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsmount.cli.localcluster import LocalCluster
from dfsmount.cli.processes import handle_of, wait_end
from tests.t5_process.observed import run_dfs, sha256_of

COMMAND_S = 60.0
FILES = {"empty": 0, "small": 900, "medium": 300_000, "large": 9_000_000}


class Installation:
    """What a person has: a directory for the cluster, a mount point, the `dfs` command."""

    def __init__(self, directory: Path) -> None:
        self.cluster = directory / "cluster"
        self.mount = directory / "mnt"

    def dfs(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command; it must end well."""
        command = [sys.executable, "-m", "dfsmount.cli", *words, "--dir", str(self.cluster)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        assert done.returncode == 0, done.stderr or done.stdout
        return done

    def up(self) -> None:
        self.dfs("up", "--mount", str(self.mount))

    def kill_everything(self) -> None:
        """SIGKILL to all daemons and the mount."""
        local = LocalCluster.open(self.cluster)
        identities = [daemon.running() for daemon in local.daemons]
        identities += [identity for _, identity in local.mounts()]
        for identity in filter(None, identities):
            with handle_of(identity) as handle:
                os.kill(identity.pid, 9)
                assert handle is None or wait_end(handle, COMMAND_S)

    def write(self, name: str) -> dict[str, str]:
        """A directory of files, durable; their digests by path."""
        directory = self.mount / name
        directory.mkdir()
        for file, size_bytes in FILES.items():
            with (directory / file).open("wb") as opened:
                opened.write(os.urandom(size_bytes))
                opened.flush()
                os.fsync(opened.fileno())
        return {f"{name}/{file}": sha256_of(directory / file) for file in FILES}

    def check(self, digests: dict[str, str]) -> None:
        """All is there, and nothing else; metadata agrees with itself."""
        found = {
            str(path.relative_to(self.mount)): sha256_of(path)
            for path in self.mount.rglob("*")
            if path.is_file()
        }
        assert found == digests
        assert run_dfs("fsck", "--dir", str(self.cluster))[0] == 0


@pytest.fixture
def installation(_usable: None, tmp_path: Path) -> Iterator[Installation]:
    """A cluster that `dfs up` made, mounted."""
    one = Installation(tmp_path)
    try:
        one.up()
        yield one
    finally:
        run_dfs("down", "--force", "--dir", str(one.cluster))


def test_restart_of_everything(installation: Installation) -> None:
    digests = installation.write("first")
    installation.dfs("down")
    assert not any(installation.mount.iterdir())
    installation.up()
    installation.check(digests)

    digests |= installation.write("second")
    installation.kill_everything()
    installation.up()
    installation.check(digests)
    digests |= installation.write("third")
    installation.check(digests)
