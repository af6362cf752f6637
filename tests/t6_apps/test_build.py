"""Building: make decides by modification times, compilers map what they read, caches link."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t6_apps.programs import started
from tests.t6_apps.size import sized

pytestmark = pytest.mark.needs("make", "gcc", "ar")

PARTS = sized(30, 600)
MODULES = 5  # each has a header that its parts include

MAKEFILE = """
CFLAGS := -O0 -MMD -MP
OBJECTS := $(patsubst %.c,%.o,$(wildcard part*.c))

program: main.o libparts.a
\t$(CC) -o $@ main.o libparts.a
libparts.a: $(OBJECTS)
\trm -f $@
\tar rcs $@ $(OBJECTS)
-include $(wildcard *.d)
"""


def write_project(root: Path) -> None:
    """A library of parts in modules, and a program that adds up what the parts return."""
    root.mkdir()
    (root / "Makefile").write_text(MAKEFILE)
    for module in range(MODULES):
        (root / f"module{module}.h").write_text(f"#define BASE{module} {module}\n")
    for part in range(PARTS):
        module = part % MODULES
        (root / f"part{part}.c").write_text(
            f'#include "module{module}.h"\n'
            f"int part{part}(void) {{ return BASE{module} + {part}; }}\n"
        )
    calls = " + ".join(f"part{part}()" for part in range(PARTS))
    declarations = "".join(f"int part{part}(void);\n" for part in range(PARTS))
    (root / "main.c").write_text(
        f"#include <stdio.h>\n{declarations}"
        f'int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n'
    )


def make(root: Path) -> set[str]:
    """Run make; the targets that were made."""
    shown = run("make", "-j4", "--no-print-directory", cwd=root, timeout_s=sized(120, 3600))
    words = [line.split() for line in shown.splitlines() if line.startswith(("cc", "ar"))]
    return {line[2] if line[0] == "ar" else line[line.index("-o") + 1] for line in words}


def result() -> int:
    return sum(part % MODULES + part for part in range(PARTS))


def test_make_builds_what_has_changed_and_nothing_else(views: TwoViews) -> None:
    """On one mount, and then on the other, where the times must be the same."""
    write_project(views.a / "project")
    here, there = views.a / "project", views.b / "project"
    objects = {f"part{part}.o" for part in range(PARTS)}
    assert make(here) == {*objects, "main.o", "libparts.a", "program"}
    assert int(run("./program", cwd=here)) == result()
    assert make(here) == set()
    assert make(there) == set()

    (there / "module1.h").write_text("#define BASE1 1001\n")
    dependent = {f"part{part}.o" for part in range(1, PARTS, MODULES)}
    assert make(here) == {*dependent, "libparts.a", "program"}
    assert int(run("./program", cwd=there)) == result() + 1000 * len(dependent)
    assert make(there) == set()

    (here / "part3.c").write_text("int part3(void) { return 0; }\n")
    assert make(there) == {"part3.o", "libparts.a", "program"}
    run("touch", "main.c", cwd=there)
    assert make(here) == {"main.o", "program"}
    assert int(run("./program", cwd=here)) == result() + 1000 * len(dependent) - 6


def test_a_compiler_cache_of_hard_links(here: Path) -> None:
    """As ccache does it: objects are linked out of the cache by the hash of what made them."""
    write_project(here / "project")
    cache = here / "cache"
    cache.mkdir()
    sources = sorted((here / "project").glob("part*.c"))[:10]

    def compile_all(build: Path) -> int:
        compiled = 0
        build.mkdir()
        for source in sources:
            stored = cache / hashlib.sha256(source.read_bytes()).hexdigest()
            if not stored.exists():
                made = cache / f"tmp.{os.getpid()}"
                run("gcc", "-c", source, "-o", made, cwd=here)
                made.rename(stored)
                compiled += 1
            os.link(stored, build / f"{source.stem}.o")
        return compiled

    assert compile_all(here / "first") == len(sources)
    assert compile_all(here / "second") == 0
    assert {path.stat().st_nlink for path in cache.iterdir()} == {3}
    run("rm", "-r", "first", cwd=here)
    assert {path.stat().st_nlink for path in cache.iterdir()} == {2}
    run("gcc", "-shared", "-o", "all.so", *sorted((here / "second").iterdir()), cwd=here)


def test_a_program_that_runs_cannot_be_written(here: Path) -> None:
    """ETXTBSY, and the way around it: a new file under the old name."""
    write_project(here / "project")
    (here / "project" / "main.c").write_text("int main(void) { return getchar(); }\n")
    run("gcc", "-w", "-o", "program", "project/main.c", cwd=here)
    with started(here / "program") as process:
        with pytest.raises(OSError, match="Text file busy"):
            os.open(here / "program", os.O_WRONLY)
        run("gcc", "-w", "-o", "program.new", "project/main.c", cwd=here)
        (here / "program.new").rename(here / "program")
        output, _ = process.communicate("\n", timeout=30)
        assert (process.returncode, output) == (ord("\n"), "")
