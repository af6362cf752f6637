"""A cluster of real processes under TLS: certificates of seconds, renewed while it is used, not
renewed for a while, and of strangers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dfsmount.cli.lifecycle import CLUSTER, give_credentials
from dfsmount.cli.localcluster import LocalCluster
from dfswire.certificates import describe
from dfswire.credentialfiles import issue_credentials, make_authority
from dfswire.credentials import CERTIFICATE, ENVIRONMENT, KEY
from dfswire.identity import Identity
from tests.t5_process.harness import Cluster, chosen_settings
from tests.t5_process.observed import run_dfs, sha256_of, wait_for
from tests.t5_process.programs import Worker
from tests.t5_process.wholeness import hurried

VALID_S = 9.0
RENEWED_S = 2.0
LIVES = 3
LONG_S = 3600.0
PARTIES = ("metad", "chunkd1", "chunkd2", "chunkd3", "client", "operator")


@pytest.fixture
def cluster(_usable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Mounted and whole; its certificates are good for an hour."""
    directory = tmp_path / "cluster"
    settings = msgspec.structs.replace(chosen_settings(), tls=True)
    cluster = Cluster(directory, LocalCluster(directory, settings))
    monkeypatch.setenv(ENVIRONMENT, cluster.local.operator_tls)
    try:
        cluster.write_files()
        give_credentials(cluster.local, LONG_S)
        cluster.up()
        cluster.mount(options=f"tls={cluster.local.tls_of('client')}")
        with hurried(cluster):
            cluster.wait_healthy()
            yield cluster
    finally:
        cluster.close()


def prove(cluster: Cluster) -> None:
    """All is redundant, and neither fsck nor a log complains."""
    cluster.wait_healthy()
    cluster.check_fsck()
    cluster.check_logs()


def test_renewal_under_load_fails_nothing(
    cluster: Cluster, worker: Callable[[str, Path], Worker], large_file: Path
) -> None:
    """Three lives of all certificates, and a chunkd that is killed meanwhile."""
    workers = [worker("names", cluster.mount_point), worker("files", cluster.mount_point)]
    ended = threading.Event()

    def renew() -> None:
        while not ended.is_set():
            give_credentials(cluster.local, VALID_S)
            ended.wait(RENEWED_S)
        give_credentials(cluster.local, LONG_S)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        ended.wait(VALID_S)
        cluster.kill("chunkd2")
        (cluster.mount_point / "large").write_bytes(large_file.read_bytes())
        ended.wait(VALID_S)
        cluster.start("chunkd2")
        ended.wait((LIVES - 2) * VALID_S)
    finally:
        ended.set()
        renewing.join()
    for each in workers:
        assert len(each.finish()) > 10
    prove(cluster)
    cluster.remount(options=f"tls={cluster.local.tls_of('client')}")
    assert sha256_of(cluster.mount_point / "large") == sha256_of(large_file)
    assert "was renewed" in cluster.log_text("metad")


def test_who_does_not_renew_waits_and_loses_nothing(
    cluster: Cluster, worker: Callable[[str, Path], Worker]
) -> None:
    one = worker("files", cluster.mount_point)
    one.wait_progress(5)
    client = Path(cluster.local.tls_of("client"))
    authority = cluster.directory / "tls" / "authority"
    issue_credentials(authority, Identity(CLUSTER, "client", "client"), client, VALID_S)
    # Connections that began with the hour's certificate go on; a restart ends them.
    cluster.kill("metad")
    cluster.start("metad")
    ends_s = describe((client / CERTIFICATE).read_bytes()).ends_s
    wait_for(
        lambda: "certificate has expired" in cluster.log_text("metad"), "metad refuses the mount"
    )
    assert time.time() > ends_s
    before = len(one.entries())
    give_credentials(cluster.local, LONG_S)
    assert describe((client / CERTIFICATE).read_bytes()).ends_s > ends_s
    one.wait_progress(5)
    assert len(one.finish()) > before
    prove(cluster)


def test_strangers_are_refused(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without credentials, with those of another cluster of `dfs up`, as a mount."""
    make_authority(tmp_path / "authority", CLUSTER, LONG_S)
    for role in ("operator", "client"):
        identity = Identity(CLUSTER, role, role)
        issue_credentials(tmp_path / "authority", identity, tmp_path / role, LONG_S)
    for credentials in ("", str(tmp_path / "operator"), cluster.local.tls_of("client")):
        monkeypatch.setenv(ENVIRONMENT, credentials)
        assert run_dfs("status", "--url", cluster.address)[0] == 2, credentials
    monkeypatch.setenv(ENVIRONMENT, cluster.local.operator_tls)
    assert run_dfs("status", "--url", cluster.address)[0] == 0
    point = tmp_path / "m"
    point.mkdir()
    for options, why in (
        ("", "TLS only: name your credentials"),
        (f"tls={tmp_path}/client", "no metad answers"),
        (f"tls={cluster.local.operator_tls}", "of operator operator, not of a client"),
        ("tls=relative", "not an absolute path"),
        (f"tls={tmp_path}", "no credentials"),
    ):
        capsys.readouterr()
        assert run_dfs("mount", cluster.address, str(point), "-o", options)[0] == 2
        text = capsys.readouterr().err
        assert why in text and len(text.splitlines()) == 1, (options, text)
    refusals = cluster.log_text("metad")
    assert "client client asked for cluster.status" in refusals
    assert "refused: " in refusals


def test_keys_are_not_told_to_anybody(cluster: Cluster) -> None:
    keys = [Path(cluster.local.tls_of(party), KEY).read_text() for party in PARTIES]
    secrets = [line for key in keys for line in key.splitlines() if "-----" not in line]
    told = [path.read_text() for path in (cluster.directory / "log").iterdir()]
    for name in ("metad", *cluster.chunkd_names, cluster.mount_point.name):
        for file in ("cmdline", "environ"):
            told.append(Path(f"/proc/{cluster.pid(name)}/{file}").read_text())
    assert not any(secret in text for secret in secrets for text in told)
    for party in PARTIES:
        assert Path(cluster.local.tls_of(party), KEY).stat().st_mode & 0o077 == 0
