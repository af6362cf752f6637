"""A database in use while metad and chunk servers die: no transaction is lost, halved or repeated.

SQLite takes byte-range locks for every transaction and relies on fsync and on the order of names.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.t5_process.harness import Cluster
from tests.t6_apps.programs import started
from tests.t6_apps.test_sqlite import ACCOUNTS, check, create_bank, open_database

AWAY_S = 1.0
PROGRESS = 5  # transactions of each worker between two faults
FOREVER = "1000000"


def test_transactions_while_metad_and_chunk_servers_die(cluster: Cluster, place: Path) -> None:
    bank = place / "bank.db"
    create_bank(bank, "delete")
    command = [sys.executable, "-m", "tests.t6_apps.transfers", str(bank)]
    with started(*command, "0", FOREVER) as first, started(*command, "1", FOREVER) as second:
        workers = [first, second]
        done = [0, 0]
        for victim in ["metad", "chunkd1", "metad", "chunkd2"]:
            progress(workers, done)
            cluster.kill(victim)
            time.sleep(AWAY_S)  # the fault itself: how long it is away
            cluster.start(victim)
            cluster.wait_healthy()
        progress(workers, done)
        for number, worker in enumerate(workers):
            worker.kill()
            assert worker.stdout is not None
            done[number] += len(worker.stdout.readlines())
    cluster.remount()
    check(bank)
    with open_database(bank) as connection:
        total = connection.execute("select sum(balance) from account").fetchone()
        assert total == (1000 * ACCOUNTS,)
        for number, count in enumerate(done):
            query = "select count(*), max(number) + 1 from history where worker = ?"
            found, last = connection.execute(query, (number,)).fetchone()
            assert found == last
            assert (
                count <= found <= count + 1
            )  # the last one may have been killed before it said so


def progress(workers: list[subprocess.Popen[str]], done: list[int]) -> None:
    """Wait until each worker has reported some more transactions, in order."""
    for number, worker in enumerate(workers):
        assert worker.stdout is not None
        for _ in range(PROGRESS):
            line = worker.stdout.readline()
            assert line, f"a worker ended: {worker.communicate()[1]}"
            assert int(line) == done[number]
            done[number] += 1
