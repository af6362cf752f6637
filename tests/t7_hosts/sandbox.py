"""Runs the probes of probes.py on a host: in the sandbox of a deployed unit, and without one.

The sandbox is that of the unit as it is on the host, drop-ins included: its files are copied to
another name, and one more drop-in starts the probes instead of the daemon.  So whatever weakens the
unit shows, and what a drop-in takes away as a trial does not touch the daemon.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.t7_hosts import probes
from tests.t7_hosts.machine import Machine
from tests.t7_hosts.probes import Place

# Not in /tmp or a home directory, which sandboxes hide.
DIRECTORY = "/opt/probes"
PROGRAM = f"{DIRECTORY}/probes.py"
PLACE = f"{DIRECTORY}/place.json"
OUTPUT = f"{DIRECTORY}/output"
UNITS = "/run/systemd/system"
SHARED_MEMORY = 0x64667370  # any key that nobody else has
# A network that is for examples in documents only, so nothing else is there.
ELSEWHERE = "192.0.2.9"
ELSEWHERE_PORT = 9

CONNECT_S = 3.0
SERVE = """\
import os, signal, socket, sys
here = socket.create_server((sys.argv[1], int(sys.argv[2])))
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""

# Probe -> DONE, or what denied it.
Outcomes = dict[str, str]


def prepare(machine: Machine, peer: Machine) -> None:
    """Put the probes there, and what they need so that nothing but a sandbox denies them."""
    machine.ssh(
        f"sudo mkdir -p {DIRECTORY}; sudo install -d -m 1777 {DIRECTORY}/open; cd {DIRECTORY};"
        " sudo tee probes.py >/dev/null;"
        " sudo install -m 4755 /usr/bin/cat setuid;"
        " chmod 755 ~; echo x >~/readable; chmod 644 ~/readable;"
        " echo x >/tmp/temporary; chmod 644 /tmp/temporary;"
        # Of root: what is an operator's goes with his last session.
        f" sudo python3 -c 'import ctypes; ctypes.CDLL(None).shmget({SHARED_MEMORY}, 64, 0o1666)';"
        f" sudo ip route replace {ELSEWHERE}/32 dev eth0",
        stdin=Path(probes.__file__).read_text(),
    )
    place = Place(
        open=f"{DIRECTORY}/open",
        readable=machine.ssh("echo ~/readable"),
        temporary="/tmp/temporary",
        setuid=f"{DIRECTORY}/setuid",
        device="/dev/fuse",
        shared_memory=SHARED_MEMORY,
        own=machine.address,
        peer=peer.address,
        elsewhere=ELSEWHERE,
    )
    machine.ssh(f"sudo tee {PLACE} >/dev/null", stdin=json.dumps(place._asdict()))


def clear(machine: Machine) -> None:
    """Take it all away."""
    machine.ssh(
        f"sudo rm -rf {DIRECTORY} {UNITS}/probe-*; sudo systemctl daemon-reload;"
        f" rm ~/readable /tmp/temporary; chmod 700 ~; sudo ipcrm -M {SHARED_MEMORY};"
        f" sudo ip route del {ELSEWHERE}/32 dev eth0"
    )


def serve_elsewhere(machine: Machine) -> None:
    """Let a host have an address that is none of the cluster's."""
    machine.ssh("cat >/tmp/elsewhere.py", stdin=SERVE)
    machine.ssh(
        f"sudo ip address add {ELSEWHERE}/32 dev eth0;"
        " sudo systemd-run --quiet --unit=elsewhere --property=Type=notify"
        f" python3 /tmp/elsewhere.py {ELSEWHERE} {ELSEWHERE_PORT}"
    )


def stop_elsewhere(machine: Machine) -> None:
    machine.ssh(f"sudo systemctl stop elsewhere; sudo ip address del {ELSEWHERE}/32 dev eth0")


def connects(machine: Machine, source: str, there: tuple[str, int]) -> bool:
    """Can it, from this address of its own?"""
    code = f"import socket; socket.create_connection({there}, {CONNECT_S}, ('{source}', 0))"
    return machine.ssh(f'python3 -c "{code}" 2>&1 || true') == ""


def outside(machine: Machine, user: str, port: int) -> Outcomes:
    """As a service without a sandbox.  (sudo has a limit for core dumps of its own.)"""
    own = f"{DIRECTORY}/{user}"
    answer: Outcomes = json.loads(
        machine.ssh(
            f"sudo install -d -o {user} {own}; sudo systemd-run --quiet --pipe --wait"
            f" --uid={user} python3 {PROGRAM} {own} {port} {PLACE}"
        )
    )
    return answer


def inside(
    machine: Machine, unit: str, own: str, port: int, weaker: Sequence[str] = ()
) -> Outcomes:
    """In the sandbox of a unit, or one `weaker` by these lines."""
    shown = machine.ssh(
        f"systemctl show --value -p FragmentPath -p DropInPaths {shlex.quote(unit)}"
    )
    fragment, _, dropins = shown.partition("\n")
    lines = [
        *("[Service]", "Type=oneshot", "Restart=no", "WatchdogSec=0", "TimeoutStartSec=60"),
        *("ExecStartPre=", "ExecStartPost=", "ExecStart="),
        f"ExecStart=/usr/bin/python3 {PROGRAM} {own} {port} {PLACE}",
        f"StandardOutput=truncate:{OUTPUT}",
        *weaker,
    ]
    probe = f"probe-{unit}"
    copies = [f"cp {fragment} {UNITS}/probe-{Path(fragment).name}"]
    copies += [
        f"cp {each} {UNITS}/{probe}.d/{at:02}-{Path(each).name}"
        for at, each in enumerate(dropins.split())
    ]
    shell = " && ".join(
        [
            f"rm -rf {UNITS}/probe-* && mkdir -p {UNITS}/{probe}.d",
            *copies,
            f"cat >{UNITS}/{probe}.d/zz-probe.conf",
            f"systemctl daemon-reload && systemctl start {probe} && cat {OUTPUT}",
        ]
    )
    answer: Outcomes = json.loads(
        machine.ssh(f"sudo sh -c {shlex.quote(shell)}", stdin="\n".join(lines) + "\n")
    )
    return answer
