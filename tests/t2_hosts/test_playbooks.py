"""What can be said of the playbooks without a host; the rest is tests/t7_hosts."""

from __future__ import annotations

import re
from pathlib import Path

CLONE = Path(__file__).parents[2]
ANSIBLE = CLONE / "ansible"


def test_the_playbooks_install_this_release() -> None:
    settings = (ANSIBLE / "roles/settings/defaults/main.yml").read_text()
    (installed,) = re.findall(r"^dfs_version: (.*)$", settings, re.MULTILINE)
    project = (CLONE / "pyproject.toml").read_text()
    assert f'\nversion = "{installed}"\n' in project


def test_every_setting_is_explained() -> None:
    lines = (ANSIBLE / "roles/settings/defaults/main.yml").read_text().splitlines()
    settings = [at for at, line in enumerate(lines) if re.match(r"dfs_\w+:", line)]
    assert settings
    assert [lines[at] for at in settings if not lines[at - 1].startswith("#")] == []


def test_only_modules_of_ansible_core() -> None:
    for file in ANSIBLE.rglob("*.yml"):
        modules = re.findall(r"^\s+(?:- )?(\w+\.\w+\.\w+):", file.read_text(), re.MULTILINE)
        assert {each.rpartition(".")[0] for each in modules} <= {"ansible.builtin"}, file
