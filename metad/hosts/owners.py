"""Which party's certificate a server belongs to: no chunkd speaks for another one.

Under TLS the first registration of a server binds it to the name in the certificate that was shown;
registrations, heartbeats and all else that is said in its name must come from that party from then
on.  A server whose party was revoked may be taken by another.  Without TLS nobody is bound.  The
binding stands in the server's row, written with the registration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dfswire.daemon import CALLER
from dfswire.errors import Forbidden
from metad.storage.database import Database

Answer = Callable[[Any], Awaitable[Any]]


class Owners:
    """Of all servers; made of what the database remembers."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._party: dict[str, str] = dict(
            db.read("SELECT id, party FROM server WHERE party <> ''")
        )

    def check(self, server_id: str) -> None:
        """Raises Forbidden unless whoever makes this call may speak for the server."""
        caller = CALLER.get()
        if caller is None or caller.role != "chunkd":
            return  # without TLS, or an operator, whom the table of calls lets in
        party = self._party.get(server_id, caller.name)
        if party != caller.name:
            raise Forbidden(
                f"server {server_id} belongs to chunkd {party}, not to {caller}; if {party} is "
                f"no more, 'dfs ca revoke chunkd {party}' frees it"
            )

    def bind(self, server_id: str) -> Callable[[], None]:
        """The server is the caller's from now on; what is returned writes that, in a mutation."""
        caller = CALLER.get()
        if caller is None or self._party.get(server_id) == caller.name:
            return lambda: None
        self._party[server_id] = party = caller.name
        return lambda: self._write(server_id, party)

    def free(self, party: str) -> None:
        """In a mutation: a chunkd was revoked; what it had may be taken by another."""
        self._party = {server: each for server, each in self._party.items() if each != party}
        self._db.change("UPDATE server SET party = '' WHERE party = ?", (party,))

    def only_itself(self, answer: Answer) -> Answer:
        """`answer` for whoever speaks for the server that the request names."""

        async def checked(request: Any) -> Any:
            self.check(request.server_id)
            return await answer(request)

        return checked

    def _write(self, server_id: str, party: str) -> None:
        self._db.change("UPDATE server SET party = ? WHERE id = ?", (party, server_id))
