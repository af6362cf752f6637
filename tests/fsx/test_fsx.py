"""fsx itself: its model is a file, it finds what is wrong, and it cuts a failure down."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.fsx import campaign
from tests.fsx.campaign import Failed, Settings, load, replay, run
from tests.fsx.model import PAGE_BYTES, Model
from tests.fsx.operations import SMALL, SPARSE, Chooser, Operation
from tests.fsx.player import Mismatch, Player
from tests.fsx.shrink import shrunk
from tests.fsx.system import missing_kinds


def test_the_model_is_an_array_of_bytes(rng: random.Random) -> None:
    model, plain = Model(), bytearray()
    end = 5 * PAGE_BYTES
    for _ in range(3000):
        offset, length = rng.randrange(end), rng.choice((1, 100, PAGE_BYTES, 2 * PAGE_BYTES))
        match rng.randrange(5):
            case 0:
                data = rng.randbytes(length)
                plain.extend(bytes(max(0, offset + length - len(plain))))
                plain[offset : offset + length] = data
                model.write(offset, data)
            case 1:
                size = rng.randrange(end)
                plain[size:] = bytes(max(0, size - len(plain)))
                model.truncate(size)
            case 2:
                last = min(offset + length, len(plain))
                plain[offset:last] = bytes(max(0, last - offset))
                model.zero(offset, length)
            case 3:
                assert model.read(offset, length) == plain[offset : offset + length]
            case 4:
                piece = plain[offset : offset + length]
                assert model.is_zero(offset, min(offset + length, model.size)) == (not any(piece))
        assert model.size == len(plain)


def test_a_model_of_terabytes_is_small() -> None:
    model = Model()
    model.write(1 << 43, b"x")
    model.truncate(1 << 44)
    model.zero(0, (1 << 43) - 1)
    assert model.islands() == [1 << 43]
    assert not model.is_zero(0, 1 << 44)
    model.zero(0, 1 << 44)
    assert model.is_zero(0, 1 << 44)
    assert model.read((1 << 44) - 2, 100) == b"\0\0"


def test_operations_are_the_same_again_by_seed_and_in_a_log() -> None:
    def drawn(seed: int) -> list[Operation]:
        chooser = Chooser(random.Random(seed), SPARSE, ["read", "write", "copy"], views=2)
        return [chooser.draw([Model(), Model()]) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert [Operation.parse(str(each)) for each in drawn(1)] == drawn(1)


@pytest.mark.parametrize("shape", [SMALL, SPARSE], ids=["small", "sparse"])
def test_a_local_file_system_has_no_mismatch(
    tmp_path: Path, shape: campaign.Shape, rng: random.Random
) -> None:
    """Two names of one directory are two views of it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to("one")
    settings = Settings(
        roots=[tmp_path / "one", tmp_path / "two"],
        log=tmp_path / "log",
        seed=rng.randrange(1 << 30),
        operations=3000,
        shape=shape,
        without=frozenset({*missing_kinds(tmp_path), "drop_caches"}),
    )
    assert run(settings) == 3000
    assert list((tmp_path / "one").iterdir()) == []
    assert len(load(settings.log)) == 3004


def _lost_write(player: Player, number: int, view: int, offset: int, length: int) -> None:
    """A punch that does nothing."""
    player.files[number].model.zero(offset, length)


def _stale_size(player: Player, number: int, view: int, size: int) -> None:
    player.files[number].model.truncate(size)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [("punch", _lost_write), ("zero_keep", _lost_write), ("truncate", _stale_size)],
)
def test_what_is_wrong_is_found_cut_down_and_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, broken: object
) -> None:
    monkeypatch.setattr(Player, f"do_{kind}", broken)
    settings = Settings(
        roots=[tmp_path],
        log=tmp_path / "log",
        operations=3000,
        without=frozenset({*missing_kinds(tmp_path), "drop_caches"}),
    )
    with pytest.raises(Failed) as failure:
        run(settings)
    found = re.search(r"(\d+) operations are enough", str(failure.value))
    assert found is not None and int(found[1]) <= 6, failure.value
    few = load(tmp_path / "log.short")
    assert kind in {operation.kind for operation in few}
    with pytest.raises(Mismatch):
        replay(settings, few)
    with pytest.raises(Mismatch):
        replay(settings, load(tmp_path / "log"))
    monkeypatch.undo()
    replay(settings, few)
    replay(settings, load(tmp_path / "log"))


def test_a_list_is_cut_down_to_what_fails() -> None:
    items = list(range(100))
    assert shrunk(items, lambda some: {17, 60, 61} <= set(some)) == [17, 60, 61]
    assert len(shrunk(items, lambda some: len(some) >= 3)) == 3
    assert shrunk(items, lambda some: some == items) == items
