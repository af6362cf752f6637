"""A mount that acknowledges every invalidation and obeys none: for a test of the tests.

Run like `python -m dfsmount METAD DIRECTORY`.
"""

from __future__ import annotations

from unittest.mock import patch

import dfsmount.__main__
from dfsmount.leases.coherence import Coherence
from dfswire.messages import Invalidation


async def _ignore(coherence: Coherence, invalidations: list[Invalidation]) -> None:
    """Take the place of Coherence.invalidate."""


if __name__ == "__main__":
    with patch.object(Coherence, "invalidate", _ignore):
        dfsmount.__main__.main()
