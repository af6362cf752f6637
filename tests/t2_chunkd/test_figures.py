"""What psutil says, in heartbeats."""

from __future__ import annotations

import ipaddress
import socket

import psutil
import pytest

from chunkd import figures
from chunkd.figures import host_figures


def test_the_figures_of_this_host() -> None:
    host_figures()
    figures = host_figures()
    assert figures.hostname == socket.gethostname()
    assert figures.cpu_count >= 1
    assert 0 < figures.memory_available_bytes <= figures.memory_total_bytes
    for address in figures.addresses:
        assert address.interface != "lo"
        for ip in address.ip:
            ipaddress.ip_address(ip.partition("%")[0])


def test_traffic_of_network_and_disks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures.host_figures()
    assert found.network_received_bytes >= 0
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    assert figures.host_figures().disk_written_bytes == 0
