"""The settings of metad: every limit and every timer, named, with its unit and its reason.

`metad.__main__` loads a MetadConfig from TOML; simulations and tests make one directly.  A value
that can't work is refused when the configuration is made, by a message that names the setting.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dfswire.daemon import check_listen
from dfswire.errors import UsageError
from dfswire.messages import BLOCK_SIZE_BYTES, CHUNK_MAX_BYTES, INLINE_MAX_BYTES
from dfswire.policies import REPLICAS_MAX


class MetadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the comment beside each setting."""

    url: str  # where metadata is kept: "sqlite:////absolute/path/metad.db"
    cluster_id: str = ""  # if given: of no other cluster, and a missing database is not made anew
    listen: str = "127.0.0.1:9400"  # "host:port"; loopback until somebody decides otherwise
    tls: str = ""  # directory with authority.crt, node.crt and node.key; empty: without TLS
    plaintext: bool = False  # without TLS it listens on loopback only, unless this is true
    authority: str = ""  # directory of the cluster's authority, to sign certificates; with tls only
    tokens: Literal["auto", "on", "off"] = "auto"  # chunkds ask for them; auto: with tls
    certificate_s: float = 7 * 86_400.0  # their life; they are renewed when two thirds are over
    log_level: str = "INFO"
    log_format: str = "auto"  # "text" or "json"; auto: text on a terminal, else JSON

    replicas: int = 2  # copies of each chunk; the loss of replicas - 1 servers loses nothing
    chunk_size_bytes: int = 4 << 20  # large enough that a chunk costs transfer, not round trips
    inline_max_bytes: int = INLINE_MAX_BYTES  # files up to this size live in metadata alone

    lease_s: float = 20.0  # how long a client may trust its cache without hearing from metad
    fence_s: float = 30.0  # when metad stops waiting for a silent client; > lease_s by clock drift
    renew_s: float = 5.0  # how often clients renew: three may be lost before the lease ends
    sign_of_life_s: float = 5.0  # an idle event stream says something this often
    held_inodes_max: int = 1_000_000  # remembered per session (about 100 bytes each)
    session_locks_max: int = 65_536  # byte ranges locked by one session; it may wait for as many

    heartbeat_s: float = 1.0  # how often chunkds report
    suspect_s: float = 3.0  # no new chunks go to a server that is silent for so long
    down_s: float = 8.0  # after this long its copies are missing: seen within 10 s of its death
    repair_after_s: float = 30.0  # from down to the first copy: a reboot should not move the disk
    transfers_per_disk: int = 32  # repair copies in flight that touch one disk; of small chunks 16x
    repair_disk_bytes_per_s: int = 100 << 20  # of copies from or to one disk: readers want it too
    repair_bytes_per_s: int = 1 << 30  # of all copies together; 0: no limit, here and above
    repair_reserve_percent: float = 5.0  # of a disk that repair leaves free, for writers
    trim_after_s: float = 60.0  # a server must be up for so long before copies elsewhere may go
    order_timeout_s: float = 60.0  # an order without a result is sent again

    rebalance_band: float = 0.1  # copies move when a disk's used share is so far from the mean

    grant_expiry_s: float = 600.0  # a granted chunk that nobody committed is garbage after this
    reclaim_grace_s: float = 3600.0  # unreferenced chunks stay this long: readers may have them...
    restore_window_s: float = 7200.0  # ... and this long, for a restore to a moment before that
    reclaim_early_percent: float = 10.0  # but not so long with less free on a disk; 0: always
    gone_after_s: float = 3600.0  # deletes do not wait for a server that is down for longer
    compaction_interval_s: float = 3600.0  # how often fragmented files are looked for
    compaction_idle_s: float = 300.0  # only in files that nobody has changed for so long
    journal_copies: int = 1  # chunkds that must have a change on disk before it is acknowledged
    journal_wait_s: float = 1.0  # for which this long is waited, then it is done without them
    snapshot_interval_s: float = 3600.0  # how often chunkds get a copy of the whole database...
    snapshot_journal_bytes: int = 64 << 20  # ... and earlier when replaying so much would be due
    maintenance_s: float = 1.0  # how often expiry, repair and reclaim look for work

    @property
    def uses_tokens(self) -> bool:
        """Do chunkds ask their callers for tokens?"""
        return self.tokens == "on" or (self.tokens == "auto" and bool(self.tls))

    def __post_init__(self) -> None:
        check_listen(self.listen, self.tls, plaintext=self.plaintext)
        _require(bool(self.tls) or not self.authority, "authority", "empty without tls")
        _require(1 <= self.replicas <= REPLICAS_MAX, "replicas", f"1 to {REPLICAS_MAX}")
        _require(
            BLOCK_SIZE_BYTES <= self.chunk_size_bytes <= CHUNK_MAX_BYTES
            and self.chunk_size_bytes % BLOCK_SIZE_BYTES == 0,
            "chunk_size_bytes",
            f"a multiple of {BLOCK_SIZE_BYTES}, at most {CHUNK_MAX_BYTES}",
        )
        _require(
            0 <= self.inline_max_bytes <= INLINE_MAX_BYTES,
            "inline_max_bytes",
            f"0 to {INLINE_MAX_BYTES}",
        )
        _require(0 < self.rebalance_band <= 1, "rebalance_band", "greater than 0, at most 1")
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, name, "greater than 0")
        for smaller, larger in _ASCENDING:
            _require(
                getattr(self, smaller) < getattr(self, larger), smaller, f"smaller than {larger}"
            )
        _require(0 <= self.journal_copies <= REPLICAS_MAX, "journal_copies", f"0 to {REPLICAS_MAX}")
        _require(self.repair_after_s >= 0, "repair_after_s", "0 or more")
        _require(self.trim_after_s >= 0, "trim_after_s", "0 or more")
        for name in ("repair_disk_bytes_per_s", "repair_bytes_per_s"):
            _require(getattr(self, name) >= 0, name, "0 or more")
        _require(0 <= self.repair_reserve_percent < 100, "repair_reserve_percent", "0 to 99")
        _require(self.reclaim_grace_s >= 0, "reclaim_grace_s", "0 or more")
        _require(self.restore_window_s >= 0, "restore_window_s", "0 or more")
        _require(0 <= self.reclaim_early_percent < 100, "reclaim_early_percent", "0 to 99")


_POSITIVE = (
    "certificate_s",
    "renew_s",
    "sign_of_life_s",
    "held_inodes_max",
    "session_locks_max",
    "heartbeat_s",
    "transfers_per_disk",
    "order_timeout_s",
    "grant_expiry_s",
    "gone_after_s",
    "compaction_interval_s",
    "journal_wait_s",
    "snapshot_interval_s",
    "snapshot_journal_bytes",
    "maintenance_s",
)
_ASCENDING = (
    ("renew_s", "lease_s"),
    ("sign_of_life_s", "lease_s"),
    ("lease_s", "fence_s"),
    ("heartbeat_s", "suspect_s"),
    ("suspect_s", "down_s"),
)


def _require(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise UsageError(f"setting {name} must be {rule}")
