"""metad's disk is lost under a mount that is in use, and the database made again on a new one."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

from dfsmount.cli.app import main
from tests.t5_process.harness import Cluster


def dfs(*arguments: str) -> tuple[int, str]:
    """Run a command; how it ended and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(arguments)
    return status, printed.getvalue()


def test_metadata_is_restored_from_the_chunkds(cluster: Cluster) -> None:
    root = cluster.mount_point
    (root / "before").write_bytes(b"before" * 20_000)
    (root / "d").mkdir()
    # Not opened by this process: whoever starts another closes its files, and that waits for metad.
    program = "import sys; f = open(sys.argv[1], 'wb', 0); f.write(b'held'); print(flush=True); "
    program += "input(); f.write(b' on'); f.close()"
    held = subprocess.Popen(
        [sys.executable, "-c", program, str(root / "d" / "held")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdin is not None and held.stdout is not None
    held.stdout.readline()

    status, text = dfs("metad", "journal", "--url", cluster.address, "--json")
    assert status == 0
    assert json.loads(text)["copies"] >= 1

    database = cluster.directory / "metad" / "metad.db"
    (root / "last").mkdir()
    cluster.kill("metad")
    assert dfs("metad", "check", str(database))[0] == 0
    for file in database.parent.glob(database.name + "*"):
        file.unlink()
    ports = cluster.local.settings.chunkd_ports
    sources = [word for port in ports for word in ("--from", f"127.0.0.1:{port}")]
    status, text = dfs("metad", "restore", *sources, "--to", f"sqlite://{database}", "--json")
    assert status == 0, text
    assert json.loads(text)["warnings"] == []
    assert dfs("metad", "check", f"sqlite://{database}")[0] == 0
    cluster.start("metad")

    held.communicate(b"go on\n", timeout=60)
    assert held.returncode == 0
    assert (root / "d" / "held").read_bytes() == b"held on"
    assert (root / "before").read_bytes() == b"before" * 20_000
    assert (root / "last").is_dir()
    (root / "after").mkdir()
    assert dfs("metad", "release", "--url", cluster.address)[0] == 0
    copy = cluster.directory / "copy.db"
    assert dfs("metad", "backup", str(copy), "--url", cluster.address)[0] == 0
    assert dfs("metad", "check", str(copy))[0] == 0
    cluster.check_fsck()
