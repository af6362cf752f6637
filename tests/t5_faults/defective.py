"""Daemons with mistakes in their code, which show when a test wants it, or of another release: see
defects/."""

from __future__ import annotations

from pathlib import Path

from tests.t5_faults.altered import Altered
from tests.t5_faults.defects.sitecustomize import MESSAGE
from tests.t5_faults.harness import FaultyCluster
from tests.t5_process.observed import wait_for

PLACE = Path(__file__).with_name("defects")


class Defective(Altered):
    """One daemon or mount, started anew with mistakes in the functions `wrong`."""

    def __init__(self, cluster: FaultyCluster, name: str, directory: Path, *wrong: str) -> None:
        self._orders = directory / f"defects-{name}"
        self._orders.mkdir()
        words = {
            "PYTHONPATH": str(PLACE),
            "DFS_DEFECTS": " ".join(wrong),
            "DFS_DEFECT_ORDERS": str(self._orders),
        }
        super().__init__(cluster, name, words)

    def fail(self, function: str) -> None:
        """The next call of the function will raise."""
        (self._orders / function).touch()

    def wait_failed(self, function: str) -> None:
        """It has raised, and the log tells of that."""
        wait_for(lambda: not (self._orders / function).exists(), f"a mistake in {function} shows")
        wait_for(
            lambda: self._cluster.unseen_log(self._name).count(f"AssertionError: {MESSAGE}"),
            "the log tells of it",
        )
        text = self._cluster.see_log(self._name)
        assert text.count(f"AssertionError: {MESSAGE}") == 1, text


def speaking(version: int) -> dict[str, str]:
    """What a process has in its environment that speaks another version of the protocol."""
    return {"PYTHONPATH": str(PLACE), "DFS_SPEAKS": str(version)}
