"""A backup of the metadata brought to the controller; metad's disk lost, and made again.

Also as it was at an earlier moment, with what was deleted and overwritten since then.  These come
before those that remove a server: a restore asks for removed ones as well.
"""

from __future__ import annotations

import re

from tests.t7_hosts.cluster import CLIENT, METAD, MOUNT, Deployment
from tests.t7_hosts.load import Load

DATABASE = "/var/lib/dfs/metad"


def test_a_backup(cluster: Deployment) -> None:
    backups = cluster.lab.directory / "backups"
    cluster.playbooks.play("backup.yml", extra={"dfs_backups": str(backups)})
    (copy,) = backups.glob("metad-*.db")
    assert copy.read_bytes().startswith(b"SQLite format 3")


def test_a_running_metad_is_not_restored(cluster: Deployment) -> None:
    before = cluster.pids()
    played = cluster.playbooks.run("restore.yml")
    assert played.status != 0
    assert "metad runs on meta1" in " ".join(played.output.split())
    assert played.changed() == {}
    assert cluster.pids() == before


def test_a_lost_database_is_made_again(cluster: Deployment, load: Load) -> None:
    client, metad = cluster.lab[CLIENT], cluster.lab[METAD]
    client.ssh(f"sudo sh -c 'head -c 3000000 /dev/urandom | tee {MOUNT}/kept >/tmp/kept; sync'")
    metad.ssh(f"sudo sh -c 'systemctl kill -s KILL metad; systemctl stop metad; rm {DATABASE}/*'")
    cluster.playbooks.play("restore.yml")
    cluster.wait_served()
    load.stop()  # it has waited meanwhile, and lost nothing
    client.ssh(f"sudo cmp /tmp/kept {MOUNT}/kept")
    cluster.fsck()
    cluster.dfs("metad release")


def test_an_earlier_moment(cluster: Deployment) -> None:
    client, metad = cluster.lab[CLIENT], cluster.lab[METAD]
    there = f"{MOUNT}/moments"
    client.ssh(
        f"sudo mkdir -m 1777 {there}; cd {there}; head -c 5000000 /dev/urandom >deleted;"
        " head -c 300000 /dev/urandom >overwritten; echo small >renamed; sync;"
        " sha256sum * >/tmp/moments"
    )
    moment = metad.ssh("sleep 0.01; date +%FT%T.%6N%:z")  # clocks of hosts are one here
    client.ssh(
        f"cd {there}; rm deleted; echo other >overwritten; mv renamed new; echo x >later; sync"
    )
    metad.ssh("sudo systemctl stop metad")
    played = cluster.playbooks.play("restore.yml", "--extra-vars", f"at='{moment}'")
    cluster.wait_served()
    assert client.ssh(f"cd {there}; ls").split() == ["deleted", "overwritten", "renamed"]
    client.ssh(f"cd {there}; sha256sum --check --strict /tmp/moments")
    cluster.fsck()
    # That was a mistake: the history that this restore has left is still there.
    (epoch,) = re.findall(r"restored up to entry .* epoch (\d+)", played.output)
    metad.ssh("sudo systemctl stop metad")
    cluster.playbooks.play("restore.yml", "--extra-vars", f"epoch={int(epoch) - 1}")
    cluster.wait_served()
    assert client.ssh(f"cd {there}; ls").split() == ["later", "new", "overwritten"]
    assert client.ssh(f"cd {there}; cat overwritten") == "other"
    cluster.fsck()
    cluster.dfs("metad release")


def test_a_moment_that_has_not_been_is_refused(cluster: Deployment) -> None:
    metad = cluster.lab[METAD]
    metad.ssh("sudo systemctl stop metad")
    before = metad.ssh(f"sudo sh -c 'cd {DATABASE}; ls; sha256sum metad.db'")
    try:
        played = cluster.playbooks.run("restore.yml", "--extra-vars", "at='2199-01-01 00:00'")
        after = metad.ssh(f"sudo sh -c 'cd {DATABASE}; ls; sha256sum metad.db'")
    finally:
        metad.ssh("sudo systemctl start metad")
    assert played.status != 0
    assert "has not been yet" in " ".join(played.output.split())
    assert after == before


def test_without_the_authority_nothing_is_restored(cluster: Deployment) -> None:
    """Another one, made by the playbook, would be trusted by none of the hosts that are there."""
    metad = cluster.lab[METAD]
    metad.ssh("sudo systemctl stop metad; sudo mv /etc/dfs/authority /etc/dfs/away")
    try:
        played = cluster.playbooks.run("restore.yml")
        metad.ssh("sudo test ! -e /etc/dfs/authority")
    finally:
        metad.ssh("sudo mv /etc/dfs/away /etc/dfs/authority; sudo systemctl start metad")
    assert played.status != 0
    assert "bring your copy of that directory to it first" in " ".join(played.output.split())
    assert played.changed() == {}
    cluster.wait_served()
