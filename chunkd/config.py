"""The settings of chunkd: one TOML file, every setting with its unit and reason.

Loaded by dfswire.daemon.load_config, which refuses unknown names and wrong types.  What can't work
is refused at the start with one clear line, not discovered at night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from dfswire.daemon import check_listen, parse_address
from dfswire.errors import UsageError

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ChunkdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The file given with --config."""

    metad: str
    """Where metad is: "host:port" or "http://host:port"."""

    data: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Data directories, one for each disk; absolute paths."""

    listen: str = "127.0.0.1:9500"
    """Address to serve on; port 0 means any."""

    advertise: str = ""
    """How others reach this server, where it differs from `listen`."""

    tls: str = ""
    """Directory with authority.crt, node.crt and node.key; empty: without TLS."""

    plaintext: bool = False
    """Without TLS it listens on loopback only, unless this is true."""

    zone: str = ""
    rack: str = ""
    labels: list[str] = []
    """Failure domains: copies of a chunk go to different zones, racks and hosts if possible."""

    log_level: str = "INFO"
    log_format: str = "auto"
    """Log lines as "text" or "json"; auto: text on a terminal, else JSON."""

    sync_interval_s: Positive = 5.0
    """Chunks written without fsync are made durable after at most so long."""

    scrub: bool = True
    scrub_period_s: Positive = 7 * 86_400.0
    """Every chunk is read and checked once in this time."""

    scrub_min_bytes_per_s: Count = 1 << 20
    """A scrub pass is never slower than this, so that small stores are soon through."""

    inventory_interval_s: Positive = 600.0
    """How often metad gets the list of all chunks, to find what was lost behind our back..."""

    inventory_changes_s: Positive = 30.0
    """... and how often what has changed since, as far as directories show that they changed."""

    unknown_min_age_s: Positive = 3600.0
    """A chunk that metad does not know is set aside when it is at least this old..."""

    unknown_kept_s: Positive = 7 * 86_400.0
    """... and deleted this much later: a restored metad backup must not destroy newer data."""

    quarantine_kept_s: Positive = 7 * 86_400.0
    """A damaged copy is kept this long, and longer while its chunk has too few good ones."""

    quarantine_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    """Of the disk: when damaged copies take more, the oldest go earlier, if they may go."""

    journal: bool = True
    """Keep a copy of metad's journal on the first disk."""

    journal_kept_s: Positive = 86_400.0
    """Each moment of this time can be restored."""

    journal_max_bytes: Count = 16 << 30
    """With all its snapshots; beyond that, or when little of the disk is free, less time is kept,
    but never less than two snapshots."""

    receive_buffers: Count = 8
    """Chunks being received at once, for each length of the remaining chain; others wait."""

    order_workers: Count = 4
    """Copies, deletes and verifications for metad that run at once."""

    def __post_init__(self) -> None:
        for name in ("metad", "listen", "advertise"):
            if value := getattr(self, name):
                _check(name, value)
        if not self.metad or not self.listen:
            raise ValueError("metad and listen must be addresses, host:port")
        try:
            check_listen(self.listen, self.tls, plaintext=self.plaintext)
        except UsageError as problem:
            raise ValueError(str(problem)) from problem
        host, _ = parse_address(self.listen)
        if host in ("0.0.0.0", "::") and not self.advertise:
            raise ValueError("listen is on all addresses: say in `advertise` how others reach us")
        paths = [Path(path) for path in self.data]
        if relative := [str(path) for path in paths if not path.is_absolute()]:
            raise ValueError(f"data directory {relative[0]!r} is not an absolute path")
        if len({path.resolve() for path in paths}) < len(paths):
            raise ValueError("a data directory is listed twice")

    @property
    def metad_address(self) -> str:
        """metad as "host:port"."""
        return _joined(*parse_address(self.metad))


def _check(name: str, value: str) -> None:
    try:
        parse_address(value)
    except UsageError as problem:
        raise ValueError(f"{name}: {problem}") from problem


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
