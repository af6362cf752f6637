"""Who is let into a cluster of real processes: certificates that its daemons renew by themselves,
hosts that join with an invitation, and parties that are revoked and come back."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dfsmount.cli.lifecycle import give_credentials
from dfsmount.cli.localcluster import LocalCluster
from dfswire.certificates import describe
from dfswire.credentials import CERTIFICATE, ENVIRONMENT, KEY
from tests.t5_process.harness import Cluster, chosen_settings
from tests.t5_process.observed import run_dfs, sha256_of, wait_for
from tests.t5_process.programs import Worker
from tests.t5_process.wholeness import hurried

VALID_S = 9.0
LIVES = 3
LONG_S = 3600.0


@pytest.fixture
def cluster(_usable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """With TLS and short timers; nothing is started."""
    directory = tmp_path / "cluster"
    settings = msgspec.structs.replace(chosen_settings(), tls=True)
    cluster = Cluster(directory, LocalCluster(directory, settings))
    monkeypatch.setenv(ENVIRONMENT, cluster.local.operator_tls)
    try:
        cluster.write_files()
        yield cluster
    finally:
        cluster.close()


def begin(cluster: Cluster, valid_s: float) -> None:
    """Start it, with certificates that metad signs for so long, and mount it."""
    with cluster.local.metad.config.open("a") as config:
        config.write(f"certificate_s = {valid_s}\n")
    give_credentials(cluster.local, valid_s)
    cluster.up()
    cluster.mount(options=f"tls={cluster.local.tls_of('client')}")


def certificate(cluster: Cluster, party: str) -> Path:
    return Path(cluster.local.tls_of(party), CERTIFICATE)


def invitation(cluster: Cluster, role: str, name: str) -> str:
    status, text = run_dfs("ca", "invite", role, name, "--url", cluster.address)
    assert status == 0
    return text


def join(monkeypatch: pytest.MonkeyPatch, text: str, out: Path) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return run_dfs("ca", "join", "--out", str(out))[0]


def test_certificates_are_renewed_under_load(
    cluster: Cluster, worker: Callable[[str, Path], Worker], large_file: Path
) -> None:
    """Three lives of all certificates, and a chunkd that is killed meanwhile; nobody helps."""
    begin(cluster, VALID_S)
    parties = ("metad", "chunkd1", "chunkd2", "chunkd3", "client")
    ends_s = {party: describe(certificate(cluster, party).read_bytes()).ends_s for party in parties}
    keys = {party: Path(cluster.local.tls_of(party), KEY).read_bytes() for party in parties}
    with hurried(cluster):
        workers = [worker("names", cluster.mount_point), worker("files", cluster.mount_point)]
        pause = threading.Event()
        pause.wait(VALID_S)
        # At once: when its certificate has ended, nobody lets it in.
        cluster.kill("chunkd2")
        cluster.start("chunkd2")
        (cluster.mount_point / "large").write_bytes(large_file.read_bytes())
        pause.wait((LIVES - 1) * VALID_S)
        for each in workers:
            assert len(each.finish()) > 10
        for party in parties:
            found = describe(certificate(cluster, party).read_bytes())
            assert found.ends_s > ends_s[party] + VALID_S, party
            assert Path(cluster.local.tls_of(party), KEY).read_bytes() == keys[party]
        # The operator's has ended meanwhile: commands renew it only while it is good.
        assert run_dfs("status", "--url", cluster.address)[0] == 2
        give_credentials(cluster.local, LONG_S)
        cluster.wait_healthy()
        cluster.check_fsck()
        cluster.check_logs()
        assert sha256_of(cluster.mount_point / "large") == sha256_of(large_file)


def test_an_operator_renews_with_what_he_does(cluster: Cluster) -> None:
    begin(cluster, LONG_S)
    operator = certificate(cluster, "operator")
    give_credentials(cluster.local, VALID_S)
    ends_s = describe(operator.read_bytes()).ends_s
    assert run_dfs("nodes", "--url", cluster.address)[0] == 0
    assert describe(operator.read_bytes()).ends_s == ends_s
    threading.Event().wait(VALID_S * 0.7)
    assert run_dfs("nodes", "--url", cluster.address)[0] == 0
    assert describe(operator.read_bytes()).ends_s > ends_s + LONG_S / 2


def test_a_host_joins_once_with_its_invitation(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(cluster, LONG_S)
    text = invitation(cluster, "client", "desk2")
    desk = tmp_path / "desk2"
    assert join(monkeypatch, text, desk) == 0
    assert describe((desk / CERTIFICATE).read_bytes()).identity.name == "desk2"
    assert (desk / KEY).stat().st_mode & 0o777 == 0o600
    # Somebody else who has read it; and the same host, which may repeat what it has done.
    assert join(monkeypatch, text, tmp_path / "thief") == 2
    assert not (tmp_path / "thief" / CERTIFICATE).exists()
    assert join(monkeypatch, text, desk) == 0
    second = cluster.mount(tmp_path / "mnt2", options=f"tls={desk}")
    (second / "file").write_text("of desk2")
    assert (cluster.mount_point / "file").read_text() == "of desk2"
    # What is not an invitation, and one for a directory that is somebody else's.
    assert join(monkeypatch, "nonsense", tmp_path / "none") == 2
    assert join(monkeypatch, invitation(cluster, "client", "desk3"), desk) == 2
    secrets = [line for line in (desk / KEY).read_text().splitlines() if "-----" not in line]
    told = [path.read_text() for path in (cluster.directory / "log").iterdir()]
    assert not any(secret in log for secret in [*secrets, text.strip()] for log in told)
    cluster.unmount(second)
    cluster.check_fsck()
    cluster.check_logs()


def test_a_revoked_mount_is_refused_until_it_is_invited_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(cluster, LONG_S)
    (cluster.mount_point / "before").write_text("written")
    assert run_dfs("ca", "revoke", "client", "client", "--url", cluster.address)[0] == 0
    status, events = run_dfs("events", "--json", "--url", cluster.address)
    assert status == 0 and "party.revoked" in events
    with pytest.raises(PermissionError):
        (cluster.mount_point / "meanwhile").write_text("refused")
    out = Path(cluster.local.tls_of("client"))
    assert join(monkeypatch, invitation(cluster, "client", "client"), out) == 0
    wait_for(lambda: wrote(cluster.mount_point / "after"), "it may write again", timeout_s=60)
    assert (cluster.mount_point / "before").read_text() == "written"
    # Said, and not thousands of times.
    assert 0 < cluster.log_text("mnt").count("was revoked") < 100
    with hurried(cluster):
        cluster.wait_healthy()
    cluster.check_fsck()
    cluster.check_logs()


def wrote(path: Path) -> bool:
    try:
        path.write_text("again")
    except OSError:
        return False
    return True


def test_a_chunkd_does_not_speak_for_another(cluster: Cluster) -> None:
    """Whose certificate was copied from one host to the next together with the settings."""
    begin(cluster, LONG_S)
    with hurried(cluster):
        cluster.wait_healthy()
    cluster.kill("chunkd2")
    own, other = Path(cluster.local.tls_of("chunkd2")), Path(cluster.local.tls_of("chunkd1"))
    for name in (KEY, CERTIFICATE):
        shutil.copy(other / name, own / name)
    daemon = cluster.daemon("chunkd2")
    with cluster.launch(daemon.command, daemon.log) as launch:
        try:
            wait_for(
                lambda: (
                    "belongs to chunkd chunkd2, not to chunkd chunkd1"
                    in cluster.log_text("chunkd2")
                ),
                "it is refused",
            )
        finally:
            launch.process.kill()
            launch.process.wait()
