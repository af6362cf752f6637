"""Ansible against test hosts, as the operator runs it: over SSH, with host keys checked.

The inventory is a file that the tests write.  A playbook's output is kept, and its last lines tell
what each host says: how many tasks changed something, failed, or could not reach it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.t7_hosts.archives import CLONE
from tests.t7_hosts.baseroot import OPERATOR
from tests.t7_hosts.lab import Lab

ANSIBLE = CLONE / "ansible"
PROGRAM = CLONE / ".venv-ansible/bin/ansible-playbook"
PLAYBOOK_S = 900.0
RECAP = re.compile(r"^(\S+) +: (ok=\d+ .*)$", re.MULTILINE)

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    """How a playbook ended, what it printed, and its counts for each host."""

    status: int
    output: str
    counts: Mapping[str, Mapping[str, int]]

    def changed(self) -> dict[str, int]:
        """The hosts on which something was changed."""
        return {host: each["changed"] for host, each in self.counts.items() if each["changed"]}


@dataclass
class Playbooks:
    """Runs playbooks in a lab.  `groups` is group -> host -> variables, `variables` are for all."""

    lab: Lab
    groups: dict[str, dict[str, Variables]]
    variables: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    def run(
        self, playbook: str, *words: str, extra: Variables | None = None, anew: bool = False
    ) -> Played:
        """Whatever becomes of it.  `anew`: not over a connection that an earlier run has left."""
        self.runs += 1
        inventory = self.lab.directory / "inventory.json"
        inventory.write_text(json.dumps(self._inventory()))
        command = [str(PROGRAM), "-i", str(inventory), str(ANSIBLE / playbook), *words]
        if extra:
            command += ["--extra-vars", json.dumps(dict(extra))]
        access = self.lab.access
        done = subprocess.run(
            command,
            cwd=self.lab.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAYBOOK_S,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.lab.directory / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PRIVATE_KEY_FILE": str(access.key),
                "ANSIBLE_SSH_ARGS": " ".join(
                    [
                        "-F none",
                        "-o ControlPath=none" if anew else "-o ControlMaster=auto",
                        "-o ControlPersist=15s",
                        *("-o StrictHostKeyChecking=yes",),
                        *(f"-o UserKnownHostsFile={access.known_hosts}",),
                    ]
                ),
            },
        )
        log = self.lab.directory / f"{self.runs:02}-{playbook}.log"
        log.write_text(f"{' '.join(command)}\n{done.stdout}")
        counts = {
            host: {name: int(value) for name, value in (word.split("=") for word in rest.split())}
            for host, rest in RECAP.findall(done.stdout.partition("PLAY RECAP")[2])
        }
        return Played(done.returncode, done.stdout, counts)

    def play(self, playbook: str, *words: str, extra: Variables | None = None) -> Played:
        """It must succeed."""
        played = self.run(playbook, *words, extra=extra)
        assert played.status == 0, played.output[-6000:]
        return played

    def _inventory(self) -> dict[str, Any]:
        return {
            "all": {
                "vars": {"ansible_user": OPERATOR, **self.variables},
                "children": {
                    group: {
                        "hosts": {
                            name: {"ansible_host": self.lab[name].address, **variables}
                            for name, variables in hosts.items()
                        }
                    }
                    for group, hosts in self.groups.items()
                },
            }
        }
