"""The compiled library: its layout, its warnings, and what is said when there is none."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from dfsmount.lowlevel import library
from dfsmount.lowlevel.library import LIBRARY, Call, Request, load

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "dfsmount/lowlevel/extra.c"


def flags(kind: str) -> list[str]:
    done = subprocess.run(["pkg-config", kind, "fuse3"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_it_is_built_and_both_sides_agree_on_its_structs() -> None:
    assert LIBRARY is not None, f"run scripts/setup.sh test ({library.MISSING})"
    assert LIBRARY.sizes() == (ctypes.sizeof(Request), ctypes.sizeof(Call))


def test_the_compiler_has_nothing_to_remark(tmp_path: Path) -> None:
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    subprocess.run(
        ["gcc", *strict, *flags("--cflags"), "-c", SOURCE, "-o", tmp_path / "extra.o"], check=True
    )


@pytest.mark.parametrize(("compiler", "built"), [("gcc", True), ("/bin/false", False)])
def test_installing_builds_it_where_that_is_possible(
    compiler: str, built: bool, tmp_path: Path
) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext"]
    places = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    environment = {**os.environ, "CC": compiler}
    subprocess.run([*command, *places], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert len(list(tmp_path.glob("lib/dfsmount/lowlevel/extra*.so"))) == built


def in_a_process_of_its_own(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).strip()


def test_it_can_be_switched_off() -> None:
    program = "from dfsmount.lowlevel.library import *; print(LIBRARY, MISSING)"
    assert in_a_process_of_its_own(program, DFS_LOWLEVEL="off") == "None DFS_LOWLEVEL=off is set"


def test_pyfuse3_must_not_come_first() -> None:
    problem = in_a_process_of_its_own("import pyfuse3, dfsmount.lowlevel.library")
    assert problem.endswith("dfsmount.lowlevel.library must be imported before pyfuse3")


@pytest.fixture
def without_pyfuse3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyfuse3", raising=False)
    monkeypatch.delenv("DFS_LOWLEVEL", raising=False)


def test_where_it_was_not_built_the_reason_is_given(without_pyfuse3: None, tmp_path: Path) -> None:
    found, reason = load(tmp_path)
    assert found is None
    assert "needs gcc and libfuse3-dev" in reason


def test_a_library_that_cannot_be_loaded(without_pyfuse3: None, tmp_path: Path) -> None:
    file = tmp_path / f"extra{EXTENSION_SUFFIXES[0]}"
    file.write_bytes(b"not a library")
    found, reason = load(tmp_path)
    assert found is None
    assert str(file) in reason


def test_a_library_of_another_kind(without_pyfuse3: None, tmp_path: Path) -> None:
    file = tmp_path / f"extra{EXTENSION_SUFFIXES[0]}"
    (tmp_path / "other.c").write_text("int other;\n")
    subprocess.run(["gcc", "-shared", "-o", file, tmp_path / "other.c"], check=True)
    found, reason = load(tmp_path)
    assert found is None
    assert "another library" in reason


def test_one_that_was_built_from_older_sources(
    without_pyfuse3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longer(Call):
        _fields_ = [("more", ctypes.c_uint64)]

    monkeypatch.setattr(library, "Call", Longer)
    found, reason = load(SOURCE.parent)
    assert found is None
    assert "older" in reason
