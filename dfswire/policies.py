"""Policies: how many copies what is below a directory has, and where; messages of cluster.policy_*.

`dfs policy` sends them and metad/policycalls.py answers.  A policy applies to a directory and to
everything below it that has no policy of its own; what no directory says is the cluster's default.
"""

from __future__ import annotations

from typing import Literal

Domain = Literal["host", "rack", "zone"]
"""What may fail as a whole; copies of a chunk go to different ones as far as there are any."""
