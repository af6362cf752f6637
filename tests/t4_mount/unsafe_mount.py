"""A mount whose fsync always fails with EIO: what still succeeds did not ask for it.

Run like `python -m dfsmount METAD DIRECTORY`.
"""

from __future__ import annotations

from unittest.mock import patch

import dfsmount.__main__
from dfsmount.vfs import Vfs
from dfswire.errors import InputOutput


async def _fail(vfs: Vfs, handle: int) -> None:
    """Take the place of Vfs.fsync."""
    raise InputOutput("not today")


if __name__ == "__main__":
    with patch.object(Vfs, "fsync", _fail):
        dfsmount.__main__.main()
