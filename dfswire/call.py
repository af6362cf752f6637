"""What one remote call is: its name, how it travels, and who may make it.

The calls themselves stand in the tables of calls.py, clientcalls.py and operatorcalls.py; see
calls.py for how requests and replies travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One remote call."""

    name: str
    service: str
    method: str
    path: str
    request: Any
    reply: Any
    callers: tuple[str, ...]  # who may: "client", "chunkd", "operator", "guest"
    idempotent: bool = True
    request_body: bool = False
    reply_body: bool = False
    stream: bool = False
