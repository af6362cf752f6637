"""Moves money in a database: `python -m tests.t6_apps.transfers DATABASE WORKER COUNT`.

Prints the number of each transfer when it is committed.  A transfer reads before it writes, so a
lock that does not lock loses money.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.t6_apps.test_sqlite import ACCOUNTS, open_database


def main(path: Path, worker: int, count: int) -> None:
    rng = random.Random(worker)
    with open_database(path) as connection:
        connection.isolation_level = None
        for number in range(count):
            source, target = rng.sample(range(ACCOUNTS), 2)
            connection.execute("begin immediate")
            balances = dict(connection.execute("select id, balance from account").fetchall())
            assert sum(balances.values()) == 1000 * ACCOUNTS, balances
            for account, change in ((source, -number), (target, number)):
                connection.execute(
                    "update account set balance = ? where id = ?",
                    (balances[account] + change, account),
                )
            connection.execute("insert into history values (?, ?)", (worker, number))
            connection.execute("commit")
            print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
