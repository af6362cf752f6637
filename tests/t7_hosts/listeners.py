"""Which ports of a host listen: as seen from another host, and as the host itself says.

From another host it is a scan of TCP ports: this file is sent there over SSH and run by that host's
own Python with an address, and ports if not all; it prints those that answer as JSON.  UDP ports
need not answer, and those on loopback cannot be reached: for these the host's kernel is asked.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

PORTS = range(1, 65536)
AT_ONCE = 64
CONNECT_S = 5.0
# Netid State Recv-Q Send-Q Local:Port Peer:Port Process
LISTENER = re.compile(r'(tcp|udp) +\S+ +\d+ +\d+ +(\S+):(\d+) +\S+ +users:\(\("([^"]+)"')


class Listener(NamedTuple):
    """A port, and the program that listens on it."""

    port: int
    protocol: str
    program: str
    address: str


def is_open(address: str, port: int) -> bool:
    """Anything but a refusal is remarkable: an error ends the scan."""
    with socket.socket() as one:
        one.settimeout(CONNECT_S)
        code = one.connect_ex((address, port))
    if code not in (0, errno.ECONNREFUSED):
        raise OSError(code, f"port {port} neither answers nor refuses")
    return code == 0


def scan(address: str, ports: Sequence[int] = PORTS) -> list[int]:
    """Those of these TCP ports that can be connected to."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda port: is_open(address, port), ports)
        return [port for port, there in zip(ports, found, strict=True) if there]


def parse(shown: str) -> set[Listener]:
    """Of `ss -H -lntup`, run by root."""
    found = set()
    for line in shown.splitlines():
        match = LISTENER.match(line)
        assert match, f"ss says: {line}"
        protocol, address, port, program = match.groups()
        # An interface may follow, as in 127.0.0.53%lo.
        address = str(
            ipaddress.ip_address(address.strip("[]").partition("%")[0].replace("*", "::"))
        )
        found.add(Listener(int(port), protocol, program, address))
    return found


if __name__ == "__main__":
    print(json.dumps(scan(sys.argv[1], [int(each) for each in sys.argv[2:]] or PORTS)))
