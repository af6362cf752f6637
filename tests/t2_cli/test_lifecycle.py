"""`dfs up` and `dfs down`, with daemons that do nothing but say that they are ready."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsmount.cli import lifecycle, up
from dfsmount.cli.app import main
from dfsmount.cli.lifecycle import bring_up, mount_up, plan, take_down
from dfsmount.cli.localcluster import HOST, Daemon, LocalCluster
from dfsmount.cli.mounts import Mount
from dfsmount.cli.processes import Identity, handle_of, wait_end
from dfswire.certificates import describe
from dfswire.credentials import CERTIFICATE, Credentials
from dfswire.errors import UsageError
from dfswire.hosts import Hello

# Nobody waits for what `dfs up` starts: it is to outlive it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

READY = """
import os, signal, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""
FAILS = "print('disk on fire'); raise SystemExit(2)"


def command(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


class Story:
    """What was reported."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, subject: str, what: str) -> None:
        self.lines.append((subject, what))

    def take(self) -> dict[str, str]:
        told, self.lines = dict(self.lines), []
        return told


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story
) -> Iterator[LocalCluster]:
    """A cluster of two nodes that is not up yet; down at the end."""
    monkeypatch.setattr(Daemon, "command", property(lambda _: command(READY)))
    monkeypatch.setattr(lifecycle, "mount_command", lambda *_: command(READY))
    monkeypatch.setattr(lifecycle, "STOP_GRACE_S", 5.0)
    made = plan(tmp_path / "c", 2, None)
    yield made
    take_down(LocalCluster.open(made.directory), story, force=True)


def end(identity: Identity | None) -> None:
    assert identity is not None
    with handle_of(identity) as handle:
        assert handle is not None
        os.kill(identity.pid, signal.SIGKILL)
        assert wait_end(handle, 10)


def test_up_starts_what_is_missing_and_down_stops_it(cluster: LocalCluster, story: Story) -> None:
    bring_up(cluster, story)
    told = story.take()
    assert told["metad"] == f"started on port {cluster.metad.port}"
    assert set(told) == {"metad", "chunkd1", "chunkd2"}
    bring_up(cluster, story)
    assert set(story.take().values()) == {"already running"}
    end(cluster.chunkds[0].running())
    bring_up(cluster, story)
    told = story.take()
    assert told["chunkd1"].startswith("started")
    assert told["chunkd2"] == "already running"
    take_down(cluster, story)
    assert story.take() == {"chunkd2": "stopped", "chunkd1": "stopped", "metad": "stopped"}
    take_down(cluster, story)
    assert story.take() == {}


def test_tls_comes_while_it_is_down_and_each_call_renews(
    cluster: LocalCluster, story: Story
) -> None:
    bring_up(cluster, story)
    with pytest.raises(UsageError, match="TLS can only be switched on while it is down"):
        plan(cluster.directory, None, None, tls=True)
    end(cluster.metad.running())
    with pytest.raises(UsageError, match="TLS can only be switched on while it is down"):
        plan(cluster.directory, None, None, tls=True)  # its chunkds would go on without
    take_down(cluster, story)
    secured = bring_up(plan(cluster.directory, None, None, tls=True), story)
    parties = {"metad", "chunkd1", "chunkd2", "client", "operator"}
    assert parties | {"authority"} == {each.name for each in (secured.directory / "tls").iterdir()}

    def serial(party: str) -> int:
        return describe(Path(secured.tls_of(party), CERTIFICATE).read_bytes()).serial

    first = {party: serial(party) for party in parties}
    assert str(Credentials(Path(secured.tls_of("chunkd2"))).identity) == "chunkd chunkd2"
    bring_up(plan(cluster.directory, None, None), story)
    assert all(serial(party) != first[party] for party in parties)


def test_a_mount_is_told_where_its_credentials_are(
    cluster: LocalCluster, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def remembered(metad: str, point: Path, options: str) -> list[str]:
        told.append(options)
        return command(READY)

    monkeypatch.setattr(lifecycle, "mount_command", remembered)
    cluster.write_files()
    secured = plan(cluster.directory, None, None, tls=True)
    mount_up(secured, tmp_path / "m", "soft=5", story)
    assert told == [f"soft=5,tls={secured.directory}/tls/client"]
    other = LocalCluster(tmp_path / "a,b", secured.settings)
    with pytest.raises(UsageError, match="comma cannot stand in a mount option"):
        mount_up(other, tmp_path / "n", "", story)


def test_a_daemon_that_does_not_start(
    cluster: LocalCluster, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Daemon,
        "command",
        property(lambda daemon: command(FAILS if daemon.name == "chunkd2" else READY)),
    )
    with pytest.raises(UsageError, match=r"^chunkd2 did not start: disk on fire$"):
        bring_up(cluster, story)
    assert cluster.chunkds[0].running()
    assert cluster.chunkds[1].running() is None


def test_a_port_that_somebody_took_is_replaced(cluster: LocalCluster, story: Story) -> None:
    with socket.socket() as somebody:
        somebody.bind((HOST, cluster.chunkds[1].port))
        somebody.listen()
        moved = bring_up(cluster, story)
    assert moved.chunkds[0].port == cluster.chunkds[0].port
    assert moved.chunkds[1].port != cluster.chunkds[1].port
    assert LocalCluster.open(cluster.directory).settings == moved.settings
    assert str(moved.chunkds[1].port) in moved.chunkds[1].config.read_text()


def test_when_metad_must_move_all_others_are_told(cluster: LocalCluster, story: Story) -> None:
    bring_up(cluster, story)
    before = cluster.chunkds[0].running()
    end(cluster.metad.running())
    with socket.socket() as somebody:
        somebody.bind((HOST, cluster.metad.port))
        somebody.listen()
        moved = bring_up(cluster, story)
    assert moved.metad.port != cluster.metad.port
    after = moved.chunkds[0].running()
    assert after is not None
    assert after != before
    assert moved.metad_address in moved.chunkds[0].config.read_text()


def test_replicas_change_only_while_it_is_down(cluster: LocalCluster, story: Story) -> None:
    bring_up(cluster, story)
    with pytest.raises(UsageError, match="'dfs down' first"):
        plan(cluster.directory, None, 1)
    take_down(cluster, story)
    assert plan(cluster.directory, None, 1).settings.replicas == 1


class Kernel:
    """A list of mounts that only knows what the test did."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        self.busy = False

    def mount_at(self, point: Path) -> Mount | None:
        return next((mount for mount in self.mounts if mount.point == point), None)

    def unmount(self, mount: Mount, *, lazy: bool = False, dead: bool = False) -> None:
        if self.busy and not lazy:
            raise UsageError(f"{mount.point} is in use by vi (7)")
        self.mounts.remove(mount)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    fake = Kernel()
    monkeypatch.setattr(lifecycle, "mount_at", fake.mount_at)
    monkeypatch.setattr(lifecycle, "unmount", fake.unmount)
    return fake


def mounted(cluster: LocalCluster, kernel: Kernel, story: Story, point: Path) -> Identity:
    lifecycle.mount_up(cluster, point, "", story)
    kernel.mounts.append(Mount(cluster.metad_address, point, (0, 9)))
    ((_, identity),) = cluster.mounts()
    return identity


def test_a_mount_in_use_keeps_everything_up(
    cluster: LocalCluster, kernel: Kernel, story: Story, tmp_path: Path
) -> None:
    bring_up(cluster, story)
    point = tmp_path / "mnt"
    mounted(cluster, kernel, story, point)
    assert point.is_dir()
    lifecycle.mount_up(cluster, point, "", story)
    assert story.take()[str(point)] == "already mounted"
    kernel.busy = True
    with pytest.raises(UsageError, match="in use by vi"):
        take_down(cluster, story)
    assert all(daemon.running() for daemon in cluster.daemons)
    take_down(cluster, story, force=True)
    assert story.take()[str(point)] == "unmounted"
    assert cluster.mounts() == []
    assert kernel.mounts == []


def test_down_waits_for_the_data_of_a_mount(
    cluster: LocalCluster,
    kernel: Kernel,
    story: Story,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring_up(cluster, story)
    identity = mounted(cluster, kernel, story, tmp_path / "mnt")
    monkeypatch.setattr(lifecycle, "UNMOUNT_TIMEOUT_S", 0.05)
    with pytest.raises(UsageError, match=f"its process {identity.pid} still stores data"):
        take_down(cluster, story)
    assert all(daemon.running() for daemon in cluster.daemons)
    end(identity)
    take_down(cluster, story)
    assert story.take()[str(tmp_path / "mnt")] == "unmounted"


def test_what_a_killed_mount_left_is_replaced(
    cluster: LocalCluster, kernel: Kernel, story: Story, tmp_path: Path
) -> None:
    bring_up(cluster, story)
    point = tmp_path / "mnt"
    first = mounted(cluster, kernel, story, point)
    end(first)
    second = mounted(cluster, kernel, story, point)
    assert second != first
    assert len(kernel.mounts) == 1


def test_a_mount_of_another_cluster_is_left_alone(
    cluster: LocalCluster, kernel: Kernel, story: Story, tmp_path: Path
) -> None:
    bring_up(cluster, story)
    kernel.mounts.append(Mount("other:1", tmp_path / "mnt", (0, 9)))
    with pytest.raises(UsageError, match="another cluster mounted: other:1"):
        lifecycle.mount_up(cluster, tmp_path / "mnt", "", story)


def test_a_mount_that_fails(
    cluster: LocalCluster,
    kernel: Kernel,
    story: Story,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring_up(cluster, story)
    monkeypatch.setattr(lifecycle, "mount_command", lambda *_: command(FAILS))
    with pytest.raises(UsageError, match="cannot mount: disk on fire"):
        lifecycle.mount_up(cluster, tmp_path / "mnt", "", story)


def test_a_spoilt_pid_file_of_a_mount_is_removed(cluster: LocalCluster, story: Story) -> None:
    bring_up(cluster, story)
    spoilt = cluster.directory / "run" / "mount-x.pid"
    spoilt.write_text("")
    take_down(cluster, story)
    assert not spoilt.exists()


def test_the_command_line(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hello(address: str, call: str, _request: object) -> Hello:
        assert call == "metad.hello"
        return Hello(service="metad", protocol=1, software="1", cluster_id="c1")

    monkeypatch.setattr(up, "ask", hello)
    place = ["--dir", str(cluster.directory)]
    assert main(["up", *place, "--nodes", "1"]) == 0
    assert LocalCluster.open(cluster.directory).settings.cluster_id == "c1"
    assert 'cluster_id = "c1"' in cluster.metad.config.read_text()
    shown = capsys.readouterr().out
    assert "metad      started on port" in shown
    assert main(["up", *place, "--json"]) == 0
    assert '"url": "http://127.0.0.1:' in capsys.readouterr().out
    assert main(["down", *place]) == 0
    assert "chunkd1    stopped" in capsys.readouterr().out
    assert main(["down", *place]) == 0
    assert capsys.readouterr().out == "nothing was running\n"
