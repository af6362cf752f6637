"""docs/metrics.md lists exactly the metrics that the daemons offer."""

from __future__ import annotations

import random
import re
from pathlib import Path

import trio
from prometheus_client.metrics_core import Metric
from trio.testing import MockClock

from dfsmount.metrics import MountMetrics
from dfswire.metrics import Metrics
from metad.storage.opening import open_database
from tests.fakes import DirectTransport
from tests.t2_chunkd.servers import ChunkServer
from tests.t2_metad.metad_for_tests import FakeServer, Metad
from tests.t3_cluster.cluster import running_cluster

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|$", re.MULTILINE)

Rows = dict[str, tuple[str, str, str]]


def documented(heading: str) -> Rows:
    """Metric -> type, labels, meaning, in one section of the document."""
    section = DOCUMENT.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: (kind, labels, meaning) for name, kind, labels, meaning in ROW.findall(section)}


async def offered(metrics: Metrics) -> Rows:
    """The same of one registry."""
    await metrics.page()
    families: list[Metric] = list(metrics.registry.collect())
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ())) or "-",
            family.documentation,
        )
        for family in families
        if not family.name.startswith("process_")
    }


def rows(found: Rows) -> str:
    """As they must stand in the document."""
    return "\n".join(
        f"| `{name}` | {kind} | {labels} | {meaning} |"
        for name, (kind, labels, meaning) in found.items()
    )


async def sections(nursery: trio.Nursery, rng: random.Random) -> dict[str, Rows]:
    """What the document must say, by heading."""
    database = open_database("sqlite://", inline=True)
    metad = Metad(database, nursery)
    await metad.start(background=False)
    await FakeServer(metad, "s1").register()
    chunkd = ChunkServer("one", DirectTransport({}, nursery=nursery))
    of_metad = await offered(metad.service.metrics)
    of_chunkd = await offered(chunkd.service.metrics)
    metad.crash()
    async with running_cluster(rng) as cluster, cluster.client() as client:
        mount = MountMetrics()
        mount.attach(client)
        of_mount = await offered(mount.metrics)
    common = {name: row for name, row in of_metad.items() if of_chunkd.get(name) == row}
    return {
        "Every daemon": common,
        "metad": {name: row for name, row in of_metad.items() if name not in common},
        "chunkd": {name: row for name, row in of_chunkd.items() if name not in common},
        "Mounts": {name: row for name, row in of_mount.items() if name not in common},
    }


async def test_the_document_is_complete(
    nursery: trio.Nursery, autojump_clock: MockClock, rng: random.Random
) -> None:
    for heading, found in (await sections(nursery, rng)).items():
        assert documented(heading) == found, f"{heading}: it should be\n{rows(found)}"


def test_names_end_with_their_unit() -> None:
    for heading in ("Every daemon", "metad", "chunkd", "Mounts"):
        for name, (kind, _, meaning) in documented(heading).items():
            assert name.endswith("_total") == (kind == "counter"), name
            assert meaning.endswith(".")
            assert not re.search(r"_(ms|us|kb|mb|s)(_total)?$", name)
