"""`dfs install-mount-helper`: makes `mount -t fuse.dfs HOST:PORT DIR -o ...` work, and fstab.

mount(8) looks for /sbin/mount.TYPE and calls it as `HELPER SOURCE DIR [-sfnv] [-N NS] [-o OPTS]`.
The helper is a few lines of shell that start this very installation, by its full path, because
neither mount(8) at boot nor systemd has a PATH that would find it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dfsmount.cli.cluster import AsJson
from dfsmount.cli.output import show_json
from dfswire.errors import UsageError

HELPER = Path("/sbin/mount.fuse.dfs")
MARK = "# Written by `dfs install-mount-helper`"

_TEXT = """\
#!/bin/sh
{mark}: what mount(8) runs for the type fuse.dfs.
set -eu
source=$1
directory=$2
shift 2
options=
while getopts sfnvN:o:t: flag; do
    case $flag in
        o) options=$OPTARG ;;
        f) exit 0 ;; # "fake": everything but the mounting itself
        N) echo "mount.fuse.dfs: mount namespaces (-N) are not supported" >&2; exit 1 ;;
        s | n | v | t) ;; # tolerant, no mtab, verbose, the type: nothing to do
        *) exit 1 ;; # getopts has said why
    esac
done
exec {python} -P -m dfsmount.cli mount -o "$options" -- "$source" "$directory"
"""


def install_mount_helper(
    path: Annotated[Path, typer.Option(help="Where mount(8) looks for it.")] = HELPER,
    remove: Annotated[bool, typer.Option("--remove", help="Take it away again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let mount(8) and /etc/fstab mount the type fuse.dfs (needs root)."""
    if path.exists() and MARK not in path.read_text("utf-8", "replace"):
        raise UsageError(f"{path} is somebody else's; move it away first")
    if remove:
        path.unlink(missing_ok=True)
        if as_json:
            show_json({"path": str(path), "installed": False})
        return
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(helper_text(sys.executable))
        fresh.chmod(0o755)
        fresh.replace(path)
    except PermissionError as problem:
        raise UsageError(f"cannot write {path}: needs root") from problem
    if as_json:
        show_json({"path": str(path), "installed": True})
        return
    typer.echo(f"{path} written; now 'mount -t fuse.dfs HOST:PORT DIR' works, and in /etc/fstab:")
    typer.echo("HOST:PORT  /mnt/dfs  fuse.dfs  _netdev,allow_other  0  0")


def helper_text(python: str) -> str:
    """The helper for the installation that belongs to the interpreter `python`."""
    return _TEXT.format(mark=MARK, python=shlex.quote(python))
