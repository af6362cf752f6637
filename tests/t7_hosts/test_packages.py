"""Hosts that lack Debian packages: they are installed from the host's own sources, or it is said
what to do.

Without any network: the host's sources are a directory with a package that was made there from what
is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.t7_hosts.cluster import NEW, Deployment
from tests.t7_hosts.machine import Machine

PACKAGE = "fuse3"
# The installed package as a file, and a list of it as apt wants it.
REPACK = rf"""
set -e
mkdir -p /opt/packages/root/DEBIAN
cd /opt/packages
dpkg -L {PACKAGE} | while read -r path; do [ -d "$path" ] || echo "$path"; done >files
tar --create --files-from=files --absolute-names | tar --extract --directory=root \
    --transform='s,^/,,' --absolute-names
dpkg-query --status {PACKAGE} >status
awk '/^[^ ]/ {{ left_out = /^(Status|Conffiles):/ }} !left_out' status >root/DEBIAN/control
cp /var/lib/dpkg/info/{PACKAGE}.postinst root/DEBIAN/postinst
dpkg-deb --build root {PACKAGE}.deb
{{
    cat root/DEBIAN/control
    echo "Filename: ./{PACKAGE}.deb"
    echo "Size: $(stat -c %s {PACKAGE}.deb)"
    echo "SHA256: $(sha256sum {PACKAGE}.deb | cut -d' ' -f1)"
}} >Packages
dpkg --purge {PACKAGE}
cp /etc/apt/sources.list /opt/sources.list
: >/etc/apt/sources.list
"""
SOURCE = "deb [trusted=yes] file:/opt/packages ./"
INSTALLED = re.compile(r"TASK \[common : Install the Debian packages\] \**\nchanged: ")


@pytest.fixture
def lacking(cluster: Deployment) -> Iterator[Machine]:
    """A storage host to add that lacks a package, and has no source of packages."""
    machine = cluster.lab[NEW]
    machine.ssh("sudo sh", stdin=REPACK)
    cluster.playbooks.groups["chunkd"][NEW] = {}
    try:
        yield machine
    finally:
        cluster.playbooks.groups["chunkd"].pop(NEW, None)
        machine.ssh(
            "set -e;"
            f" dpkg -s {PACKAGE} >/dev/null || sudo dpkg -i /opt/packages/{PACKAGE}.deb >/dev/null;"
            " sudo mv /opt/sources.list /etc/apt/sources.list; sudo rm -r /opt/packages"
        )


def test_without_a_source_it_is_said(cluster: Deployment, lacking: Machine) -> None:
    played = cluster.playbooks.run("add-node.yml", extra={"node": NEW})
    assert played.status != 0
    assert played.changed() == {}
    said = " ".join(played.output.split())
    assert f"{NEW} lacks {PACKAGE}, and apt-get cannot install it: E: " in said
    assert f"or install them by hand: apt-get install {PACKAGE}" in said


def test_they_are_installed(cluster: Deployment, lacking: Machine) -> None:
    lacking.ssh(f"echo '{SOURCE}' | sudo tee /etc/apt/sources.list")
    checked = cluster.playbooks.run("add-node.yml", "--check", extra={"node": NEW})
    assert INSTALLED.search(checked.output), checked.output[-3000:]
    lacking.ssh(f"! dpkg -s {PACKAGE}")
    played = cluster.playbooks.play("add-node.yml", extra={"node": NEW})
    try:
        assert INSTALLED.search(played.output)
        lacking.ssh("fusermount3 --version")
        again = cluster.playbooks.play("add-node.yml", extra={"node": NEW})
        assert again.changed() == {}
    finally:
        cluster.remove(NEW)
