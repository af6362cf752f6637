"""`dfs policy`: what is asked, what is shown, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dfsmount.cli import cluster, policy
from dfsmount.cli.app import main
from dfswire.policies import PolicyReply, PolicyRequest, PolicyTerms, SetPolicy

REPLY = PolicyReply(
    inode=7,
    terms=PolicyTerms(replicas=3, domain="rack", label="ssd"),
    source=5,
    source_path=b"/a\xff",
    unsatisfied=["there is 1 rack"],
    converging=True,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    monkeypatch.setattr(policy, "ask", lambda *question: asked.append(question) or REPLY)
    return asked


@pytest.mark.parametrize("verb", ["show", "clear"])
def test_show_and_clear(asked: list[Any], capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main(["policy", verb, "/a/b", "--url", "h:1"]) == 0
    assert asked == [("h:1", f"policy.{verb}", PolicyRequest(path=b"/a/b"))]
    assert capsys.readouterr().out == (
        "3 copies, on different racks with label ssd (from /a\\xff)\n"
        "unsatisfied: there is 1 rack\n"
        "what is there follows in the background ('dfs jobs' shows it)\n"
    )
    assert main(["policy", verb, "/a/b", "--url", "h:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source_path"] == "/a\\xff"


def test_set(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--replicas", "3", "--domain", "rack", "--label", "ssd", "--force"]
    assert main(["policy", "set", "/a", *options, "--url", "h:1"]) == 0
    request = SetPolicy(path=b"/a", terms=REPLY.terms, force=True)
    assert asked == [("h:1", "policy.set", request)]
    assert main(["policy", "set", "/a", "--replicas", "2", "--domain", "x", "--url", "h:1"]) == 2
    assert "no domain 'x'; there are apart, host, rack, zone" in capsys.readouterr().err


def test_a_refusal_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    default = PolicyReply(
        inode=1,
        terms=PolicyTerms(replicas=2),
        source=0,
        source_path=b"",
        applied=False,
        unsatisfied=["too few"],
    )
    monkeypatch.setattr(policy, "ask", lambda *_: default)
    assert main(["policy", "set", "/", "--replicas", "8", "--url", "h:1"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "unsatisfied: too few\n", "not what is in force"
    assert "not changed; --force" in shown.err


def test_on_a_mount_the_inode_is_asked_about(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "mount_of", lambda _: SimpleNamespace(metad="m:1"))
    assert main(["policy", "show", str(tmp_path)]) == 0
    assert asked == [("m:1", "policy.show", PolicyRequest(inode=tmp_path.stat().st_ino))]
    monkeypatch.setattr(cluster, "mount_of", lambda _: None)
    assert main(["policy", "show", str(tmp_path)]) == 2


def test_messages_are_checked() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"replicas": 9}', type=PolicyTerms)


def test_chunks_of_another_size(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["policy", "set", "/a", "--url", "h:1", "--replicas", "2", "--chunk-size"]
    assert main([*words, "1048576"]) == 0
    terms = PolicyTerms(replicas=2, chunk_size_bytes=1 << 20)
    assert asked == [("h:1", "policy.set", SetPolicy(path=b"/a", terms=terms))]
    one = msgspec.structs.replace(REPLY, terms=PolicyTerms(replicas=1))
    policy.show(one, as_json=False)
    assert "1 copy (from" in capsys.readouterr().out
    assert main([*words, "1000"]) == 2
    assert "a multiple of 65536" in capsys.readouterr().err
    policy.show(msgspec.structs.replace(REPLY, terms=terms), as_json=False)
    assert "as far apart as possible, in chunks of 1.0 MB (from" in capsys.readouterr().out
