"""What a mount is told: where metad is, the directory, and the -o options.

`parse_options` reads the comma list of mount(8) and /etc/fstab; unknown words are refused by name.
Sizes are bytes, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from dfswire.daemon import parse_address
from dfswire.errors import UsageError

MIB = 1 << 20

RELATIME, STRICTATIME, NOATIME = ATIMES = ("relatime", "strictatime", "noatime")
FLAGS = ("allow_other", "ro", "nonempty", "suid", "dev", "noexec", "acl", "nocache", "debug")
IGNORED = frozenset({"rw", "auto", "noauto", "user", "nouser", "defaults", "_netdev", "nofail",
                     "nosuid", "nodev", "exec", "async"})  # fmt: skip
"""Options that mount(8) and fstab add and that say what we do anyway (or nothing to us)."""


@dataclass(frozen=True)
class MountConfig:
    """One mount.

    `soft_s`: fail with EIO-type errors when metad is away this long; 0 waits for ever (a hard
    mount). `dirty_bytes` bounds data that is written but not stored; `cache_bytes` the block cache.
    `atime`: when reading changes the time of the last reading (accesstimes.py); never with `ro`.
    `acl`: POSIX access control lists.  `nocache`: nothing that is read or looked up is remembered,
    neither here nor by the kernel; to tell a mistake of the caches from other mistakes.
    `metrics_listen`: a loopback address for Prometheus; `log_format`: auto, text or json.
    `tls`: the directory of the mount's certificate, key and authority; empty: without TLS.
    """

    metad: str
    directory: str
    allow_other: bool = False
    ro: bool = False
    nonempty: bool = False
    suid: bool = False
    dev: bool = False
    noexec: bool = False
    acl: bool = False
    nocache: bool = False
    debug: bool = False
    atime: str = RELATIME
    soft_s: float = 0.0
    dirty_bytes: int = 256 * MIB
    cache_bytes: int = 256 * MIB
    read_ahead_bytes: int = 4 * MIB  # the kernel asks for 128 KiB at a time without it
    subtype: str = "dfs"
    log_format: str = "auto"
    metrics_listen: str = ""
    tls: str = ""


NUMBERS = {"soft": "soft_s", "dirty_mib": "dirty_bytes", "cache_mib": "cache_bytes",
           "read_ahead_mib": "read_ahead_bytes"}  # fmt: skip
TEXTS = ("log_format", "metrics_listen", "tls")


def parse_options(config: MountConfig, options: str) -> MountConfig:
    """`config` with the options of a comma list.  Raises UsageError."""
    changes: dict[str, bool | float | int | str] = {}
    for word in filter(None, options.split(",")):
        name, _, value = word.partition("=")
        if name in FLAGS and not value:
            changes[name] = True
        elif name in ATIMES and not value:
            changes["atime"] = name
        elif name in NUMBERS and value:
            changes[NUMBERS[name]] = _number(name, value)
        elif name in TEXTS and value:
            changes[name] = value
        elif name not in IGNORED and not name.startswith(("x-", "comment=")):
            known = ", ".join(
                [
                    *FLAGS,
                    *ATIMES,
                    *(f"{number}=N" for number in NUMBERS),
                    *(f"{text}=TEXT" for text in TEXTS),
                ]
            )
            raise UsageError(f"unknown mount option {word!r}; known are: {known}")
    assert set(changes) <= {field.name for field in fields(config)}
    return replace(config, **changes)  # type: ignore[arg-type]  # names checked above


def _number(name: str, value: str) -> float | int:
    try:
        number = float(value)
    except ValueError as problem:
        raise UsageError(f"mount option {name}={value}: not a number") from problem
    if not 0 < number < 1 << 20:
        raise UsageError(f"mount option {name}={value}: must be greater than 0")
    return int(number * MIB) if name.endswith("_mib") else number


def metad_address(text: str) -> str:
    """ "host:port" of a metad URL as people write it.  Raises UsageError."""
    address = text.removeprefix("http://").rstrip("/")
    host, port = parse_address(address)
    return f"{host}:{port}"
