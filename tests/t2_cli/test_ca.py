"""`dfs ca`: the files of an authority and its parties, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfsmount.cli.app import main
from dfsmount.cli.lifecycle import give_credentials
from dfsmount.cli.localcluster import LocalCluster, Settings
from dfswire import credentialfiles as module
from dfswire.certificates import Authority, describe, describe_authority, new_key, public_key_of
from dfswire.credentialfiles import issue_credentials, load_authority, make_authority
from dfswire.credentials import Credentials
from dfswire.errors import UsageError
from dfswire.identity import Identity

DAY_S = 86_400.0
PARTY = Identity("c1", "chunkd", "n1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with an authority in `ca`."""
    make_authority(tmp_path / "ca", "c1", 100 * DAY_S)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def inodes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir()}


def usable(directory: Path) -> bool:
    """Whether OpenSSL takes certificate and key for a pair."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        directory / "node.crt", directory / "node.key"
    )
    return True


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


# --- what is made --------------------------------------------------------------------------------


@pytest.mark.usefixtures("loose_umask")
def test_an_authority_and_a_party(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority, node = tmp_path / "a" / "ca", tmp_path / "b" / "node"
    assert main(["ca", "init", str(authority), "--cluster", "c1"]) == 0
    assert {path.name: mode(path) for path in authority.iterdir()} == {
        "authority.crt": 0o644,
        "authority.key": 0o600,
    }
    assert main(["ca", "issue", str(authority), "chunkd", "n1", "--out", str(node)]) == 0
    assert {path.name: mode(path) for path in node.iterdir()} == {
        "authority.crt": 0o644,
        "node.crt": 0o644,
        "node.key": 0o600,
    }
    assert (mode(authority), mode(node)) == (0o700, 0o700)
    assert (node / "authority.crt").read_bytes() == (authority / "authority.crt").read_bytes()
    assert usable(node)
    held = describe((node / "node.crt").read_bytes())
    assert held.identity == PARTY
    assert held.ends_s - held.begins_s == 30 * DAY_S + 300
    own = describe_authority((authority / "authority.crt").read_bytes())
    assert own.ends_s - own.begins_s == 3650 * DAY_S + 300
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"file      {authority}/authority.crt", "identity  authority of c1"]
    assert lines[4:6] == [f"file      {node}/node.crt", "identity  dfs://c1/chunkd/n1"]


@pytest.mark.usefixtures("loose_umask")
def test_a_strict_umask_hides_no_certificate(tmp_path: Path) -> None:
    os.umask(0o077)
    make_authority(tmp_path / "ca", "c1", DAY_S)
    assert mode(tmp_path / "ca" / "authority.crt") == 0o644


def test_days(home: Path) -> None:
    words = ["ca", "issue", str(home / "ca"), "metad", "m1", "--out", str(home / "m")]
    assert main([*words, "--days", "7"]) == 0
    held = describe((home / "m" / "node.crt").read_bytes())
    assert held.ends_s - held.begins_s == 7 * DAY_S + 300
    assert main(["ca", "init", str(home / "ca2"), "--cluster", "c2", "--days", "9"]) == 0
    own = describe_authority((home / "ca2" / "authority.crt").read_bytes())
    assert own.ends_s - own.begins_s == 9 * DAY_S + 300


def test_a_renewal_replaces_the_certificate_alone(home: Path) -> None:
    first = issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    before, inodes_before = contents(home / "n"), inodes(home / "n")
    (home / "n" / "node.crt.part").write_bytes(b"of a run that was interrupted")
    second = issue_credentials(home / "ca", PARTY, home / "n", 2 * DAY_S)
    after = contents(home / "n")
    assert second.serial != first.serial
    assert second == describe(after["node.crt"])
    assert before | {"node.crt": after["node.crt"]} == after
    assert {name: inodes_before[name] == inodes(home / "n")[name] for name in after} == {
        "authority.crt": True,
        "node.crt": False,
        "node.key": True,
    }, "which files are the same as before"
    assert usable(home / "n")


def test_the_directory_may_be_there_already(home: Path) -> None:
    (home / "n").mkdir(mode=0o755)
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    assert mode(home / "n") == 0o755, "it is somebody's, who decides about it"


# --- what is shown -------------------------------------------------------------------------------


def test_show(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    file = home / "n" / "node.crt"
    assert main(["ca", "show", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(file),
        "cluster": "c1",
        "role": "chunkd",
        "name": "n1",
        "begins_s": held.begins_s,
        "ends_s": held.ends_s,
        "serial": f"{held.serial:x}",
    }
    assert main(["ca", "show", str(home / "n" / "authority.crt"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["cluster"], shown["role"], shown["name"]) == ("c1", "authority", "")


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is far from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(
    ("now_s", "status", "error"),
    [
        (1_800_000_000, 0, ""),
        (1_799_999_699, 1, "not yet valid"),
        (1_799_999_700, 0, ""),
        (1_800_086_400, 0, ""),
        (1_800_086_401, 1, "no longer valid"),
    ],
)
def test_show_ends_with_1_when_it_is_not_valid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    now_s: float,
    status: int,
    error: str,
) -> None:
    authority = Authority.new("c1", 99 * DAY_S, now=1_800_000_000)
    pem = authority.issue(PARTY, public_key_of(new_key()), DAY_S, now=1_800_000_000)
    (tmp_path / "x.crt").write_bytes(pem)
    monkeypatch.setattr(time, "time", lambda: now_s)
    assert main(["ca", "show", str(tmp_path / "x.crt")]) == status
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1:] == [
        "identity  dfs://c1/chunkd/n1",
        "valid     2027-01-15 07:55:00 UTC to 2027-01-16 08:00:00 UTC",
        f"serial    {describe(pem).serial:x}",
    ]
    assert error in shown.err
    assert bool(error) == bool(shown.err)


# --- what is refused -----------------------------------------------------------------------------


def refused(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ca", *words]) == 2
    shown = capsys.readouterr()
    assert error in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_second_authority_in_the_same_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(home / "ca")
    words = ["init", str(home / "ca"), "--cluster", "c2"]
    refused(words, "has an authority already; nothing was changed", capsys)
    assert contents(home / "ca") == before
    (home / "ca" / "authority.crt").unlink()
    refused(words, "has authority.key, but not the other half", capsys)
    assert contents(home / "ca") == {"authority.key": before["authority.key"]}


def test_what_the_command_line_may_not_say(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority, out = str(home / "ca"), ["--out", str(home / "n")]
    refused(["issue", authority, "root", "n1", *out], "no role 'root'; roles are metad", capsys)
    refused(["issue", authority, "chunkd", "a/b", *out], "name 'a/b': give 1 to 63", capsys)
    refused(["issue", str(home), "chunkd", "n1", *out], f"'dfs ca init {home}' makes one", capsys)
    refused(["issue", authority, "chunkd", "n1", *out, "--days", "0"], "--days", capsys)
    refused(["issue", authority, "chunkd", "n1", *out, "--days", "36501"], "--days", capsys)
    refused(["init", str(home / "x"), "--cluster", "A"], "cluster 'A': give 1 to 63", capsys)
    refused(["show", str(home / "x")], f"No such file or directory: {home}/x", capsys)
    refused(["show", str(home / "ca" / "authority.key")], "authority.key: this is not a", capsys)
    (home / "file").touch()
    refused(["init", str(home / "file"), "--cluster", "c1"], f"File exists: {home}/file", capsys)
    assert sorted(path.name for path in home.iterdir()) == ["ca", "file"], "nothing was made"


@pytest.mark.parametrize("name", ["authority.crt", "authority.key"])
def test_an_authority_that_is_not_whole(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ["issue", str(home / "ca"), "chunkd", "n1", "--out", str(home / "n")]
    (home / "ca" / name).write_bytes(b"x")
    refused(words, f"{home}/ca/{name}: this is not a", capsys)
    (home / "ca" / name).unlink()
    refused(words, f"no authority in {home}/ca", capsys)


def spoiled_by_other_identity(home: Path) -> str:
    issue_credentials(home / "ca", Identity("c1", "chunkd", "n2"), home / "n", DAY_S)
    return "n belongs to dfs://c1/chunkd/n2, not to dfs://c1/chunkd/n1"


def spoiled_by_other_role(home: Path) -> str:
    issue_credentials(home / "ca", Identity("c1", "operator", "n1"), home / "n", DAY_S)
    return "n belongs to dfs://c1/operator/n1, not to dfs://c1/chunkd/n1"


def spoiled_by_other_authority(home: Path) -> str:
    make_authority(home / "ca2", "c1", DAY_S)
    issue_credentials(home / "ca2", PARTY, home / "n", DAY_S)
    return "n has the authority.crt of another authority"


def spoiled_by_missing_key(home: Path) -> str:
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    (home / "n" / "node.key").unlink()
    return "n has node.crt without its node.key: remove it first"


def spoiled_by_garbage_certificate(home: Path) -> str:
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    (home / "n" / "node.crt").write_bytes(b"x")
    return "n/node.crt: this is not a certificate"


def spoiled_by_garbage_key(home: Path) -> str:
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    (home / "n" / "node.key").write_bytes(b"x")
    return "n/node.key: this is not a private key"


@pytest.mark.parametrize(
    "spoil",
    [
        spoiled_by_other_identity,
        spoiled_by_other_role,
        spoiled_by_other_authority,
        spoiled_by_missing_key,
        spoiled_by_garbage_certificate,
        spoiled_by_garbage_key,
    ],
)
def test_what_is_there_already_is_not_touched(home: Path, spoil: Callable[[Path], str]) -> None:
    error = spoil(home)
    before = contents(home / "n")
    with pytest.raises(UsageError) as problem:
        issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    assert error in str(problem.value)
    assert contents(home / "n") == before


def test_both_authorities_may_sign_while_one_takes_the_place_of_the_other(home: Path) -> None:
    old = (home / "ca" / "authority.crt").read_bytes()
    new = make_authority(home / "new", "c1", 100 * DAY_S).certificate_pem
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    (home / "n" / "authority.crt").write_bytes(old + new)
    for authority in ("new", "ca", "new"):
        issue_credentials(home / authority, PARTY, home / "n", DAY_S)
        assert Credentials(home / "n").identity == PARTY
    assert (home / "n" / "authority.crt").read_bytes() == old + new


# --- interruptions, and two at once --------------------------------------------------------------


class PowerCut(Exception):
    """The machine is gone."""


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the `step`-th system call that changes files or makes them durable not happen."""
    left = [step]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1
            return call(*args, **kwargs)

        return instead

    for name in ("open", "fsync", "fchmod"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for name in ("mkdir", "rename", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


def interruptions(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[int], object]
) -> Iterator[int]:
    """Interrupt `action` at every step, one after the other; ends when it gets through."""
    for step in range(1000):
        with monkeypatch.context() as patch:
            cut_at(patch, step)
            try:
                action(step)
            except PowerCut:
                pass
            else:
                assert step > 5, "there are steps"
                return
        yield step
    raise AssertionError("it never gets through")


def test_an_interrupted_first_certificate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate, or a pair; and the next run gets through."""

    def issue(step: int) -> None:
        issue_credentials(home / "ca", PARTY, home / str(step), DAY_S)

    for step in interruptions(monkeypatch, issue):
        out = home / str(step)
        assert not (out / "node.crt").exists() or usable(out)
        key = (out / "node.key").read_bytes() if (out / "node.key").exists() else None
        issue(step)
        assert key in (None, (out / "node.key").read_bytes()), "what is there is kept"
        assert usable(out)
        assert sorted(contents(out)) == ["authority.crt", "node.crt", "node.key"]


def test_an_interrupted_renewal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair at every moment, of the same key."""
    issue_credentials(home / "ca", PARTY, home / "n", DAY_S)
    before = contents(home / "n")

    def renew(_: int) -> None:
        issue_credentials(home / "ca", PARTY, home / "n", DAY_S)

    for _ in interruptions(monkeypatch, renew):
        now = contents(home / "n")
        assert now["node.key"] == before["node.key"]
        assert now["authority.crt"] == before["authority.crt"]
        assert usable(home / "n")


def test_an_interrupted_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one, none, or half of one, which nothing is signed with and which is not replaced."""

    def make(step: int) -> Authority:
        return make_authority(tmp_path / str(step), "c1", DAY_S)

    ends = set()
    for step in interruptions(monkeypatch, make):
        directory = tmp_path / str(step)
        names = {path.name for path in directory.glob("authority.???")}
        if len(names) == 2:
            ends.add("whole")
            issue_credentials(directory, PARTY, tmp_path / f"{step}n", DAY_S)
            continue
        with pytest.raises(UsageError, match="no authority"):
            load_authority(directory)
        if names:
            ends.add("half")
            with pytest.raises(UsageError, match="but not the other half"):
                make(step)
        else:
            ends.add("none")
            make(step)
    assert ends == {"none", "half", "whole"}


def test_what_was_written_is_durable_before_it_has_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        done.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    issue_credentials(home / "ca", PARTY, home / "a" / "n", DAY_S)
    assert done == [
        *("fsync a", f"fsync {home.name}"),
        *("fsync authority.crt.part", "rename authority.crt.part", "fsync n"),
        *("fsync node.key.part", "rename node.key.part", "fsync n"),
        *("fsync node.crt.part", "rename node.crt.part", "fsync n"),
    ]


def test_two_at_once_make_one_pair(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and renews."""
    within, go_on = threading.Event(), threading.Event()
    keys: list[bytes] = []

    def slow_key() -> bytes:
        within.set()
        assert go_on.wait(20)
        keys.append(new_key())
        return keys[-1]

    monkeypatch.setattr(module, "new_key", slow_key)
    threads = [
        threading.Thread(target=issue_credentials, args=(home / "ca", PARTY, home / "n", DAY_S))
        for _ in range(2)
    ]
    threads[0].start()
    assert within.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive(), "it waits"
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(keys) == 1
    assert usable(home / "n")


def test_an_interrupted_dfs_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is interrupted: the next one gets through, and all parties have a pair."""
    settings = Settings(replicas=1, metad_port=1, chunkd_ports=[2], tls=True)

    def give(step: int) -> None:
        give_credentials(LocalCluster(home / str(step), settings))

    for step in interruptions(monkeypatch, give):
        give(step)
        for party in ("metad", "chunkd1", "client", "operator"):
            assert Credentials(home / str(step) / "tls" / party).identity.name == party
