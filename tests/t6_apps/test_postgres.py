"""PostgreSQL: every promise of fsync, rename and write order, called in by killing it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.t4_mount.harness import LiveCluster, LiveMount
from tests.t6_apps.postgres import Server
from tests.t6_apps.size import NIGHTLY, sized

pytestmark = pytest.mark.needs("initdb", "pgbench", "pg_amcheck", "setpriv")

SCALE = sized(1, 20)
SECONDS = sized(3, 300)
KILLS = sized(1, 20)
ACKNOWLEDGED = sized(20, 500)  # transactions before each kill


@pytest.fixture(scope="module")
def mount(cluster: LiveCluster) -> Iterator[LiveMount]:
    """A mount of its own, because it is killed."""
    mount = cluster.mount("postgres", "allow_other")
    yield mount
    mount.stop()
    cluster.mounts.remove(mount)


@pytest.fixture(scope="module")
def server(mount: LiveMount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with pgbench's tables."""
    server = Server(mount.point / "postgres", tmp_path_factory.mktemp("log") / "server.log")
    try:
        server.initdb()
        server.start()
        server.client("pgbench", "-q", "-i", "-s", str(SCALE))
        server.query("create table acknowledged (number integer primary key)")
        yield server
        server.stop()
    finally:
        server.kill()
    assert "Bad checksums:  0" in server.offline("pg_checksums", "--check", "-D", "/mnt")
    shutil.rmtree(mount.point / "postgres")


def check_sums(server: Server) -> None:
    """What pgbench moves is in four places, which a transaction changes together."""
    tables = ["accounts.abalance", "tellers.tbalance", "branches.bbalance", "history.delta"]
    sums = {
        server.query(f"select coalesce(sum({column}), 0) from pgbench_{table}")
        for table, column in (each.split(".") for each in tables)
    }
    assert len(sums) == 1, sums


def check_structure(server: Server) -> None:
    """Each row is in its indexes, and each page is what its checksum says."""
    chosen = [] if NIGHTLY else ["--table=pgbench_*"]
    server.client("pg_amcheck", "--install-missing", "--heapallindexed", *chosen, "postgres")


def test_pgbench_and_a_dump(server: Server, tmp_path: Path) -> None:
    server.client("pgbench", "-n", "-c", "4", "-T", str(SECONDS))
    check_sums(server)
    server.query("vacuum full pgbench_accounts")
    server.query("reindex table pgbench_accounts")
    check_structure(server)
    dump = tmp_path / "dump"
    server.client("pg_dump", "-Fc", "-f", str(dump), "postgres")
    server.client("pg_restore", "--clean", "-d", "postgres", str(dump))
    check_sums(server)


def test_a_sort_in_temporary_files(server: Server) -> None:
    """A sort that does not fit in memory, and a checkpoint of all of it."""
    rows = sized(200_000, 20_000_000)
    server.query(
        "set work_mem = '64kB'; create table sorted as"
        f" select md5(i::text) as word from generate_series(1, {rows}) i order by word"
    )
    server.query("checkpoint")
    assert server.query("select count(distinct word) from sorted") == str(rows)
    server.query("drop table sorted")


@pytest.mark.parametrize("victim", ["server", "mount"])
def test_what_was_committed_survives_a_kill(server: Server, mount: LiveMount, victim: str) -> None:
    for _ in range(KILLS):
        server.query("truncate acknowledged")
        with (
            server.using("pgbench", "-n", "-c", "3", "-T", "3600"),
            server.using("psql", "-qtAX") as client,
        ):
            assert client.stdin is not None
            assert client.stdout is not None
            for number in range(ACKNOWLEDGED):
                client.stdin.write(f"insert into acknowledged values ({number}) returning *;\n")
                client.stdin.flush()
                assert client.stdout.readline().strip() == str(number)
            client.stdin.write(f"insert into acknowledged values ({ACKNOWLEDGED});\n")
            client.stdin.flush()
            if victim == "mount":
                mount.kill()
            server.kill()
        if victim == "mount":
            mount.clear()
            mount.start()
        server.start()
        found = server.query("select count(*), coalesce(max(number), -1) from acknowledged")
        assert found in (f"{count}|{count - 1}" for count in (ACKNOWLEDGED, ACKNOWLEDGED + 1))
        check_sums(server)
    check_structure(server)
