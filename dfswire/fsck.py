"""The check of all metadata that `dfs fsck` asks metad for, and the repair of what it finds.

A finding is an invariant that does not hold; a fix is what was done about one, or would be.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dfswire.messages import Message


class FsckRequest(Message, frozen=True, kw_only=True):
    """`limit`: how many findings at most are described; all are counted.

    `repair`: "plan" says what "do" would do, and changes nothing.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    repair: Literal["no", "plan", "do"] = "no"


class Finding(Message, frozen=True, kw_only=True):
    """One broken invariant: which check, what about, and a sentence."""

    check: str
    subject: str
    message: str


class FsckReport(Message, frozen=True, kw_only=True):
    """`fixes` are what was done, or would be; the findings are those that are left after it."""

    findings: list[Finding]
    count: int
    inodes: int
    dentries: int
    extents: int
    chunks: int
    replicas: int
    orphans: int
    fixes: list[Finding] = []
    fixes_count: int = 0
    repaired: bool = False
