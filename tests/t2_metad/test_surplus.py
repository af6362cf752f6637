"""Copies that are too many: what stays is always enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metad.copies.placement import Candidate
from metad.copies.surplus import Held, best_spread, surplus


def at(
    disk: str, *, server: str = "", rack: str = "", free: int = 50, zone: str = "", host: str = ""
) -> Candidate:
    server = server or f"server-{disk}"
    return Candidate(
        disk=disk,
        server_id=server,
        address=f"{server}:1",
        zone=zone,
        rack=rack,
        host=host or server,
        total_bytes=100,
        free_bytes=free,
    )


def trimmed(*copies: Held, wanted: int = 2) -> list[str]:
    return surplus(copies, wanted).trim


def test_nothing_goes_when_there_are_just_enough() -> None:
    assert trimmed(Held(at("a")), Held(at("b"))) == []
    assert trimmed(Held(at("a")), wanted=2) == []
    assert trimmed() == []


def test_the_copy_on_the_fullest_disk_goes() -> None:
    copies = [Held(at("a", free=30)), Held(at("b", free=10)), Held(at("c", free=20))]
    assert trimmed(*copies) == ["b"]
    assert surplus(copies, 2).keep == ["a", "c"]


def test_failure_domains_matter_more_than_room() -> None:
    copies = [Held(at("a", rack="1")), Held(at("b", rack="1")), Held(at("c", rack="2", free=1))]
    assert surplus(copies, 2).keep in (["a", "c"], ["b", "c"])


def test_the_domains_of_the_policy_matter_most() -> None:
    copies = [
        Held(at("a", zone="1", rack="a")),
        Held(at("b", zone="1", rack="a", host="b")),
        Held(at("c", zone="2", rack="c")),
        Held(at("d", zone="3", rack="d", free=1)),
        Held(at("e", zone="1", rack="e", free=1)),
    ]
    assert surplus(copies, 4, "rack").keep in (["a", "c", "d", "e"], ["b", "c", "d", "e"])
    two = [Held(at(disk, zone=disk[0], rack=disk)) for disk in ("1a", "1b", "2c", "2d")]
    two += [Held(at("3e", zone="3", rack="2c")), Held(at("3f", zone="3", rack="2c", host="f"))]
    assert surplus(two, 4, "rack").keep.count("3e") + surplus(two, 4, "rack").keep.count("3f") < 2


def test_a_copy_that_does_not_count_is_neither_relied_on_nor_condemned() -> None:
    away = Held(at("c"), counts=False)
    assert trimmed(Held(at("a")), Held(at("b")), away) == []
    assert trimmed(Held(at("a")), away, Held(at("d"), counts=False)) == []


def test_an_unwanted_copy_goes_when_the_others_suffice() -> None:
    unwanted = Held(at("a", free=99), unwanted=True)
    assert trimmed(unwanted, Held(at("b"))) == []
    assert trimmed(unwanted, Held(at("b")), Held(at("c"))) == ["a"]
    assert trimmed(unwanted, Held(at("b")), Held(at("c")), Held(at("d", free=1))) == ["a", "d"]


def test_two_disks_of_one_server_are_one_place() -> None:
    one, other = Held(at("a", server="s")), Held(at("b", server="s", free=1))
    assert trimmed(one, other) == []
    assert trimmed(one, other, Held(at("c"))) == ["b"]


def held() -> st.SearchStrategy[list[Held]]:
    place = st.builds(
        at,
        st.sampled_from("abcdefgh"),
        server=st.sampled_from(["s1", "s2", "s3", "s4", "s5"]),
        rack=st.sampled_from("xyz"),
        free=st.integers(0, 100),
    )
    copy = st.builds(Held, place, st.booleans(), st.booleans())
    return st.lists(copy, max_size=7, unique_by=lambda each: each.place.disk)


@given(held(), st.integers(1, 4))
def test_promises(copies: list[Held], wanted: int) -> None:
    found = surplus(copies, wanted)
    by_disk = {each.place.disk: each for each in copies}
    assert not set(found.keep) & set(found.trim)
    assert all(by_disk[disk].counts for disk in found.trim)
    if found.trim:
        kept = [by_disk[disk] for disk in found.keep]
        assert len({each.place.server_id for each in kept}) == len(kept) == wanted
        assert all(each.counts and not each.unwanted for each in kept)
        lasting = [each.place for each in copies if each.counts and not each.unwanted]
        racks = len({each.rack for each in lasting})
        if len({each.server_id for each in lasting}) == len(lasting):
            assert len({each.place.rack for each in kept}) == min(racks, wanted)


def test_the_best_spread_needs_as_many_servers() -> None:
    places = [at("a", server="s"), at("b", server="s"), at("c")]
    assert best_spread(places, 3) == []
    assert {each.server_id for each in best_spread(places, 2)} == {"s", "server-c"}
    assert best_spread(places, 0) == []
