"""Build fsx.c of xfstests and run it on a cluster of its own: `python -m tests.fsx.public SOURCE`.

fsx.c is the file system exerciser of 1991 in its newest form; it is not part of this project. It is
built with the few definitions that it needs, without xfstests' configure.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.t4_mount.harness import LiveCluster

HEADERS = """types stat time ioctl wait param mman fcntl"""
PLAIN_HEADERS = "stdlib unistd errno string strings assert err malloc linux_falloc"
LENGTHS = ["-l", "1048576", "-o", "131072"]
RUNS = {
    "all operations": [],
    "closing and opening": ["-c", "50"],
    "pages dropped after each operation": ["-f"],
    "O_DIRECT": ["-Z", "-r", "4096", "-w", "4096", "-t", "4096"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fsx.public")
    parser.add_argument("source", type=Path, help="a clone of xfstests")
    parser.add_argument("--ops", type=int, default=250_000, help="operations of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=RUNS, action="append", help="this run, not all of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsx-") as name:
        directory = Path(name)
        program = build(arguments.source, directory)
        cluster = LiveCluster(directory / "cluster")
        try:
            point = cluster.mount("mnt").point
            for number, (what, options) in enumerate(RUNS.items()):
                if arguments.only and what not in arguments.only:
                    continue
                count = ["-N", str(arguments.ops), "-S", str(arguments.seed + number)]
                command = [str(program), "-q", *count, *LENGTHS, *options, str(point / "file")]
                print(f"{what}: {' '.join(command[1:-1])}", flush=True)
                if subprocess.run(command).returncode:
                    return 1
            report = cluster.fsck()
            print(f"dfs fsck: {report.count} findings {report.findings}")
            return 1 if report.count else 0
        finally:
            cluster.down()


def build(source: Path, directory: Path) -> Path:
    """The program, compiled into `directory`."""
    wanted = [f"HAVE_SYS_{word.upper()}_H" for word in HEADERS.split()]
    wanted += [f"HAVE_{word.upper()}_H" for word in PLAIN_HEADERS.split()]
    wanted += ["STDC_HEADERS", "HAVE_COPY_FILE_RANGE"]
    lines = [f"#define {word} 1" for word in wanted]
    (directory / "config.h").write_text("\n".join([*lines, "#include <getopt.h>", ""]))
    program = directory / "fsx"
    includes = [f"-I{directory}", f"-I{source / 'src'}"]
    flags = ["-O2", "-w", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", *includes]
    command = ["gcc", *flags, "-o", str(program), str(source / "ltp" / "fsx.c")]
    subprocess.run(command, check=True)
    return program


if __name__ == "__main__":
    sys.exit(main())
