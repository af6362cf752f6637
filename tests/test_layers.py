"""Who may import whom: reads the real imports and compares them with the table in layers.py.

Imports for type checkers only (`if TYPE_CHECKING:`) bind nobody at run time; they are free of the
order of layers, but not of the other rules.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.layers import IMPURE_LIBRARIES, LAYERS, PACKAGES, PURE, RESERVED

ROOT = Path(__file__).resolve().parent.parent


# --- the check -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One import statement: who, whom, where, and whether it happens at run time."""

    importer: str
    imported: str
    line: int
    at_run_time: bool


def modules(root: Path) -> dict[str, Path]:
    """Our modules by their full names; a package stands for its __init__."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for package in PACKAGES
        for file in sorted((root / package).rglob("*.py"))
    }


@functools.cache
def facts(name: str, text: str, known: frozenset[str]) -> tuple[list[Import], list[int]]:
    """The imports in one module, wherever they stand in it, and the lines in which it waits."""
    tree = ast.parse(text)
    waits = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith)
    ]
    return list(_imports(name, tree, known)), waits


def _imports(name: str, tree: ast.AST, known: frozenset[str]) -> Iterator[Import]:
    for_checkers = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: imports are written in full"
            parent = node.module or ""
            whole = [f"{parent}.{alias.name}" for alias in node.names]
            names = [full if full in known else parent for full in whole]
        else:
            continue
        for imported in names:
            yield Import(name, imported, node.lineno, id(node) not in for_checkers)


def levels(package: str) -> dict[str, int]:
    """Module, or package within -> how many lines of the table stand below its own."""
    lines = LAYERS[package].split("\n")[::-1]
    return {f"{package}.{word}": level for level, line in enumerate(lines) for word in line.split()}


def unit_of(module: str, level: dict[str, int]) -> str | None:
    """The module, or the package that it is in, by which a table knows it."""
    known = [name for name in level if f"{module}.".startswith(f"{name}.")]
    return max(known, key=len, default=None)


def is_within(module: str, names: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def why_forbidden(one: Import) -> str:
    """What rule the import breaks; "" when it is fine."""
    top = one.imported.partition(".")[0]
    home = one.importer.partition(".")[0]
    for reserved, allowed in RESERVED.items():
        if (
            is_within(one.imported, {reserved})
            and not is_within(one.importer, allowed)
            and home != reserved.rpartition(".")[0]
        ):
            return f"{reserved} is for {', '.join(sorted(allowed))} only"
    if one.importer in PURE and top in IMPURE_LIBRARIES:
        return f"{one.importer} is pure"
    if top not in PACKAGES or one.imported in LAYERS:
        return ""
    if top != home:
        return "" if top in PACKAGES[home] else f"{home} may not use {top}"
    return why_out_of_order(one, home) if one.at_run_time else ""


def why_out_of_order(one: Import, package: str) -> str:
    """Why an import within this package of ours goes against the layers; "" when it does not."""
    level = levels(package)
    units = []
    for module in (one.importer, one.imported):
        unit = unit_of(module, level)
        if unit is None:
            apart = [name for name in LAYERS if f"{module}.".startswith(f"{name}.")]
            if max(apart, key=len) == package:
                return f"{module} is not in the table of layers: give it a place"
        units.append(unit)
    importer, imported = units
    if importer == imported:
        inside = importer or max(
            (name for name in LAYERS if f"{one.importer}.".startswith(f"{name}.")), key=len
        )
        return why_out_of_order(one, inside) if inside in LAYERS else ""
    if importer is None or imported is None:
        return f"what is in the table of {package}, and what is not, stand apart"
    return "" if level[imported] <= level[importer] else "this goes upward"


def violations(root: Path) -> list[str]:
    """Everything below `root` that breaks the table, one sentence each."""
    files = modules(root)
    found = []
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        imports, waits = facts(name, file.read_text("utf-8"), frozenset(files))
        for one in imports:
            reason = why_forbidden(one)
            if reason:
                found.append(f"{name}:{one.line} imports {one.imported}: {reason}")
            if one.at_run_time and one.imported in files and one.imported != name:
                graph[name].add(one.imported)
        if name in PURE:
            found += [f"{name}:{line} waits, but {name} is pure" for line in waits]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as problem:
        found.append(f"a cycle: {' -> '.join(problem.args[1])}")
    return found


# --- the tests -----------------------------------------------------------------------------------


def test_the_table_is_kept() -> None:
    assert violations(ROOT) == []


def test_the_table_names_no_module_that_is_gone() -> None:
    known = set(modules(ROOT))
    named = PURE | set(LAYERS) | {module for package in LAYERS for module in levels(package)}
    named |= {module for allowed in RESERVED.values() for module in allowed}
    assert named - known == set()


def test_every_library_is_declared() -> None:
    """What is imported stands in pyproject.toml, and not only as somebody else's dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    declared = {name.replace("-", "_") for name in names}
    for name, file in modules(ROOT).items():
        for one in facts(name, file.read_text("utf-8"), frozenset())[0]:
            top = one.imported.partition(".")[0]
            assert top in {*declared, *PACKAGES, *sys.stdlib_module_names}, one


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all our packages that a test may spoil."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return root


@pytest.mark.parametrize(
    ("module", "line", "reason"),
    [
        ("metad/leases/table.py", "import metad.storage.schema", "this goes upward"),
        ("metad/service.py", "from chunkd import store", "metad may not use chunkd"),
        ("chunkd/store.py", "def f():\n    import dfsmount.vfs", "chunkd may not use dfsmount"),
        ("dfswire/codec.py", "from metad.storage.schema import Inode", "dfswire may not use metad"),
        ("metad/leases/table.py", "import trio", "metad.leases.table is pure"),
        ("chunkd/chunkfile.py", "from time import monotonic", "chunkd.chunkfile is pure"),
        ("dfsmount/files/extents.py", "async def f(): pass", "dfsmount.files.extents is pure"),
        ("dfsmount/vfs.py", "import pyfuse3", "pyfuse3 is for"),
        ("metad/service.py", "from dfswire.server import serve", "dfswire.server is for"),
        ("metad/service.py", "from dfswire import server", "dfswire.server is for"),
        ("dfsmount/vfs.py", "from dfsmount.adapter.fuse import run", "this goes upward"),
        ("dfsmount/cli/up.py", "import dfsmount.vfs", "stand apart"),
        ("dfswire/orders.py", "import dfswire.chunks", ""),
        ("dfswire/messages.py", "import dfswire.errors\nimport dfswire.calls", "a cycle"),
        ("metad/brand_new.py", "import metad.storage.schema", "give it a place"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, module: str, line: str, reason: str) -> None:
    file = copy / module
    original = file.read_text("utf-8") if file.exists() else None
    file.write_text((original or "") + f"\n{line}\n")
    try:
        fresh = set(violations(copy)) - set(violations(ROOT))
    finally:
        if original is None:
            file.unlink()
        else:
            file.write_text(original)
    assert any(reason in violation for violation in fresh) if reason else not fresh
