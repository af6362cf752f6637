"""Commits and pushes: `python -m tests.t6_apps.pushing REPOSITORY CLONE NAME COUNT`.

Another one does the same from another mount; a push that is refused is tried again on top of what
the other one has pushed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.t6_apps.test_git import GIT, git

TRIES = 100


def main(repository: Path, clone: Path, name: str, count: int) -> None:
    # A local clone copies the directory of objects as it is, with what a push of the other one has
    # there only for a moment: 7 of 369 fail so on tmpfs.
    git(repository, "clone", "-q", "--no-local", repository, clone)
    for number in range(count):
        (clone / name).write_text(f"{number}\n")
        git(clone, "add", ".")
        git(clone, "commit", "-q", "-m", f"{name} {number}")
        for _ in range(TRIES):
            pushed = subprocess.run(
                ["git", "push", "-q", "origin", "main"],
                cwd=clone,
                env={**os.environ, **GIT},
                capture_output=True,
            )
            if pushed.returncode == 0:
                break
            git(clone, "pull", "-q", "--rebase")
        else:
            raise SystemExit(f"{name} cannot push: {pushed.stderr.decode()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
