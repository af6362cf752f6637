"""Who a party of a cluster is: its role and its name, as its certificate says.

A certificate has it as a URI among its alternative names: `dfs://CLUSTER/ROLE/NAME`.  The role
decides which calls may be made (call.py); the name says who it was, in logs and refusals.  Pure:
certificates.py writes such names, securesockets.py reads them from what the peer has proved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dfswire.errors import UsageError

SCHEME = "dfs"
MEMBERS = ("metad", "chunkd", "client", "operator")
GUEST = "guest"
"""Who shows an invitation: may ask once for the certificate of a member, and nothing else."""
ROLES = (*MEMBERS, GUEST)

_WORD = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Identity:
    """One party.  `cluster` is the word that the authority was made with; it signs no other."""

    cluster: str
    role: str
    name: str

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot stand in a certificate."""
        if self.role not in ROLES:
            raise UsageError(f"no role {self.role!r}; roles are {', '.join(ROLES)}")
        for what, word in (("cluster", self.cluster), ("name", self.name)):
            if not _WORD.fullmatch(word):
                raise UsageError(
                    f"{what} {word!r}: give 1 to 63 of a-z, 0-9, '.', '_', '-', "
                    "with a letter or digit at both ends"
                )

    @property
    def uri(self) -> str:
        """As it stands in a certificate."""
        return f"{SCHEME}://{self.cluster}/{self.role}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """What `uri` says.  Raises UsageError."""
        scheme, _, rest = uri.partition("://")
        words = rest.split("/")
        if scheme != SCHEME or len(words) != 3:
            raise UsageError(f"{uri!r} is not the name of a party: dfs://CLUSTER/ROLE/NAME")
        return cls(*words)

    def __str__(self) -> str:
        return f"{self.role} {self.name}"
