"""A mount that acknowledges every invalidation and obeys none: for a test of the tests.

Run like `python -m dfsmount METAD DIRECTORY`.
"""

from __future__ import annotations

from unittest.mock import patch

import dfsmount.__main__
from dfsmount.leases.coherence import Coherence
from dfsmount.ports import Forgotten
from dfswire.messages import Invalidation


def _ignore(coherence: Coherence, invalidations: list[Invalidation]) -> Forgotten:
    """Take the place of Coherence.forget: nothing is, and the kernel need not either."""
    return Forgotten()


if __name__ == "__main__":
    with patch.object(Coherence, "forget", _ignore):
        dfsmount.__main__.main()
