"""Two processes with one identity: is the first one alive, or only not known to be dead yet?

Pure; identities.py asks.  Whoever claims an identity while another process has it is refused, and
may try again: a server that was killed and started elsewhere waits so for the end of its
predecessor.  When the first one has sent heartbeats since the claim, there is nothing to wait for:
the claimant is a clone, and is told so for good.
"""

from __future__ import annotations

from dfswire.errors import AlreadyRunning, IdentityTaken

BEATS_MIN = 2  # one may have been under way when its sender died
CLAIMS_MAX = 64  # remembered; a clone that is started again and again is a new one each time


class Doubles:
    """Counts heartbeats, and remembers how many there were at the first refusal of a claimant."""

    def __init__(self) -> None:
        self._beats: dict[str, int] = {}
        self._claims: dict[tuple[str, str, str], int] = {}

    def heard(self, server_id: str) -> None:
        """A heartbeat of the process that has this identity."""
        self._beats[server_id] = self._beats.get(server_id, 0) + 1

    def registered(self, server_id: str) -> None:
        """Another process has the identity from now on; what was known is of the last one."""
        for claim in [each for each in self._claims if each[0] == server_id]:
            del self._claims[claim]

    def refusal(self, holder: str, claimant: tuple[str, str], text: str) -> AlreadyRunning:
        """What to raise; `claimant` are the identity and the process of who is refused."""
        beats = self._beats.get(holder, 0)
        first = self._claims.setdefault((holder, *claimant), beats)
        if len(self._claims) > CLAIMS_MAX:
            del self._claims[next(iter(self._claims))]
        return IdentityTaken(text) if beats - first >= BEATS_MIN else AlreadyRunning(text)
