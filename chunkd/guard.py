"""Who may do what with a chunk here: checks the tokens that metad has minted for its callers.

service.py asks it before it touches a disk.  While this server has a key of metad's, every call
about a chunk needs a token for it; without one (metad uses none) the roles of the call table are
all there is.  Under TLS nothing is answered before metad was asked the first time, as nobody knows
which of the two it is.  Ends of tokens are of metad's time, which comes with the keys: a wrong
clock on this host changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from dfswire import tokens
from dfswire.daemon import CALLER
from dfswire.errors import TokenRefused, Unavailable
from dfswire.hosts import TokenKey
from dfswire.tokens import READ, WRITE, Key

log = logging.getLogger(__name__)

KEYS_MAX = 3  # the present one, and those of the two hours before
TOLD_S = 1.0


class Guard:
    """That of one server.  `closed`: nobody may do anything until metad has answered."""

    def __init__(
        self, *, closed: bool = False, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._closed = closed
        self._clock = clock
        self._keys: dict[int, Key] = {}
        self._ahead_s = 0.0  # metad's time of day less our clock
        self._told: dict[str, float] = {}

    @property
    def newest(self) -> int:
        """The id of the key that came last; 0 for none."""
        return next(reversed(self._keys), 0)

    def registered(self, key: TokenKey | None) -> None:
        """metad has let this server in, with this key; without one it asks for no tokens."""
        self._closed = False
        if key is None:
            self._keys.clear()
        else:
            self.adopt(key)

    def adopt(self, message: TokenKey) -> None:
        """Use a key from now on; the ones before stay good for a while, but none of an epoch that
        a restore has ended."""
        key = Key(message.key_id, message.secret, message.epoch)
        kept = [each for each in self._keys.values() if each.epoch == key.epoch]
        kept = [each for each in kept if each.key_id != key.key_id][1 - KEYS_MAX :]
        self._keys = {each.key_id: each for each in (*kept, key)}
        self._ahead_s = message.now_s - self._clock()

    def check_read(self, chunk: bytes, token: bytes) -> None:
        """May whoever calls read it?  Raises TokenRefused, Unavailable."""
        self._check(chunk, token, READ, tokens.holder_of(CALLER.get()))

    def check_write(self, chunk: bytes, token: bytes, forwarded_for: str) -> str:
        """May it be written?  A chunkd forwards it for the holder that it names.

        Who has the leave; raises TokenRefused, Unavailable.
        """
        caller = CALLER.get()
        forwards = caller is None or caller.role == "chunkd"
        holder = forwarded_for if forwards else tokens.holder_of(caller)
        self._check(chunk, token, WRITE, holder)
        return holder

    def check_sync(self, chunks: Iterable[bytes], given: Iterable[bytes]) -> None:
        """May they be made durable?  That harms nobody, so a token that is over will do, for
        whoever writes at his leisure.  Raises TokenRefused, Unavailable."""
        self._check_open()
        if self._keys:
            holder, known = tokens.holder_of(CALLER.get()), list(given)
            wanted = list(chunks)
            if len(known) != len(wanted):
                raise self._refusal("no token")
            for chunk, token in zip(wanted, known, strict=True):
                self._leave(chunk, token, holder)

    def check_verify(self, chunk: bytes, token: bytes) -> None:
        """As check_read; operators, who may be anybody without TLS, need none."""
        caller = CALLER.get()
        if caller is None or caller.role == "operator":
            self._check_open()
        else:
            self.check_read(chunk, token)

    def _check(self, chunk: bytes, token: bytes, operation: int, holder: str) -> None:
        self._check_open()
        if not self._keys:
            return
        leave = self._leave(chunk, token, holder)
        if leave.operation < operation:
            raise self._refusal("the token is for another operation")
        if leave.ends_s < self._ahead_s + self._clock():
            raise self._refusal("the token is over")

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this server has not heard from metad yet who may do what")

    def _leave(self, chunk: bytes, token: bytes, holder: str) -> tokens.Leave:
        if not token:
            raise self._refusal("no token")
        key = self._keys.get(tokens.key_id_of(token) or 0)
        if key is None:
            raise self._refusal("the token was made with a key that is not known here")
        leave = tokens.check(key, token, chunk, holder)
        if leave is None:
            raise self._refusal("the token is not for this")
        return leave

    def _refusal(self, why: str) -> TokenRefused:
        """Said once a second for each reason: strangers must not fill the log."""
        now = self._clock()
        if now - self._told.get(why, -TOLD_S) >= TOLD_S:
            self._told[why] = now
            log.info("%s is refused: %s", CALLER.get() or "a caller", why)
        return TokenRefused(why)
