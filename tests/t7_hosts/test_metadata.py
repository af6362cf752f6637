"""A backup of the metadata brought to the controller; metad's disk lost, and made again."""

from __future__ import annotations

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
