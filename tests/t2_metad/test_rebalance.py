"""The plan of a rebalancing: every move helps, none harms, and it ends."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from metad.copies.placement import Candidate, domain_of
from metad.copies.policies import Policy
from metad.jobs.rebalance import Balancing, Fill, Movable, Move, better_place

TOTAL = 10 << 30
BAND = 0.05


def place(number: int, free: int, *, host: str = "", rack: str = "", label: str = "") -> Candidate:
    return Candidate(
        disk=f"d{number}",
        server_id=f"s{number}",
        address=f"s{number}:1",
        rack=rack,
        host=host or f"h{number}",
        total_bytes=TOTAL,
        free_bytes=free,
        labels=frozenset([label] if label else []),
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Candidate], list[Movable]]:
    count = draw(st.integers(1, 7))
    racks = draw(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=count, max_size=count))
    chunks = []
    used = [0] * count
    for number in range(draw(st.integers(0, 60))):
        copies = draw(st.integers(1, min(3, count)))
        favourite = st.sampled_from([0, *range(count)])  # the first disk is the fullest
        on = draw(st.lists(favourite, min_size=copies, max_size=copies, unique=True))
        length = draw(st.integers(1 << 20, 256 << 20))
        for each in on:
            used[each] += length
        chunks.append(Movable(bytes([number]) * 16, length, [f"d{each}" for each in on]))
    places = [
        place(number, max(TOTAL - size, 0), rack=racks[number]) for number, size in enumerate(used)
    ]
    return places, chunks


def applied(chunks: list[Movable], moves: list[Move]) -> list[Movable]:
    goes = {move.chunk: move for move in moves}
    return [
        Movable(
            each.chunk,
            each.length,
            [
                goes[each.chunk].destination if disk == goes[each.chunk].source else disk
                for disk in each.disks
            ],
        )
        if each.chunk in goes
        else each
        for each in chunks
    ]


def plan(fill: Fill, chunks: list[Movable]) -> list[Move]:
    def supply(disk: str) -> Iterator[Movable]:
        return (each for each in chunks if disk in each.disks)

    return list(Balancing(fill, BAND, supply).moves(10_000))


@given(clusters())
def test_every_move_helps_and_harms_nothing_until_nothing_moves(
    cluster: tuple[list[Candidate], list[Movable]],
) -> None:
    places, chunks = cluster
    fill = Fill.of(places)
    for _ in range(20):
        before = {each.chunk: each for each in chunks}
        check = Fill(fill.places, dict(fill.used))
        moves = plan(fill, chunks)
        for move in moves:
            assert check.fraction(move.source) > check.fraction(move.destination)
            check.apply(move)
            assert check.fraction(move.source) > check.fraction(move.destination)
        assert check.used == fill.used
        chunks = applied(chunks, moves)
        for each in chunks:
            copies = [fill.places[disk] for disk in each.disks]
            old = [fill.places[disk] for disk in before[each.chunk].disks]
            assert len({copy.server_id for copy in copies}) == len(copies)
            for level in ("host", "rack", "zone"):
                domains = {domain_of(copy, level) for copy in copies}
                assert len(domains) >= len({domain_of(copy, level) for copy in old})
        if not moves:
            return
    raise AssertionError("it never comes to rest")


def test_a_new_disk_gets_its_share() -> None:
    chunks = [Movable(bytes([n]) * 16, 64 << 20, ["d0", "d1"]) for n in range(100)]
    places = [place(0, TOTAL - (6400 << 20)), place(1, TOTAL - (6400 << 20)), place(2, TOTAL)]
    fill = Fill.of(places)
    moves = plan(fill, chunks)
    assert {move.destination for move in moves} == {"d2"}
    assert fill.deviation <= BAND
    assert plan(fill, applied(chunks, moves)) == []


def test_nothing_goes_to_a_disk_that_is_too_full_itself() -> None:
    """A third of the chunks of the fullest one have their other copy on the emptiest already."""
    chunks = [
        Movable(bytes([n]) * 16, 64 << 20, ["d0", "d1" if n % 3 else "d2"]) for n in range(60)
    ]
    held = [60, 45, 20]  # chunks
    fill = Fill.of([place(n, TOTAL - (each * 64 << 20)) for n, each in enumerate(held)])
    moves = plan(fill, chunks)
    assert {move.destination for move in moves} == {"d2"}
    assert fill.deviation <= BAND


def test_what_is_even_enough_stays() -> None:
    chunks = [Movable(b"c" * 16, 64 << 20, ["d0"])]
    assert plan(Fill.of([place(0, TOTAL * 95 // 100), place(1, TOTAL)]), chunks) == []


def test_the_label_is_kept() -> None:
    chunks = [Movable(bytes([n]) * 16, 256 << 20, ["d0"], "ssd") for n in range(20)]
    places = [place(0, TOTAL // 2, label="ssd"), place(1, TOTAL)]
    assert plan(Fill.of(places), chunks) == []
    places[1] = place(1, TOTAL, label="ssd")
    assert plan(Fill.of(places), chunks)


def test_copies_go_to_servers_with_the_label() -> None:
    fill = Fill.of([place(0, TOTAL), place(1, TOTAL, label="ssd"), place(2, TOTAL, label="ssd")])
    policy = Policy(2, 0, "host", "ssd")
    move = better_place(Movable(b"c", 1, ["d0", "d1"]), policy, fill)
    assert move == Move(b"c", 1, "d0", "d2")
    assert better_place(Movable(b"c", 1, ["d1", "d2"]), policy, fill) is None
    assert better_place(Movable(b"c", 1, ["d0", "away"]), policy, fill) is None


def test_copies_go_into_different_domains() -> None:
    fill = Fill.of(
        [place(0, TOTAL, rack="a"), place(1, TOTAL, rack="a"), place(2, TOTAL, rack="b")]
    )
    chunk = Movable(b"c", 1, ["d0", "d1"])
    move = better_place(chunk, Policy(2, 0, "rack"), fill)
    assert move is not None and move.destination == "d2"
    assert better_place(chunk, Policy(2, 0, "host"), fill) is None
    assert better_place(Movable(b"c", 1, ["d0", "d2"]), Policy(2, 0, "rack"), fill) is None
