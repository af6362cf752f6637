"""The units of systemd/, checked offline by systemd-analyze: no complaint, and little exposed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SYSTEM = Path("/usr/lib/systemd/system")
PROGRAMS = ("metad", "chunkd", "dfs")
EXPOSURE_MAX = {
    "metad.service": 1.2,
    "chunkd.service": 1.2,
    "dfsmount@srv-shared.service": 3.5,
    "dfs-backup.service": 1.2,
}
# Directives that give a service a mount namespace: the host would not see what it mounts.
NAMESPACES = {
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateIPC",
    "ProtectSystem",
    "ProtectHome",
    "ProtectProc",
    "ProcSubset",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "BindPaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "MountFlags",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with these units, systemd's own and the programs that they start."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed", pytrace=False)
        pytest.skip("systemd-analyze is not installed")
    programs = tmp_path / "opt/dfs/current/bin"
    programs.mkdir(parents=True)
    for name in PROGRAMS:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/sh", tmp_path / "bin/sh")
    shutil.copytree(SYSTEM, tmp_path / "usr/lib/systemd/system", symlinks=True)
    own = tmp_path / "etc/systemd/system"
    own.mkdir(parents=True)
    for unit in UNITS.glob("*.*"):
        if unit.suffix != ".md":
            shutil.copy(unit, own)
    return tmp_path


def analyze(root: Path, *words: str) -> str:
    """What it prints, to either stream; its status is 0 for unknown settings, too."""
    done = subprocess.run(
        ["systemd-analyze", f"--root={root}", "--no-pager", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("unit", [*EXPOSURE_MAX, "dfs.target", "dfs-backup.timer"])
def test_there_is_nothing_to_complain_of(root: Path, unit: str) -> None:
    assert analyze(root, "verify", unit) == ""


def test_a_mistake_would_be_seen(root: Path) -> None:
    unit = root / "etc/systemd/system/metad.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    assert "ProtectHouse" in analyze(root, "verify", "metad.service")


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_little_is_exposed(root: Path, unit: str) -> None:
    shown = analyze(root, "security", "--offline=true", "--json=short", unit)
    exposures = [float(each["exposure"] or 0) for each in json.loads(shown)]
    overall = analyze(root, "security", "--offline=true", unit).split("level for ")[1].split()[1]
    assert float(overall) <= EXPOSURE_MAX[unit], sorted(exposures)


def test_the_host_sees_what_is_mounted() -> None:
    lines = (UNITS / "dfsmount@.service").read_text().splitlines()
    assert not {line.partition("=")[0] for line in lines} & NAMESPACES


@pytest.mark.parametrize("unit", ["metad.service", "chunkd.service", "dfsmount@.service"])
def test_whoever_hangs_or_dies_is_started_again(unit: str) -> None:
    text = (UNITS / unit).read_text().splitlines()
    for line in ("Type=notify", "Restart=on-failure", "RestartPreventExitStatus=2"):
        assert line in text
    assert any(line.startswith("WatchdogSec=") for line in text)
