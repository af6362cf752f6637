"""Renews the certificate of a process while it runs: when two thirds of its life are over.

metad, chunkds and mounts run one beside their work, with a function that has a request signed:
metad by itself, the others by a call to metad.  The key stays; the new certificate is in its file,
durable, before it is used, and connections that begin later show it.  While nobody signs, it tries
again and again, and complains as soon as little time is left; certificates that somebody renews by
other means (`dfs ca issue`) are all the same to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from dfswire.client import Client
from dfswire.credentials import Credentials
from dfswire.errors import DFSError

log = logging.getLogger(__name__)

DUE_SHARE = 2 / 3  # of its life, after which a certificate is renewed
URGENT_SHARE = 1 / 6  # ... and with which left somebody has to be told that it was not
LOOK_MAX_S = 60.0  # somebody else may renew it, and the host may have slept
RETRY_SHARE = 1 / 50  # of its life, between two tries...
RETRY_MIN_S, RETRY_MAX_S = 1.0, 600.0  # ... but within these
TOLD_AGAIN_S = 3600.0
CALL_DEADLINE_S = 10.0

Run = Callable[[Callable[[], object]], Awaitable[object]]
Sign = Callable[[bytes], Awaitable[bytes]]
"""A signing request -> the certificate, both PEM.  Raises DFSError, OSError."""


class Renewal:
    """That of one process."""

    def __init__(
        self,
        credentials: Credentials,
        sign: Sign,
        *,
        wall: Callable[[], float] = time.time,
        run: Run = trio.to_thread.run_sync,
    ) -> None:
        """`run` calls a function that waits for a disk."""
        self._credentials = credentials
        self._sign = sign
        self._wall = wall
        self._run = run
        self._told, self._told_s = "", 0.0

    async def run_forever(self) -> None:
        """Until cancelled."""
        while True:
            left_s = self.due_s - self._wall()
            if left_s > 0:
                await trio.sleep(min(left_s, LOOK_MAX_S))
                self._credentials.look()
            elif not await self.run_once():
                retry_s = max(self._life_s * RETRY_SHARE, RETRY_MIN_S)
                await trio.sleep(min(retry_s, RETRY_MAX_S))
                self._credentials.look()

    @property
    def due_s(self) -> float:
        """When it is to be renewed, in Unix seconds."""
        return self._credentials.ends_s - self._life_s * (1 - DUE_SHARE)

    async def run_once(self) -> bool:
        """Renew it now; False when that did not succeed."""
        from dfswire.credentialfiles import replace_certificate, signing_request

        directory = self._credentials.directory
        try:
            certificate = await self._sign(signing_request(directory))
            await self._run(partial(replace_certificate, directory, certificate))
        except (DFSError, OSError) as problem:
            self._complain(str(problem))
            return False
        self._credentials.look()
        self._told, self._told_s = "", 0.0
        return True

    def _complain(self, reason: str) -> None:
        """Once while there is time, and every hour when there is little left."""
        now_s = self._wall()
        left_s = self._credentials.ends_s - now_s
        urgent = left_s < self._life_s * URGENT_SHARE
        again = urgent and now_s - self._told_s >= TOLD_AGAIN_S
        if reason == self._told and not again:
            return
        self._told, self._told_s = reason, now_s if urgent else 0.0
        log.log(
            logging.WARNING if urgent else logging.INFO,
            "the certificate of %s, which ends in %.0f s, is not renewed: %s",
            self._credentials.identity,
            left_s,
            reason,
        )

    @property
    def _life_s(self) -> float:
        return self._credentials.ends_s - self._credentials.signed_s


def signed_by_metad(client: Client, metad: str) -> Sign:
    """The `sign` of everybody but metad, which is at the address `metad`."""

    async def sign(request_pem: bytes) -> bytes:
        from dfswire.admission import Sign as Message

        reply = await client.call(
            "admission.renew",
            metad,
            Message(request=request_pem.decode()),
            deadline_s=CALL_DEADLINE_S,
        )
        certificate: str = reply.certificate
        return certificate.encode()

    return sign
