"""What psutil says about this host, as it goes into heartbeats.

Used by the service with every heartbeat (measured: 0.1 ms).  Simulations put a constant here.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

import psutil

from dfswire.hosts import HostFigures, NetworkAddress

_IP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def host_figures() -> HostFigures:
    """CPU load is the mean since the last call."""
    memory = psutil.virtual_memory()
    network = psutil.net_io_counters()
    disks = psutil.disk_io_counters()  # None in containers that hide them
    return HostFigures(
        hostname=socket.gethostname(),
        cpu_count=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(interval=None),
        load_1m=os.getloadavg()[0],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        network_sent_bytes=network.bytes_sent,
        network_received_bytes=network.bytes_recv,
        disk_read_bytes=disks.read_bytes if disks is not None else 0,
        disk_written_bytes=disks.write_bytes if disks is not None else 0,
        addresses=_addresses(),
    )


def _addresses() -> list[NetworkAddress]:
    """IP and MAC addresses of all interfaces but loopback."""
    found = []
    for interface, addresses in sorted(psutil.net_if_addrs().items()):
        ip = [each.address for each in addresses if each.family in _IP_FAMILIES]
        mac = [each.address for each in addresses if each.family == psutil.AF_LINK]
        if interface != "lo" and (ip or mac):
            found.append(NetworkAddress(interface=interface, ip=ip, mac=mac[0] if mac else ""))
    return found


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def filesystem_of(root: Path) -> str:
    """The same text for directories of one file system, on this host as long as it is up."""
    return f"{_boot_id()}:{root.stat().st_dev}"
