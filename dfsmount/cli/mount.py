"""`dfs mount` and `dfs umount`: one dfs in this host's tree of directories."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from dfsmount.cli.cluster import AsJson, address_of
from dfsmount.cli.launch import Launch
from dfsmount.cli.lifecycle import START_TIMEOUT_S, UNMOUNT_TIMEOUT_S, mount_command
from dfsmount.cli.mounts import Mount, location, mount_at, mount_process, unmount
from dfsmount.cli.output import say, show_json, working
from dfsmount.cli.processes import handle_of, identity_of, wait_end
from dfswire.errors import UsageError

# Not a Path: typer would look at it, and on a mount whose metad is away that look waits for metad.
MountPoint = Annotated[str, typer.Argument(metavar="DIR")]


def mount(
    url: Annotated[str, typer.Argument(metavar="METAD_URL", help="http://HOST:PORT or HOST:PORT")],
    directory: MountPoint,
    options: Annotated[
        list[str] | None, typer.Option("-o", metavar="OPT,...", help="Mount options.")
    ] = None,
    foreground: Annotated[bool, typer.Option("-f", help="Stay, and log to the terminal.")] = False,
    log: Annotated[Path | None, typer.Option(help="Where it logs when it does not stay.")] = None,
    as_json: AsJson = False,
) -> None:
    """Mount a cluster on a directory."""
    point = location(Path(directory))
    command = mount_command(address_of(url), point, ",".join(options or []))
    if foreground:
        os.execv(command[0], command)
    where = log or default_log(point)
    with Launch(command, where) as launch, working("mounting"):
        reason = launch.wait_ready(START_TIMEOUT_S)
    if reason:
        say(reason.removeprefix("dfs mount: "))
        # Ended by a signal of ours, it counts as not reached.
        raise typer.Exit(max(launch.process.returncode, 0) or 2)
    if as_json:
        show_json({"directory": str(point), "pid": launch.process.pid, "log": str(where)})


def default_log(point: Path) -> Path:
    """Where the mount on `point` logs: below /var/log for root, in the home directory for others.

    A mount from fstab has no HOME in its environment.
    """
    name = f"mount-{str(point).strip('/').replace('/', '-')}.log"
    if os.geteuid() == 0:
        return Path("/var/log/dfs") / name
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "dfs" / name


def umount(
    directory: MountPoint,
    lazy: Annotated[
        bool, typer.Option("--lazy", "-z", help="Even while in use; do not wait for its data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Unmount, and wait until everything that was written is stored."""
    found = mount_at(Path(directory)) or mount_at(Path(directory).resolve())
    if found is None:
        raise UsageError(f"{directory} is not a dfs mount")
    with working("storing what is written"):
        stored = _unmount(found, lazy=lazy)
    if as_json:
        show_json({"directory": str(found.point), "stored": stored})


def _unmount(found: Mount, *, lazy: bool) -> bool:
    """Is everything that was written stored now, as far as anybody knows?  Raises UsageError."""
    identity = identity_of(mount_process(found.point))
    with contextlib.ExitStack() as cleanup:
        # Before unmounting: afterwards the pid may soon be somebody else's.
        handle = cleanup.enter_context(handle_of(identity)) if identity else None
        unmount(found, lazy=lazy, dead=handle is None)
        if lazy:
            return False
        if handle is None:
            say(f"no process serves {found.point}; what it had not stored yet is lost")
            return False
        if not wait_end(handle, UNMOUNT_TIMEOUT_S):
            raise UsageError(
                f"{found.point} is unmounted, but its process still stores data "
                f"after {UNMOUNT_TIMEOUT_S:g} s; is the cluster reachable?"
            )
    return True
