"""Who may import whom: the table, and the test that reads the real imports and compares.

The table is the architecture's section on layers.  A new module must be placed in it, which is the
moment to think about where it belongs.  Imports for type checkers only (`if TYPE_CHECKING:`) bind
nobody at run time; they are free of the order of layers, but not of the other rules.
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

ROOT = Path(__file__).resolve().parent.parent


def words(text: str) -> set[str]:
    """The words of a text."""
    return set(text.split())


# --- the table -----------------------------------------------------------------------------------

# Our packages, and which of the others each may use.
PACKAGES = {
    "dfswire": set(),
    "metad": {"dfswire"},
    "chunkd": {"dfswire"},
    "dfsmount": {"dfswire"},
}

# Within a package: a module imports modules of its own line and of the lines below it.
LAYERS = {
    "dfswire": """
        server client
        dispatch transport
        sockets
        bodies
        metrics logs
        journalfile
        calls codec daemon heads
        clientcalls
        call
        lockranges
        admin
        chunks cluster jobs moving journal locks metadata observe operations policies
        verify health
        messages errors
    """,
    "metad": """
        __main__ tool
        service
        metrics
        drains policycalls moving
        mutations reads leasecalls reports status locking fsckcalls journalcalls
        snapshots restore
        clients repair trim salvage compactor deepcheck reclaim batches fsck mend
        serverevents totals
        jobs
        recalls touched
        attributes namespace chunkmap ranges rename invariants state
        mendnames mendchunks
        extents inheritance xattrs rescue repairplan
        leaving convergence rebalance
        machines policies sessions replicas rows eventlog jobrows fence
        damage
        database group_commit
        schema servers recording replay followers
        schema_admin schema_verify
        lockledger
        locks
        waits
        lockspace
        orphans
        leases
        surplus lineage
        exclusive knowledge turns placement orders events effects recent verified acl config
        rates losses grayness compaction
        protection traffic
        eventrate
    """,
    "chunkd": """
        __main__
        assembly
        heartbeat metrics follower
        service orders journalcalls
        store journal groupsync inventory emptying scrub assemble rebuild
        replicate
        quarantine
        durability openchunk identity timedfiles
        filesystem layout pagecache buffers storage chain tally figures config
        diskhealth chunkfile remains peers
    """,
    "dfsmount": """
        __main__
        metrics
        fuse client mountoptions
        lowlevel.operations kernelcaches conversions
        vfs
        ranges
        names
        attributes
        openfiles datapath
        reader writer
        writeback
        uploader packs mutations durability coherence
        leases
        leasereturns
        heldleases
        idleleases lategrants
        accesstimes grants layouts directories attrcache blockcache readahead
        locks lockrequests holdings
        metaclient chunkclient
        batches
        retries
        session hedging serverhealth ports runtime config kernel nested
        lowlevel.requests
        extents lowlevel.library lowlevel operationwatch experience
    """,
    "dfsmount.cli": """
        __main__
        app
        top
        up status nodes events admin policy rebalance metadata info fsck repair mount helper
        views jobs
        health
        cluster lifecycle lost
        localcluster launch
        mounts processes output
    """,
}

# Modules that neither wait, nor look at a clock, nor touch a network, a disk or a database.
PURE = words(
    """
    dfswire.messages dfswire.operations dfswire.metadata dfswire.cluster dfswire.chunks
    dfswire.observe dfswire.policies dfswire.jobs dfswire.admin dfswire.moving metad.eventrate
    dfswire.call dfswire.clientcalls
    dfswire.calls dfswire.codec dfswire.errors dfswire.journal dfswire.locks dfswire.lockranges
    metad.lineage metad.leases metad.exclusive metad.knowledge metad.turns metad.orphans
    metad.protection metad.acl metad.locks metad.waits metad.lockspace metad.lockledger
    metad.servers metad.placement metad.orders metad.effects metad.compaction
    chunkd.chunkfile chunkd.diskhealth
    chunkd.remains dfswire.verify chunkd.peers dfswire.health
    dfsmount.experience
    dfsmount.holdings dfsmount.extents dfsmount.attrcache dfsmount.lategrants dfsmount.readahead
    metad.recent metad.surplus metad.verified metad.rates metad.losses metad.grayness
    metad.repairplan
    """
)
IMPURE_LIBRARIES = words(
    """
    trio httpx h11 peewee pyfuse3 psutil socket select selectors asyncio subprocess threading
    sqlite3 time datetime os pathlib tempfile
    """
)

# Libraries (and one module of ours) that only the modules named here may import.
RESERVED = {
    "pyfuse3": {"dfsmount.fuse", "dfsmount.conversions", "dfsmount.__main__"},
    "ctypes": {"dfsmount.lowlevel.library"},
    "dfswire.server": {"metad.__main__", "chunkd.__main__", "dfsmount.__main__"},
    "httpx": {"dfswire.client", "dfswire.transport", "dfswire.bodies"},
    "h11": {"dfswire.heads"},
    "peewee": {
        "metad.schema",
        "metad.schema_admin",
        "metad.schema_verify",
        "metad.database",
    },
    "socket": {
        "dfswire.daemon",
        "dfswire.sockets",
        "dfswire.transport",
        "chunkd.figures",  # the host's name
        "dfsmount.__main__",  # the host's name
        "dfsmount.cli.localcluster",
        "dfsmount.cli.launch",
    },
    "rich": {"dfsmount.cli"},
    "prometheus_client": {"dfswire.metrics"},
}

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
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: imports are written in full"
            parent = node.module or ""
            whole = [f"{parent}.{alias.name}" for alias in node.names]
            names = [full if full in known else parent for full in whole]
        for imported in names:
            yield Import(name, imported, node.lineno, id(node) not in for_checkers)


def package_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    return max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len)


def levels(package: str) -> dict[str, int]:
    """Module -> how many lines of the table stand below its own."""
    lines = LAYERS[package].split("\n")[::-1]
    return {f"{package}.{word}": level for level, line in enumerate(lines) for word in line.split()}


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
    return why_out_of_order(one) if one.at_run_time else ""


def why_out_of_order(one: Import) -> str:
    """Why an import within one of our packages goes against the layers; "" when it does not."""
    package = package_of(one.importer)
    if package != package_of(one.imported):
        return f"{package} is a package of its own"
    level = levels(package)
    for module in (one.importer, one.imported):
        if module not in level:
            return f"{module} is not in the table of layers: give it a place"
    return "" if level[one.imported] <= level[one.importer] else "this goes upward"


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
    named = PURE | {module for package in LAYERS for module in levels(package)}
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
        ("metad/leases.py", "import metad.schema", "this goes upward"),
        ("metad/service.py", "from chunkd import store", "metad may not use chunkd"),
        ("chunkd/store.py", "def f():\n    import dfsmount.vfs", "chunkd may not use dfsmount"),
        ("dfswire/codec.py", "from metad.schema import Inode", "dfswire may not use metad"),
        ("metad/leases.py", "import trio", "metad.leases is pure"),
        ("chunkd/chunkfile.py", "from time import monotonic", "chunkd.chunkfile is pure"),
        ("dfsmount/extents.py", "async def f(): pass", "dfsmount.extents is pure"),
        ("dfsmount/vfs.py", "import pyfuse3", "pyfuse3 is for"),
        ("metad/service.py", "from dfswire.server import serve", "dfswire.server is for"),
        ("metad/service.py", "from dfswire import server", "dfswire.server is for"),
        ("dfsmount/vfs.py", "from dfsmount.fuse import run", "this goes upward"),
        ("dfsmount/cli/up.py", "import dfsmount.vfs", "dfsmount.cli is a package of its own"),
        ("dfswire/cluster.py", "import dfswire.chunks", ""),
        ("dfswire/messages.py", "import dfswire.errors\nimport dfswire.calls", "a cycle"),
        ("metad/brand_new.py", "import metad.schema", "give it a place"),
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
