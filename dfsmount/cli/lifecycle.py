"""Bring the cluster of one directory up, and take it down again.

`dfs up` and `dfs down` are these two functions; both may be called at any time and do what is
missing.  Only processes that were started from this directory, in this boot, are ever signalled.
Mounts go first on the way down, so that what they still hold is stored while there are servers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from dfsmount.cli.launch import Launch
from dfsmount.cli.localcluster import LocalCluster, Settings, choose_ports, port_is_free
from dfsmount.cli.mounts import Mount, location, mount_at, unmount
from dfsmount.cli.processes import handle_of, read_pid_file, remember, stop, wait_end
from dfswire.errors import UsageError
from dfswire.identity import Identity

START_TIMEOUT_S = 30.0  # a daemon that checks a large directory first is still ready in a few
STOP_GRACE_S = 20.0  # for what a daemon still has to sync
UNMOUNT_TIMEOUT_S = 75.0  # a mount itself gives up storing its data after 60
CLUSTER = "local"  # in the certificates of all clusters of `dfs up`; each has its own authority
AUTHORITY_S = 3650 * 86_400.0
CERTIFICATE_S = 30 * 86_400.0  # who runs renews its own; each `dfs up` renews all
DEFAULT_NODES = 3
DEFAULT_REPLICAS = 2

Report = Callable[[str, str], None]
"""Told what happened: (subject, what)."""


def plan(
    directory: Path, nodes: int | None, replicas: int | None, *, tls: bool = False
) -> LocalCluster:
    """The cluster to bring up: the one kept there, changed as asked, or a new one.  What has TLS
    keeps it.

    Nothing is written.  Raises UsageError when the wishes cannot be.
    """
    if LocalCluster.is_at(directory):
        kept = LocalCluster.open(directory).settings
    else:
        count = nodes or DEFAULT_NODES
        first, *others = choose_ports(count + 1)
        kept = Settings(
            replicas=min(DEFAULT_REPLICAS, count), metad_port=first, chunkd_ports=others
        )
    ports = kept.chunkd_ports
    wanted = nodes or len(ports)
    if wanted < len(ports):
        raise UsageError(f"this cluster has {len(ports)} nodes; 'dfs up' only adds to them")
    ports = ports + choose_ports(wanted - len(ports), [kept.metad_port, *ports])
    settings = msgspec.structs.replace(
        kept, replicas=replicas or kept.replicas, chunkd_ports=ports, tls=tls or kept.tls
    )
    if settings.replicas > wanted:
        raise UsageError(f"{settings.replicas} replicas need as many nodes; there are {wanted}")
    cluster = LocalCluster(directory, settings)
    if settings.replicas != kept.replicas and cluster.metad.running():
        raise UsageError("replicas can only be changed while it is down: 'dfs down' first")
    runs = any(daemon.running() for daemon in cluster.daemons) or cluster.mounts()
    if settings.tls != kept.tls and runs:
        raise UsageError("TLS can only be switched on while it is down: 'dfs down' first")
    return cluster


def bring_up(cluster: LocalCluster, report: Report) -> LocalCluster:
    """Start what does not run, and wait until all of it is ready.  Raises UsageError.

    Returns the cluster as it is now: ports that somebody else has taken are replaced.
    """
    moved = _with_free_ports(cluster)
    if moved.metad.port != cluster.metad.port:
        # Everybody must learn where metad is now.
        report("metad", f"port {cluster.metad.port} is taken; moving to {moved.metad.port}")
        take_down(cluster, report)
    moved.write_files()
    if moved.settings.tls:
        give_credentials(moved)
    _start_all(moved, report)
    return moved


def give_credentials(cluster: LocalCluster, valid_s: float = CERTIFICATE_S) -> None:
    """New ones for each party, valid from now; who runs already takes them.  Raises UsageError."""
    from dfswire.credentialfiles import (  # here, as in ca.py
        AUTHORITY_CERTIFICATE,
        AUTHORITY_KEY,
        issue_credentials,
        make_authority,
    )

    authority = cluster.directory / "tls" / "authority"
    if not (authority / AUTHORITY_CERTIFICATE).exists():
        # What was interrupted before that has signed nothing.
        (authority / AUTHORITY_KEY).unlink(missing_ok=True)
        make_authority(authority, CLUSTER, AUTHORITY_S)
    parties = {
        "metad": "metad",
        "client": "client",
        "operator": "operator",
        **{daemon.name: "chunkd" for daemon in cluster.chunkds},
    }
    for party, role in parties.items():
        out = Path(cluster.tls_of(party))
        issue_credentials(authority, Identity(CLUSTER, role, party), out, valid_s)


def _with_free_ports(cluster: LocalCluster) -> LocalCluster:
    settings = cluster.settings
    lost = [
        daemon.port
        for daemon in cluster.daemons
        if not daemon.running() and not port_is_free(daemon.port)
    ]
    fresh = dict(
        zip(lost, choose_ports(len(lost), [daemon.port for daemon in cluster.daemons]), strict=True)
    )
    return LocalCluster(
        cluster.directory,
        msgspec.structs.replace(
            settings,
            metad_port=fresh.get(settings.metad_port, settings.metad_port),
            chunkd_ports=[fresh.get(port, port) for port in settings.chunkd_ports],
        ),
    )


def _start_all(cluster: LocalCluster, report: Report) -> None:
    # metad first, then all chunkds at once.
    for group in ([cluster.metad], cluster.chunkds):
        with contextlib.ExitStack() as cleanup:
            started = []
            for daemon in group:
                if daemon.running():
                    report(daemon.name, "already running")
                    continue
                launch = cleanup.enter_context(Launch(daemon.command, daemon.log))
                identity = launch.identity()
                if identity is not None:
                    remember(identity, daemon.pid_file)
                started.append((daemon, launch))
            failures = []
            for daemon, launch in started:
                reason = launch.wait_ready(START_TIMEOUT_S)
                report(daemon.name, reason or f"started on port {daemon.port}")
                if reason:
                    failures.append(f"{daemon.name} did not start: {reason}")
            if failures:
                raise UsageError("; ".join(failures))


def mount_up(cluster: LocalCluster, directory: Path, options: str, report: Report) -> Path:
    """Mount the cluster on `directory`, which is made if missing.  Raises UsageError."""
    point = location(directory)
    mount = mount_at(point)
    if mount is not None and _serves(cluster, mount):
        report(str(point), "already mounted")
        return point
    if mount is not None and mount.metad != cluster.metad_address:
        raise UsageError(f"{point} has another cluster mounted: {mount.metad}")
    if mount is not None:
        unmount(mount, dead=True)  # what a killed mount process left
    point.mkdir(parents=True, exist_ok=True)
    if tls := cluster.tls_of("client"):
        if "," in tls:
            raise UsageError(
                f"{tls}: a comma cannot stand in a mount option; use another directory"
            )
        options = ",".join(filter(None, [options, f"tls={tls}"]))
    command = mount_command(cluster.metad_address, point, options)
    with Launch(command, cluster.directory / "log" / "mount.log") as launch:
        reason = launch.wait_ready(START_TIMEOUT_S)
        identity = launch.identity(str(point))
    if reason or identity is None:
        why = reason.removeprefix("dfs mount: ") or "the mount process ended at once"
        raise UsageError(f"cannot mount: {why}")
    remember(identity, cluster.mount_pid_file(point))
    report(str(point), "mounted")
    return point


def mount_command(metad: str, point: Path, options: str) -> list[str]:
    """The command that serves a mount in the foreground."""
    command = [sys.executable, "-P", "-m", "dfsmount", metad, str(point)]
    return [*command, "-o", options] if options else command


def _serves(cluster: LocalCluster, mount: Mount) -> bool:
    return mount.metad == cluster.metad_address and any(
        identity.mount_point == str(mount.point) for _, identity in cluster.mounts()
    )


def take_down(cluster: LocalCluster, report: Report, *, force: bool = False) -> None:
    """Unmount what `mount_up` mounted, then end all daemons, metad last.

    Raises UsageError, and leaves everything running, when a mount is in use and not `force`.
    """
    for pid_file in sorted((cluster.directory / "run").glob("mount-*.pid")):
        _unmount_one(pid_file, report, force=force)
    for group in (cluster.chunkds, [cluster.metad]):
        running = [(daemon, daemon.running()) for daemon in group]
        live = [(daemon, identity) for daemon, identity in running if identity is not None]
        ends = stop(*(identity for _, identity in live), grace_s=STOP_GRACE_S)
        for (daemon, _), end in zip(live, ends, strict=True):
            report(daemon.name, end)
        for daemon in group:
            daemon.pid_file.unlink(missing_ok=True)


def _unmount_one(pid_file: Path, report: Report, *, force: bool) -> None:
    identity = read_pid_file(pid_file)
    if identity is None:
        pid_file.unlink()
        return
    point = Path(identity.mount_point)
    mount = mount_at(point)
    with handle_of(identity) as handle:
        if mount is not None:
            unmount(mount, lazy=force)
        if handle is not None and not wait_end(handle, 1.0 if force else UNMOUNT_TIMEOUT_S):
            if not force:
                raise UsageError(
                    f"{point} is unmounted, but its process {identity.pid} still stores data; "
                    "try again later, or end it with --force"
                )
            stop(identity, grace_s=STOP_GRACE_S)
    pid_file.unlink()
    report(str(point), "unmounted")
