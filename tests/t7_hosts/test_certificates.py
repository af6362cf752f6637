"""Who is believed on deployed hosts: certificates that renew themselves under load, invitations
that are good once, and strangers; and where the secrets are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.t7_hosts.cluster import (
    CLIENT,
    CREDENTIALS,
    METAD,
    METAD_SETTINGS,
    MOUNT,
    OPERATOR_TLS,
    STORES,
    Deployment,
)
from tests.t7_hosts.load import Load

LIFE_S = 30.0
LIVES = 3
DAY_S = 86_400.0
ROLES = {**dict.fromkeys(STORES, "chunkd"), CLIENT: "client"}
# Whatever it is asked for: JSON in base64 begins so, and no other output does.
INVITATION = "eyJ2ZXJzaW9u"
# One connection, of somebody who believes everybody and shows nothing.
STRANGER = """\
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
here = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
if sys.argv[3] == "tls":
    here = context.wrap_socket(here)
try:
    here.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(here.recv(4096).decode(errors="replace"))
except OSError as problem:
    print("refused:", problem)
"""


def directory(host: str) -> str:
    return f"{CREDENTIALS}/{ROLES[host]}"


def ends_s(cluster: Deployment, host: str) -> float:
    """When the certificate of a host ends."""
    shown = cluster.lab[host].ssh(f"sudo dfs ca show --json {directory(host)}/node.crt || true")
    return float(json.loads(shown)["ends_s"])


def forget(cluster: Deployment) -> None:
    """Take the certificates away, so that the next run lets these hosts join anew."""
    for host in ROLES:
        cluster.lab[host].ssh(f"sudo rm {directory(host)}/node.crt")


@pytest.fixture
def short_lived(cluster: Deployment) -> Iterator[Deployment]:
    """All certificates that metad signs live for half a minute."""
    variables = cluster.playbooks.variables
    variables["dfs_metad_settings"] = {**METAD_SETTINGS, "certificate_s": LIFE_S}
    try:
        cluster.playbooks.play("site.yml")
        yield cluster
    finally:
        variables["dfs_metad_settings"] = METAD_SETTINGS
        cluster.playbooks.play("site.yml")
        cluster.wait(
            "they live for long again",
            lambda: all(ends_s(cluster, host) - now(cluster) > DAY_S for host in ROLES),
        )


def now(cluster: Deployment) -> float:
    return float(cluster.lab[METAD].ssh("date +%s"))


def test_certificates_are_renewed_under_load(short_lived: Deployment, load: Load) -> None:
    cluster = short_lived
    before = cluster.pids()
    forget(cluster)
    played = cluster.playbooks.play("site.yml")
    assert set(played.changed()) == set(ROLES)
    first = {host: ends_s(cluster, host) for host in ROLES}
    assert all(each - now(cluster) <= LIFE_S for each in first.values())
    cluster.wait(
        "all have lived several lives",
        lambda: all(ends_s(cluster, host) > first[host] + LIVES * LIFE_S for host in ROLES),
    )
    assert cluster.pids() == before
    assert load.stop()["rounds"] > 0
    cluster.fsck()


def test_an_invitation_is_good_once(cluster: Deployment) -> None:
    invitation = cluster.dfs("ca invite client somebody")
    assert invitation.startswith(INVITATION)
    client = cluster.lab[CLIENT]
    try:
        client.ssh("dfs ca join --out /tmp/first", stdin=invitation)
        assert "client/somebody" in client.ssh("dfs ca show /tmp/first/node.crt")
        refused = client.ssh("dfs ca join --out /tmp/second 2>&1 || true", stdin=invitation)
        assert "was used already" in refused
        # A client is no operator.
        told = f"DFS_TLS=/tmp/first dfs status --url {cluster.metad} 2>&1 || true"
        assert "client somebody: cluster.status is for operator only" in client.ssh(told)
    finally:
        client.ssh("rm -rf /tmp/first /tmp/second")
        cluster.dfs("ca revoke client somebody")


@pytest.mark.parametrize("host", [METAD, STORES[0]])
def test_strangers_are_told_nothing(cluster: Deployment, host: str) -> None:
    port = 9400 if host == METAD else 9500
    client = cluster.lab[CLIENT]
    client.ssh("cat > /tmp/stranger.py", stdin=STRANGER)
    there = f"python3 /tmp/stranger.py {cluster.lab[host].address} {port}"
    assert client.ssh(f"{there} tls").startswith("refused:")
    plain = client.ssh(f"{there} plain")
    assert plain.startswith("HTTP/1.1 403") and "dfs_" not in plain


def test_who_joins_anew_tells_no_secret(cluster: Deployment) -> None:
    """Not in what Ansible prints when it is asked for all, nor in logs, arguments, environments."""
    client = cluster.lab[CLIENT]
    client.ssh(f"sudo rm {directory(CLIENT)}/node.crt")
    played = cluster.playbooks.play("mount.yml", "-vvv", "--diff")
    assert set(played.changed()) == {CLIENT}
    assert "Join with it" in played.output
    keys = [client.ssh(f"sudo cat {directory(CLIENT)}/node.key")]
    keys += [cluster.lab[METAD].ssh(f"sudo cat {OPERATOR_TLS}/node.key")]
    keys += [cluster.lab[METAD].ssh("sudo cat /etc/dfs/authority/authority.key")]
    secrets = [line for key in keys for line in key.splitlines() if "-----" not in line]
    told = [played.output]
    for host in (METAD, CLIENT):
        told.append(cluster.lab[host].ssh("sudo journalctl --no-pager -o cat"))
        processes = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        told.append(cluster.lab[host].ssh(f"sudo sh -c '{processes}' | tr '\\0' '\\n' || true"))
    for text in told:
        assert INVITATION not in text
        assert not [secret for secret in secrets if secret in text]
    client.ssh(f"touch {MOUNT}/cp/still-there || sudo touch {MOUNT}/still-there")


def test_a_revoked_host_comes_back_with_another_key(cluster: Deployment) -> None:
    client, there = cluster.lab[CLIENT], directory(CLIENT)
    before = client.ssh(f"sudo cat {there}/node.key")
    cluster.dfs(f"ca revoke client {CLIENT}")
    assert client.ssh(f"sudo touch {MOUNT}/refused 2>&1 || true") != ""
    # Nobody is invited again by a run that was for something else.
    assert cluster.playbooks.play("mount.yml").changed() == {}
    client.ssh(f"sudo rm -r {there}")
    assert set(cluster.playbooks.play("mount.yml").changed()) == {CLIENT}
    assert client.ssh(f"sudo cat {there}/node.key") != before
    told = f"sudo touch {MOUNT}/back 2>/dev/null && echo done || true"
    cluster.wait("it may write again", lambda: client.ssh(told) == "done")
    cluster.fsck()


def test_a_backup_needs_no_authority(cluster: Deployment) -> None:
    """It renews the operator's certificate first; without that it goes on with the old one."""
    metad, count = cluster.lab[METAD], "sudo ls /var/lib/dfs/backup | wc -l"
    before = int(metad.ssh(count))
    metad.ssh("sudo mv /etc/dfs/authority /etc/dfs/away")
    try:
        metad.ssh("sudo systemctl start dfs-backup")
    finally:
        metad.ssh("sudo mv /etc/dfs/away /etc/dfs/authority")
    assert int(metad.ssh(count)) == before + 1
    assert "no authority in /etc/dfs/authority" in metad.journal("dfs-backup")


def test_secrets_are_for_their_owners_only(cluster: Deployment) -> None:
    users = {"chunkd": "dfs-chunkd", "client": "dfs-mount"}
    for host, role in ROLES.items():
        there = directory(host)
        shown = cluster.lab[host].ssh(f"sudo stat -c '%a %U' {there} {there}/node.key")
        assert shown.splitlines() == [f"700 {users[role]}", f"600 {users[role]}"]
    shown = cluster.lab[METAD].ssh(
        f"sudo stat -c '%a %U' /etc/dfs/authority /etc/dfs/authority/authority.key {OPERATOR_TLS}"
        f" {OPERATOR_TLS}/node.key {CREDENTIALS}/metad {CREDENTIALS}/metad/node.key"
    )
    roots = ["700 root", "600 root"] * 2
    assert shown.splitlines() == [*roots, "700 dfs-metad", "600 dfs-metad"]


def test_a_second_run_keeps_the_keys(cluster: Deployment) -> None:
    there = f"sudo sha256sum {directory(STORES[0])}/node.key {directory(STORES[0])}/node.crt"
    before = cluster.lab[STORES[0]].ssh(there)
    assert cluster.playbooks.play("site.yml").changed() == {}
    assert cluster.lab[STORES[0]].ssh(there) == before
