"""Which of several histories counts: the tip that a restore takes, and what it leaves out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from trio.testing import MockClock

from dfswire.journal import Entry, Position
from metad.journal.lineage import Lineage, Node
from tests.t2_metad.followers_for_tests import START, TERM, Copies, Keeper, after, history


def nodes(entries: Sequence[Entry], source: str = "one") -> list[Node]:
    return [Node(each.position, each.previous, source) for each in entries]


def lineage(*runs: tuple[Position, Sequence[Entry]]) -> Lineage:
    """Of what several chunkds have."""
    found = Lineage()
    for base, entries in runs:
        found.add(base, nodes(entries))
    return found


def in_term(position: Position, term: int) -> Position:
    return msgspec.structs.replace(position, term=term)


def test_without_entries_there_is_no_tip() -> None:
    assert lineage((START, [])).tip() is None


def test_the_longest_of_one_history() -> None:
    entries = history(START, 10)
    found = lineage((START, entries[:4]), (entries[1].position, entries[2:]), (START, entries[:7]))
    tip = found.tip()
    assert tip == entries[-1].position
    assert [node.position.number for node in found.back_from(tip)] == list(range(10, 0, -1))
    assert found.left_out(tip) == []


def test_back_ends_at_a_hole() -> None:
    entries = history(START, 10)
    found = lineage((START, entries[:3]), (entries[4].position, entries[5:]))
    tip = found.tip()
    assert tip == entries[-1].position
    assert [node.position.number for node in found.back_from(tip)] == [10, 9, 8, 7, 6]


def test_of_rivals_the_one_of_the_later_term_counts() -> None:
    """The first was given out and never committed; the next metad has used its number again."""
    entries = history(START, 3)
    rival = after(entries[-1].position, body=b"rival")
    counted = after(entries[-1].position, term=2 * TERM)
    for runs in (
        [[*entries, rival], [*entries, counted]],
        [[*entries, counted], [*entries, rival]],
    ):
        found = lineage(*((START, run) for run in runs))
        assert found.tip() == counted.position
        assert found.left_out(counted.position) == [], "nobody was told of a single one"


def test_a_longer_history_of_an_older_term_is_not_taken() -> None:
    """It is left out, and the restore is told so: somebody has acknowledged it."""
    entries = history(START, 3)
    old = history(entries[0].position, 9, body=b"old")
    new = history(entries[-1].position, 2, term=2 * TERM)
    found = lineage((START, [*entries[:1], *old]), (START, [*entries, *new]))
    tip = found.tip()
    assert tip == new[-1].position
    assert found.left_out(tip) == [old[-1].position]


def test_a_history_that_connects_with_nothing_is_left_out_if_it_goes_further() -> None:
    entries = history(START, 3, term=2 * TERM)
    elsewhere = history(in_term(history(START, 1, body=b"other")[0].position, TERM), 5)
    found = lineage((START, entries), (elsewhere[0].position, elsewhere[1:]))
    tip = found.tip()
    assert tip == entries[-1].position
    assert found.left_out(tip) == [elsewhere[-1].position]
    shorter = lineage((START, entries), (elsewhere[0].position, elsewhere[1:2]))
    assert shorter.left_out(tip) == []


def test_a_later_epoch_overrules_whatever_is_longer() -> None:
    entries = history(START, 20)
    restored = msgspec.structs.replace(entries[4].position, epoch=2)
    new = history(restored, 2)
    found = lineage((START, entries), (restored, new))
    assert found.tip() == new[-1].position
    assert found.left_out(new[-1].position) == [], "what a restore has left is left"
    assert found.tip(epoch=1) == entries[-1].position
    assert found.tip(epoch=0) is None


def test_metad_has_said_that_the_last_one_does_not_count() -> None:
    """It went on from the one before, in a new term, and nothing was changed since."""
    entries = history(START, 5)
    base = in_term(entries[3].position, 2 * TERM)
    assert lineage((START, entries), (base, [])).tip() == base
    # Not so when that was said in the term in which the entry was made, or of another epoch,
    for other in (
        entries[3].position,
        msgspec.structs.replace(base, epoch=2),
        in_term(entries[2].position, 2 * TERM),  # or of something else.
    ):
        assert lineage((START, entries), (other, [])).tip() == entries[-1].position


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_happens_the_tip_has_all_that_was_acknowledged(
    autojump_clock: MockClock, seed: int
) -> None:
    """metad commits, fails, crashes and starts again; chunkds come and go; then its disk is lost.

    An entry counts as acknowledged when it is committed and `safe`.
    """
    rng = random.Random(seed)
    copies = Copies()
    keepers = [Keeper(copies, str(number)) for number in range(3)]
    committed: list[Entry] = []
    acknowledged: set[bytes] = set()
    for keeper in keepers:
        await keeper.in_step()

    async def start() -> None:
        nonlocal copies
        last = committed[-1].position if committed else START
        copies = Copies(position=in_term(last, (copies.term // TERM + 1) * TERM))
        for keeper in keepers:
            keeper.copies = copies
        for keeper in rng.sample(keepers, rng.randrange(1, 4)):
            await keeper.in_step()

    for _ in range(40):
        connected = [each for each in keepers if each.server_id in copies.states()]
        match rng.choice(["commit"] * 5 + ["fail", "crash", "leave", "come"]):
            case "commit":
                entry = copies.offer(rng.randbytes(5))
                for keeper in rng.sample(connected, rng.randrange(len(connected) + 1)):
                    await keeper.keep()
                committed.append(entry)
                if connected and copies.followers.safe >= entry.number:
                    acknowledged.add(entry.digest)
            case "fail":
                entry = copies.offer(rng.randbytes(5))
                for keeper in rng.sample(connected, rng.randrange(len(connected) + 1)):
                    await keeper.keep()
                copies.withdraw(entry)
            case "crash":
                entry = copies.offer(rng.randbytes(5))
                for keeper in rng.sample(connected, rng.randrange(len(connected) + 1)):
                    await keeper.keep()
                if rng.random() < 0.5:
                    committed.append(entry)
                await start()
            case "leave" if len(connected) > 1:
                await rng.choice(connected).leave()
            case "come":
                for keeper in keepers:
                    if keeper.server_id not in copies.states():
                        await keeper.in_step()
            case _:
                pass
    assert acknowledged
    found = Lineage()
    for keeper in keepers:
        for base, run in keeper.nodes():
            found.add(base, run)
    tip = found.tip()
    assert tip is not None
    assert found.left_out(tip) == []
    # What it has is what was committed; the last one may be one that never was.
    back = found.back_from(tip)
    numbers = {entry.number: entry.digest for entry in committed}
    for node in back[1:]:
        assert numbers[node.position.number] == node.position.digest
    # What is further back is in the snapshot from which the entries go on.
    first = back[-1].position.number if back else tip.number
    in_snapshot = {digest for number, digest in numbers.items() if number < first}
    known = {node.position.digest for node in back} | {tip.digest} | in_snapshot
    assert not acknowledged - known
