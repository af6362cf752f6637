"""What the documents say about the project is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dfsmount.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILES = (
    "requirements.txt",
    "requirements-test.txt",
    "requirements-build.txt",
    "requirements-ansible.txt",
)


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in requirements}


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def project() -> dict[str, object]:
    loaded: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def declared(kind: str) -> set[str]:
    """The direct dependencies in pyproject.toml, "run" or "test"."""
    table = project()
    optional = table["optional-dependencies"]
    assert isinstance(optional, dict)
    lines = table["dependencies"] if kind == "run" else optional["test"]
    assert isinstance(lines, list)
    return names_of(lines)


def locked(name: str) -> dict[str, str]:
    """Package -> version in a lock file."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [line.split(" ")[0].partition("==") for line in lines if re.match(r"\w", line)]
    return {package: version for package, _, version in pins}


@pytest.mark.parametrize(
    ("heading", "kind"), [("At run time", "run"), ("For tests and checks", "test")]
)
def test_every_dependency_is_explained(heading: str, kind: str) -> None:
    text = section((ROOT / "docs/dependencies.md").read_text(), heading)
    rows = re.findall(r"^\| ([\w-]+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert {name for name, _, _ in rows if name != "package"} == declared(kind)
    assert all(len(purpose) > 10 and len(reason) > 10 for _, purpose, reason in rows[1:])


def test_debian_packages_that_are_installed_are_explained() -> None:
    text = section((ROOT / "docs/dependencies.md").read_text(), "From Debian or Ubuntu")
    script = (ROOT / "scripts/setup.sh").read_text()
    installed = set(re.findall(r'missing="\$missing ([^"]+)"', script))
    words = {word.replace("$version", "3") for line in installed for word in line.split()}
    explained = set(re.findall(r"^\| ([\w, -]+) \|", text, re.MULTILINE)) - {"package"}
    assert words == {name for row in explained for name in row.split(", ")}


@pytest.mark.parametrize("name", LOCK_FILES)
def test_lock_files_have_hashes_and_no_hosts(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    for block in re.split(r"\n(?=\w)", text.strip()):
        assert re.match(r"[\w.-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_lock_files_hold_what_is_declared() -> None:
    run, test = locked("requirements.txt"), locked("requirements-test.txt")
    assert declared("run") <= set(run)
    assert declared("run") | declared("test") <= set(test)
    assert run.items() <= test.items()  # what is tested is what runs
    wanted = (ROOT / "requirements-build.in").read_text().splitlines()
    build = names_of([line for line in wanted if not line.startswith("#")])
    assert build <= set(locked("requirements-build.txt"))


@pytest.mark.parametrize(
    "document", sorted(path.name for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = next(path for path in (ROOT / document, ROOT / "docs" / document) if path.exists())
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        assert "://" in link or (path.parent / link).exists(), link


def test_readme_names_real_targets_and_verbs() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {str(group.name) for group in app.registered_groups}
    named = set(re.findall(r"\bdfs ([a-z][a-z-]+)(?=[ `'\]])", text))
    assert named <= {verb.replace("_", "-") for verb in verbs}
