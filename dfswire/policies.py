"""Policies: how many copies what is below a directory has, and where; messages of cluster.policy_*.

`dfs policy` sends them and metad/operators/policycalls.py answers.  A policy applies to a directory
and to everything below it that has no policy of its own; what no directory says is the cluster's
default.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dfswire.messages import BLOCK_SIZE_BYTES, CHUNK_MAX_BYTES, Message, Natural

REPLICAS_MAX = 8

Domain = Literal["apart", "host", "rack", "zone"]
"""What may fail as a whole; copies of a chunk go to different ones as far as there are any.

"apart": to servers as far apart as there are; what they have in common is no shortcoming.
"""


DOMAINS: tuple[Domain, ...] = ("apart", "host", "rack", "zone")  # from the least on


def where_of(domain: Domain) -> str:
    """For people: on different hosts, and so on."""
    return "as far apart as possible" if domain == "apart" else f"on different {domain}s"


class PolicyTerms(Message, frozen=True, kw_only=True):
    """`label`: servers must have it to take copies; empty: any server.

    `chunk_size_bytes`: of new chunks, whole blocks; 0: as the cluster's default says.
    """

    replicas: Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]
    domain: Domain = "apart"
    label: str = ""
    chunk_size_bytes: Natural = 0

    def __post_init__(self) -> None:
        if self.chunk_size_bytes % BLOCK_SIZE_BYTES or self.chunk_size_bytes > CHUNK_MAX_BYTES:
            raise ValueError(
                f"a chunk size is a multiple of {BLOCK_SIZE_BYTES}, at most {CHUNK_MAX_BYTES}"
            )


class PolicyRequest(Message, frozen=True, kw_only=True):
    """About a directory (to show also a file): by inode number, or by path from the root."""

    inode: int = 0
    path: bytes = b""


class SetPolicy(Message, frozen=True, kw_only=True):
    """`force`: also when the cluster cannot do that now; copies are then as good as they can be."""

    inode: int = 0
    path: bytes = b""
    terms: PolicyTerms
    force: bool = False


class PolicyReply(Message, frozen=True, kw_only=True):
    """What applies to `inode`, and from which directory (0: it is the cluster's default).

    `applied` is False when it was refused, because of what `unsatisfied` says.  `converging`:
    chunks somewhere may still follow an older policy, or some that follow this one have too few
    copies, or copies elsewhere.
    """

    inode: int
    terms: PolicyTerms
    source: int
    source_path: bytes
    applied: bool = True
    unsatisfied: list[str] = []
    converging: bool = False
