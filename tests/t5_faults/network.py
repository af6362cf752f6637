"""Hosts on one machine: network namespaces on a bridge, whose packets can be lost on purpose.

Each host has an address and an nft chain for what arrives; rules are for one direction between two
hosts.  The tests themselves are on the bridge, which nothing cuts off.  Names hold the pid of their
owner, so that `sweep` can clear up after a run that was killed.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

from tests.t5_faults.disks import run

NAMESPACES = Path("/run/netns")
OWNED = re.compile(r"dfs(\d+)n\d+(?:-.*)?")
# What is done to packets that match.
DROP = "drop"
RESET = "reject with tcp reset"
# Connections are made, and then nothing is heard: what carries data is longer than bare headers.
SWALLOW = "meta length > 60 tcp flags & (syn | fin | rst) == 0 drop"

_serial = itertools.count()


def loss(percent: int) -> str:
    """So many of a hundred packets are lost."""
    return f"numgen random mod 100 < {percent} drop"


class Network:
    """The hosts with these names.  `close` removes everything."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"dfs{os.getpid()}n{next(_serial)}"
        self._names = list(names)
        self._ruled: set[str] = set()
        self._shaped: set[str] = set()
        taken = run("ip", "-o", "-4", "addr")
        while True:
            self._net = f"10.{random.randrange(100, 250)}.{random.randrange(256)}"
            if f" {self._net}." not in taken:
                break
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        lines = [
            f"link add {self._prefix} type bridge",
            f"addr add {self._net}.1/24 dev {self._prefix}",
            f"link set {self._prefix} up",
        ]
        for number, name in enumerate(self._names):
            run("ip", "netns", "add", self.namespace(name))
            outer = f"{self._prefix}-{number}"
            lines += [
                f"link add {outer} type veth peer name eth0 netns {self.namespace(name)}",
                f"link set {outer} master {self._prefix} up",
            ]
        run("ip", "-batch", "-", stdin="\n".join(lines))
        for name in self._names:
            run(
                *("ip", "-n", self.namespace(name), "-batch", "-"),
                stdin=f"addr add {self.address(name)}/24 dev eth0\n"
                "link set eth0 up\nlink set lo up\n",
            )
            self._nft(
                name,
                "add table ip faults",
                "add chain ip faults arriving { type filter hook input priority 0; }",
            )

    def namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def address(self, name: str) -> str:
        """The address of a host."""
        return f"{self._net}.{10 + self._names.index(name)}"

    def inside(self, name: str) -> list[str]:
        """What a command begins with to run on that host.

        Not `ip netns exec`, which hides mounts made inside.
        """
        return ["nsenter", f"--net={NAMESPACES / self.namespace(name)}"]

    def _nft(self, name: str, *lines: str) -> None:
        run(*self.inside(name), "nft", "-f", "-", stdin="\n".join(lines))

    # -- faults

    def impair(self, source: str, target: str, how: str = DROP) -> None:
        """One direction: what `source` sends to `target` is treated so on arrival."""
        self._nft(
            target,
            f"add rule ip faults arriving meta l4proto tcp ip saddr {self.address(source)} {how}",
        )
        self._ruled.add(target)

    def cut(self, one: str, other: str, how: str = DROP) -> None:
        """Both directions."""
        self.impair(one, other, how)
        self.impair(other, one, how)

    def isolate(self, name: str, others: Sequence[str] | None = None) -> None:
        """A host is cut off from all others."""
        for other in self._names if others is None else others:
            if other != name:
                self.cut(name, other)

    def slow_down(self, name: str, rate: str) -> None:
        """What a host sends goes through a thin line ("1mbit")."""
        run(
            *("tc", "-n", self.namespace(name), "qdisc", "replace", "dev", "eth0", "root"),
            *("tbf", "rate", rate, "burst", "16kb", "latency", "500ms"),
        )
        self._shaped.add(name)

    def unplug(self, name: str) -> None:
        """Pull the cable of a host, on the side of the switch."""
        run("ip", "link", "set", f"{self._prefix}-{self._names.index(name)}", "down")

    def plug(self, name: str) -> None:
        """Put it in again."""
        run("ip", "link", "set", f"{self._prefix}-{self._names.index(name)}", "up")

    def heal(self) -> None:
        """Everything gets through again."""
        for name in self._ruled:
            self._nft(name, "flush chain ip faults arriving")
        for name in self._shaped:
            run("tc", "-n", self.namespace(name), "qdisc", "del", "dev", "eth0", "root")
        self._ruled.clear()
        self._shaped.clear()

    def close(self) -> None:
        for name in self._names:
            if (NAMESPACES / self.namespace(name)).exists():
                run("ip", "netns", "del", self.namespace(name))
        if Path(f"/sys/class/net/{self._prefix}").exists():
            run("ip", "link", "del", self._prefix)


def sweep() -> None:
    """Remove namespaces and bridges of runs that have ended."""
    for directory, remove in [
        (NAMESPACES, ("ip", "netns", "del")),
        (Path("/sys/class/net"), ("ip", "link", "del")),
    ]:
        for entry in directory.iterdir() if directory.is_dir() else []:
            owner = OWNED.fullmatch(entry.name)
            if owner and not Path(f"/proc/{owner[1]}").exists():
                try:
                    run(*remove, entry.name)
                except AssertionError:
                    if entry.exists():  # links go with their namespace, a little later
                        raise
