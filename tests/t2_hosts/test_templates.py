"""What the playbooks write for daemons and mounts, with TLS and without, as those read it.

Ansible renders the templates on this machine, with the roles' own variables; the settings must be
ones that daemons take.  What becomes of them on hosts is tests/t7_hosts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chunkd.config import ChunkdConfig
from metad.config import MetadConfig

CLONE = Path(__file__).parents[2]
ROLES = CLONE / "ansible/roles"
PROGRAM = CLONE / ".venv-ansible/bin/ansible-playbook"
RENDER_S = 120.0
METAD, CHUNKD, MOUNT = (ROLES / role / "templates" for role in ("metad", "chunkd", "dfsmount"))
TEMPLATES = {
    "metad.toml": METAD / "metad.toml.j2",
    "metad.service.conf": METAD / "metad.service.conf.j2",
    "dfs-backup.service.conf": METAD / "dfs-backup.service.conf.j2",
    "chunkd.toml": CHUNKD / "chunkd.toml.j2",
    "mount.env": MOUNT / "mount.env.j2",
    "bare.env": MOUNT / "mount.env.j2",
}
MOUNTS = {"bare.env": {"path": "/mnt/dfs", "options": ""}}  # others have the usual options
VARIABLES = {
    "ansible_host": "10.20.0.10",
    "dfs_disks": ["/srv/dfs/disk1"],
    "ansible_connection": "local",
    "ansible_facts": {"python": {"version": {"major": 3, "minor": 11}}, "machine": "x86_64"},
}


def rendered(directory: Path, *, tls: bool) -> dict[str, str]:
    """Name of a file -> what the playbooks write into it."""
    if not PROGRAM.exists():
        pytest.skip("Ansible is not installed (scripts/setup.sh hosts)")
    tasks: list[dict[str, Any]] = [
        {
            "ansible.builtin.template": {
                "src": str(template),
                "dest": str(directory / name),
            },
            "vars": {"item": [MOUNTS.get(name, {"path": "/mnt/dfs"}), "mnt-dfs"]},
        }
        for name, template in TEMPLATES.items()
    ]
    play = {"hosts": "meta1", "gather_facts": False, "roles": ["settings"], "tasks": tasks}
    (directory / "play.json").write_text(json.dumps([play]))
    hosts = {"metad": {"hosts": {"meta1": {**VARIABLES, "dfs_tls": tls}}}}
    (directory / "hosts.json").write_text(json.dumps({"all": {"children": hosts}}))
    done = subprocess.run(
        [PROGRAM, "-i", directory / "hosts.json", directory / "play.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RENDER_S,
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "ANSIBLE_CONFIG": str(CLONE / "ansible/ansible.cfg"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_ROLES_PATH": str(ROLES),
        },
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return {name: (directory / name).read_text() for name in TEMPLATES}


def test_with_tls(tmp_path: Path) -> None:
    files = rendered(tmp_path, tls=True)
    metad = msgspec.convert(tomllib.loads(files["metad.toml"]), MetadConfig)
    chunkd = msgspec.convert(tomllib.loads(files["chunkd.toml"]), ChunkdConfig)
    assert (metad.listen, metad.tls, metad.plaintext) == (
        *("10.20.0.10:9400", "/var/lib/dfs/tls/metad"),
        False,
    )
    assert (chunkd.listen, chunkd.tls, chunkd.plaintext) == (
        *("10.20.0.10:9500", "/var/lib/dfs/tls/chunkd"),
        False,
    )
    # Where systemd puts what its LoadCredential= lines name.
    assert metad.authority == "/run/credentials/metad.service"
    for name in ("authority.crt", "authority.key"):
        assert f"\nLoadCredential={name}:/etc/dfs/authority/{name}\n" in files["metad.service.conf"]
    for name in ("authority.crt", "node.crt", "node.key"):
        line = f"\nLoadCredential={name}:/etc/dfs/operator/{name}\n"
        assert line in files["dfs-backup.service.conf"]
    # "-": a backup is made also when nothing could be renewed.
    assert "\nExecStartPre=+-/opt/dfs/current/bin/dfs ca issue " in files["dfs-backup.service.conf"]
    assert "OPTIONS=allow_other,tls=/var/lib/dfs/tls/client\n" in files["mount.env"]
    assert "OPTIONS=tls=/var/lib/dfs/tls/client\n" in files["bare.env"]


def test_without_tls(tmp_path: Path) -> None:
    files = rendered(tmp_path, tls=False)
    metad = msgspec.convert(tomllib.loads(files["metad.toml"]), MetadConfig)
    chunkd = msgspec.convert(tomllib.loads(files["chunkd.toml"]), ChunkdConfig)
    assert (metad.tls, metad.authority, metad.plaintext) == ("", "", True)
    assert (chunkd.tls, chunkd.plaintext) == ("", True)
    for name in ("metad.service.conf", "dfs-backup.service.conf"):
        assert "LoadCredential" not in files[name] and "DFS_TLS" not in files[name]
    assert "OPTIONS=allow_other\n" in files["mount.env"]
    assert "OPTIONS=\n" in files["bare.env"]
