"""A mount that is slow to tell attributes while the file `slow` lies beside its directory.

Run like `python -m dfsmount METAD DIRECTORY`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import trio

import dfsmount.__main__
from dfsmount.vfs import Vfs
from dfswire.messages import Attr

SLOW_S = 3.0
SWITCH = Path(sys.argv[2]).parent / "slow"

getattr_ = Vfs.getattr


async def _slow(vfs: Vfs, inode: int) -> Attr:
    """Take the place of Vfs.getattr."""
    if SWITCH.exists():
        await trio.sleep(SLOW_S)
    return await getattr_(vfs, inode)


if __name__ == "__main__":
    with patch.object(Vfs, "getattr", _slow):
        dfsmount.__main__.main()
