"""Identities: what may stand in a certificate, and what is read from one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.errors import UsageError
from dfswire.identity import ROLES, Identity

WORDS = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)


def test_as_it_stands_in_a_certificate_and_in_logs() -> None:
    party = Identity("c1", "chunkd", "host-7.rack_2")
    assert party.uri == "dfs://c1/chunkd/host-7.rack_2"
    assert str(party) == "chunkd host-7.rack_2"


@given(WORDS, st.sampled_from(ROLES), WORDS)
def test_what_is_written_is_read(cluster: str, role: str, name: str) -> None:
    party = Identity(cluster, role, name)
    assert Identity.parse(party.uri) == party


@pytest.mark.parametrize(
    ("cluster", "role", "name", "words"),
    [
        ("c1", "root", "n1", "no role 'root'; roles are metad, chunkd, client, operator"),
        ("c1", "", "n1", "no role ''"),
        ("c1", "chunkd", "a/b", "name 'a/b'"),
        ("c1", "chunkd", "", "name ''"),
        ("c1", "chunkd", "N1", "name 'N1'"),
        ("c1", "chunkd", "n1\n", "name 'n1\\n'"),
        ("c1", "chunkd", "-n", "name '-n'"),
        ("c1", "chunkd", "n.", "name 'n.'"),
        ("c1", "chunkd", "ñ", "name 'ñ'"),
        ("c1", "chunkd", "n" * 64, "1 to 63"),
        ("c/1", "chunkd", "n1", "cluster 'c/1'"),
        ("", "chunkd", "n1", "cluster ''"),
    ],
)
def test_what_cannot_stand_there(cluster: str, role: str, name: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Identity(cluster, role, name)
    assert words in str(refused.value)


def test_the_longest_words() -> None:
    assert Identity("c" * 63, "metad", "n" * 63).name == "n" * 63


@pytest.mark.parametrize(
    "uri",
    [
        *("", "dfs://", "dfs://c1", "dfs://c1/chunkd", "dfs://c1/chunkd/n1/x", "dfs://c1/chunkd/"),
        *("http://c1/chunkd/n1", "DFS://c1/chunkd/n1", "dfs:c1/chunkd/n1", "dfs://c1/root/n1"),
        *("dfs://c1/chunkd/n1?x", "dfs://c1/chunkd/n1#x", "dfs://u@c1/chunkd/n1", " dfs://c1/a/b"),
    ],
)
def test_other_uris_are_nobody(uri: str) -> None:
    with pytest.raises(UsageError):
        Identity.parse(uri)
