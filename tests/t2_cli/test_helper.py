"""The helper of mount(8): what it passes on, and that nobody else's file is touched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dfsmount.cli.app import main
from dfsmount.cli.helper import helper_text


@pytest.fixture
def helper(tmp_path: Path) -> Path:
    """The helper, with an interpreter that only says how it was called."""
    path = tmp_path / "mount.fuse.dfs"
    path.write_text(helper_text("/bin/echo"))
    return path


def run(helper: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(helper), *arguments], capture_output=True, text=True)


def test_options_of_mount_become_ours(helper: Path) -> None:
    done = run(helper, "h:1", "/mnt/a b", "-s", "-n", "-o", "rw,allow_other")
    assert done.stdout == "-P -m dfsmount.cli mount -o rw,allow_other -- h:1 /mnt/a b\n"
    assert run(helper, "h:1", "/m").stdout.endswith("mount -o  -- h:1 /m\n")


def test_a_fake_mount_mounts_nothing(helper: Path) -> None:
    done = run(helper, "h:1", "/m", "-f")
    assert (done.returncode, done.stdout) == (0, "")


def test_what_it_does_not_know_it_refuses(helper: Path) -> None:
    assert run(helper, "h:1", "/m", "-x").returncode == 1
    assert "not supported" in run(helper, "h:1", "/m", "-N", "/proc/1/ns/mnt").stderr


def test_install_and_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mount.fuse.dfs"
    command = ["install-mount-helper", "--path", str(path)]
    assert main(command) == 0
    assert main(command) == 0  # again: an upgrade
    assert path.stat().st_mode & 0o777 == 0o755
    assert "_netdev" in capsys.readouterr().out
    assert main([*command, "--remove"]) == 0
    assert not path.exists()
    assert capsys.readouterr().out == ""
    for remove in ([], ["--remove"]):
        assert main([*command, *remove, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer == {"path": str(path), "installed": not remove}


def test_somebody_elses_helper_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mount.fuse.dfs"
    path.write_text("#!/bin/sh\n")
    assert main(["install-mount-helper", "--path", str(path)]) == 2
    assert main(["install-mount-helper", "--path", str(path), "--remove"]) == 2
    assert path.read_text() == "#!/bin/sh\n"
    assert "somebody else's" in capsys.readouterr().err


def test_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert main(["install-mount-helper", "--path", str(tmp_path / "x")]) == 2
    assert "needs root" in capsys.readouterr().err
