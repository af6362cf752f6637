"""A PostgreSQL server whose data directory is on a mount, and that can be treated badly.

It refuses to run as root, so it runs as the user that Debian made for it; the mount needs
`allow_other`, and the directory above the mount is closed to other users, so the server sees its
data at /mnt, in a mount namespace of its own that ends with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dfsmount.cli.localcluster import choose_ports
from tests.t4_mount.harness import eventually, run
from tests.t6_apps.programs import find_program
from tests.t6_apps.size import sized

USER = "postgres"
PATIENCE_S = sized(170, 3600)  # as long as a test may take: initdb syncs a thousand files
# Runs the words after the directory as USER, in a namespace where the directory is at /mnt.
IN_NAMESPACE = """
mount --bind "$1" /mnt && cd /mnt && shift &&
exec setpriv --reuid postgres --regid postgres --clear-groups --inh-caps=-all "$@"
"""


def as_postgres(directory: Path, *words: str) -> list[str]:
    namespace = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", IN_NAMESPACE, "sh"]
    return [*namespace, str(directory), find_program(words[0]) or words[0], *words[1:]]


class Server:
    """`directory` becomes the data directory, made by `initdb`; `log` is what the server prints."""

    def __init__(self, directory: Path, log: Path) -> None:
        self._directory = directory
        self._log = log
        self._port = choose_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def initdb(self) -> None:
        self._directory.mkdir(mode=0o700)
        shutil.chown(self._directory, USER, USER)
        words = ["initdb", "-D", "/mnt", "-U", USER, "-A", "trust", "--data-checksums"]
        self.offline(*words, "--no-instructions", "--locale=C")

    def offline(self, *words: str) -> str:
        """Run a program on the data directory while no server does."""
        return run(*as_postgres(self._directory, *words), cwd=Path("/"), timeout_s=PATIENCE_S)

    # -- starting and ending

    def start(self) -> None:
        """Start, recover if need be, and wait until it takes connections."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "on"}
        words = ["postgres", "-D", "/mnt", "-p", str(self._port)]
        words += [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                as_postgres(self._directory, *words), stdin=subprocess.DEVNULL, stderr=log
            )
        eventually(self._is_ready, PATIENCE_S)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended:\n{self.last_words()}"
        return self.client("pg_isready", "-q", check=False).returncode == 0

    def stop(self) -> None:
        """As an operator does: it writes everything out."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(PATIENCE_S)
        assert status == 0, f"the server ended with {status}:\n{self.last_words()}"
        self._process = None

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        if self._process is None:
            return
        with self._process:
            family = psutil.Process(self._process.pid)
            family.suspend()  # so that it starts no more of them
            for process in [*family.children(recursive=True), family]:
                process.kill()
        self._process = None

    def last_words(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-20:])

    # -- using it

    def _command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        own = {"PGHOST": "127.0.0.1", "PGPORT": str(self._port), "PGUSER": USER}
        environment = {**os.environ, **own, "PGDATABASE": "postgres"}
        return [find_program(words[0]) or words[0], *words[1:]], environment

    def client(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a client program to its end."""
        command, environment = self._command(*words)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}\n{self.last_words()}"
        return done

    def query(self, statement: str) -> str:
        """One value."""
        return self.client("psql", "-qtAX", "-c", statement).stdout.strip()

    @contextmanager
    def using(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A client program that runs inside of `with`."""
        command, environment = self._command(*words)
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        ) as client:
            try:
                yield client
            finally:
                client.kill()
