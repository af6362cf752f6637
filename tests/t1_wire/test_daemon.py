"""Configuration, systemd and addresses."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.daemon import (
    load_config,
    notify,
    parse_address,
    software_version,
)
from dfswire.errors import UsageError


@dataclass
class Plain:
    listen: str
    lease_s: float = 20.0


class Struct(msgspec.Struct):
    listen: str
    lease_s: float = 20.0


@pytest.mark.parametrize("kind", [Plain, Struct])
def test_a_good_file(kind: type[Plain], tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('listen = "a:1"\nlease_s = 3\n')
    assert load_config(kind, path) == kind(listen="a:1", lease_s=3.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("listen = ", "Invalid value"),
        ("lease_s = 3", "listen"),
        ('listen = "a:1"\nlease_s = "long"', "lease_s"),
        ('listen = "a:1"\nleese_s = 3', "did you mean 'lease_s'"),
        ('listen = "a:1"\nzzz = 3', "unknown setting 'zzz'$"),
    ],
)
def test_mistakes_name_the_file_and_the_key(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint) as caught:
        load_config(Plain, path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_config(Plain, tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="binary"):
        load_config(Plain, tmp_path / "binary")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host:1", ("host", 1)),
        ("http://10.0.0.1:8000/", ("10.0.0.1", 8000)),
        ("[::1]:0", ("::1", 0)),
        ("a_b.example.org.:65535", ("a_b.example.org.", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    (
        "|host|host:|:1|host:x|host:70000|a b:1|a..b:1|[::g]:1|[v1.a:b]:1|[:1|::1|https://host:1|"
        f"http://host:1/x|http://me@host:1|a:1?x|a:1#x|{'a' * 64}:1"
    ).split("|"),
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parse_address(text)


@given(st.text(alphabet="ab.-_[]:@/%#?1 \\é", max_size=15))
def test_what_is_an_address_is_one_for_httpx_too(text: str) -> None:
    try:
        host, port = parse_address(text)
    except UsageError:
        return
    url = httpx.URL(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    assert (url.host, url.port or 80) == (host.lower(), port)


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + path if abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if abstract else path)
        assert notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


@pytest.mark.parametrize("left_behind", [False, True])
def test_notify_when_the_listener_has_gone(
    left_behind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    if left_behind:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    assert not notify("STOPPING=1")


def test_the_version_is_that_of_the_package() -> None:
    assert software_version()[0].isdigit()
