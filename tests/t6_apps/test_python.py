"""Python: a virtual environment, a wheel that pip installs into it, and compiled modules."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t6_apps.size import sized

MODULES = sized(40, 1000)


def write_wheel(directory: Path) -> Path:
    """A package of many modules and one command."""
    files = {f"parts/m{number}.py": f"value = {number}\n" for number in range(MODULES)}
    names = ", ".join(f"m{number}" for number in range(MODULES))
    files["parts/__init__.py"] = f"from parts import {names}\n"
    files["parts/__main__.py"] = "import parts\nprint(parts.m7.value)\n"
    info = "parts-1.0.dist-info"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = directory / "parts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def test_a_virtual_environment_and_pip(views: TwoViews) -> None:
    """Made on one mount, used on both; pip itself is the one of this environment."""
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=views.a)
    wheel = write_wheel(views.a)
    pip = [sys.executable, "-m", "pip", "--python", str(views.a / "env" / "bin" / "python")]
    pip += ["--disable-pip-version-check", "--no-input"]
    patience_s = sized(60, 3600)
    run(*pip, "install", "-q", "--no-index", wheel, cwd=views.a, timeout_s=patience_s)
    assert run("env/bin/python", "-m", "parts", cwd=views.a).split() == ["7"]
    assert run("env/bin/python", "-m", "parts", cwd=views.b).split() == ["7"]
    shown = run("env/bin/python", "-c", "import parts, sys; print(sys.prefix)", cwd=views.a)
    assert shown.split() == [str(views.a / "env")]
    package = next((views.a / "env").glob("lib/python3*/site-packages/parts"))
    assert len(list(package.glob("__pycache__/*.pyc"))) == MODULES + 2
    check = run(*pip, "check", cwd=views.a, timeout_s=patience_s)
    assert "No broken requirements" in check
    run(*pip, "uninstall", "-q", "-y", "parts", cwd=views.a, timeout_s=patience_s)
    assert not package.exists()


def test_modules_are_compiled_where_they_are(here: Path) -> None:
    (here / "module.py").write_text("value = 42\n")
    command = [sys.executable, "-c", "import module; print(module.value)"]
    environment = {"PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": ""}
    assert run(*command, cwd=here, env=environment).split() == ["42"]
    (compiled,) = (here / "__pycache__").glob("module.*.pyc")
    before = compiled.stat().st_mtime_ns
    assert run(*command, cwd=here, env=environment).split() == ["42"]
    assert compiled.stat().st_mtime_ns == before
    (here / "module.py").write_text("value = 1042\n")  # longer: times alone have only seconds
    assert run(*command, cwd=here, env=environment).split() == ["1042"]
