"""metad's simulated disk loses its power where it is told to; its clock goes as it is told to."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from metad.storage.database import setting
from tests.simulation import scheduling
from tests.simulation.clocks import START_NS, Clocks
from tests.simulation.database import MetadDisk, open_simulated, replayed
from tests.simulation.disk import Crash


@pytest.mark.parametrize("after", [False, True])
async def test_the_power_goes_on_one_side_of_a_commit(after: bool) -> None:
    disk, told = MetadDisk(), []
    database = open_simulated(disk, lambda: START_NS)
    disk.crash_in, disk.crash_after = 1, after
    disk.crashed = lambda: told.append("crashed")
    sql = "INSERT INTO setting VALUES (?, 'x')"
    await database.write(lambda: database.change(sql, ("first",)))
    with pytest.raises(Crash):
        await database.write(lambda: database.change(sql, ("second",)))
    assert told == ["crashed"]
    with pytest.raises(Crash, match="off"):
        await database.write(lambda: None)
    assert bool(database.read("SELECT 1 FROM setting WHERE name = 'second'")) is after
    restarted = open_simulated(disk, lambda: START_NS)
    assert setting(restarted, "first") == "x"
    assert bool(restarted.read("SELECT 1 FROM setting WHERE name = 'second'")) is after
    assert replayed(disk) == ""


async def test_a_fast_clock_never_goes_back(autojump_clock: MockClock) -> None:
    clocks = Clocks()
    await trio.sleep(10)
    clocks.set_rate(1.4)
    await trio.sleep(10)
    assert clocks.metad() == pytest.approx(24.0)
    clocks.set_rate(0.5)
    assert clocks.metad() == pytest.approx(24.0)
    await trio.sleep(10)
    assert clocks.metad() == pytest.approx(29.0)
    assert clocks.wall_ns("metad") == START_NS + 30 * 10**9


def test_the_rest_of_a_time_can_be_slept() -> None:
    async def naps() -> int:
        clocks, count = Clocks(), 0
        await trio.sleep(10.123456789)
        clocks.set_rate(0.8)
        until_s = clocks.metad() + 9.0
        while (left_s := until_s - clocks.metad()) > 0:
            await trio.sleep(left_s)
            count += 1
        return count

    assert scheduling.run(1, naps) < 40
