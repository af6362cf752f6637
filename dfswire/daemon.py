"""What every dfs process needs around its real work: configuration, systemd, addresses, and what is
known of the request that is being served: its id, and who makes it.

Used by the `__main__` of each daemon, by the mount and by the command line.  A mistake that a
person can correct is a `UsageError` whose text names the file and the key.
"""

from __future__ import annotations

import contextvars
import difflib
import functools
import importlib.metadata
import ipaddress
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from dfswire.errors import UsageError
from dfswire.identity import Identity

T = TypeVar("T")

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE | re.ASCII)

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("dfs_request_id", default="")
"""The request that this task is serving; calls made meanwhile carry the same id on."""

CALLER: contextvars.ContextVar[Identity | None] = contextvars.ContextVar("dfs_caller", default=None)
"""Who has proved to make that request; None where nobody has to, without TLS."""

SHOWN: contextvars.ContextVar[bytes] = contextvars.ContextVar("dfs_shown", default=b"")
"""The certificate that he has proved it with (DER); empty without TLS."""


@functools.cache  # looked for in the files of all installed packages
def software_version() -> str:
    """The version of the installed package, for people and for `Hello`."""
    return importlib.metadata.version("dfsmount")


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of "host:port", "[v6]:port" or "http://host:port".  Raises UsageError."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise UsageError(f"not an address: {text!r} ({problem})") from problem
    extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme != "http" or not host or not _is_host(host) or port is None or extra:
        raise UsageError(f"not an address: {text!r}; give host:port or http://host:port")
    return host, port


def is_loopback(address: str) -> bool:
    """Whether only programs of this host reach "host:port".  Raises UsageError."""
    host, _ = parse_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_listen(address: str, tls: str, *, plaintext: bool) -> None:
    """Refuse to talk in the clear with other hosts unless somebody wants that.

    Raises UsageError.
    """
    if not tls and not plaintext and not is_loopback(address):
        raise UsageError(
            f"listen = {address!r} is for other hosts too, and without TLS whoever reaches it may "
            "do all: set tls to a directory with credentials ('dfs ca' makes them), or, in a "
            "network that is safe, plaintext = true"
        )


def _is_host(text: str) -> bool:
    if ":" not in text:
        return len(text) < 254 and _HOST_NAME.fullmatch(text) is not None
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def load_config(kind: type[T], path: str | Path) -> T:
    """The TOML file at `path` as a `kind` (a dataclass or msgspec struct).  Raises UsageError.

    A key that `kind` does not know is refused, with the nearest known one: a setting that is
    silently ignored is worse than a daemon that does not start.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(f"cannot read {path}: {problem.strerror}") from problem
    except ValueError as problem:  # TOML syntax, or not UTF-8
        raise UsageError(f"{path}: {problem}") from problem
    _refuse_unknown_keys(kind, raw, path)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as problem:
        raise UsageError(f"{path}: {problem}") from problem


def _refuse_unknown_keys(kind: type[T], raw: dict[str, object], path: str | Path) -> None:
    shape = msgspec.inspect.type_info(kind)
    known = [field.encode_name for field in getattr(shape, "fields", ())]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{path}: unknown setting {key!r}{hint}")


def notify(state: str) -> bool:
    """Tell systemd about this process ("READY=1", "STATUS=..."); False when nobody listens."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return False
    address = "\0" + where[1:] if where.startswith("@") else where
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except (FileNotFoundError, ConnectionRefusedError):
            # Whoever started us waited for READY=1 only (`dfs up`): no reason not to go on.
            return False
    return True
