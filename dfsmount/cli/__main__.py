"""`python -m dfsmount.cli`: the `dfs` command where no console script is on PATH.

The mount helper that `dfs install-mount-helper` writes starts it like this, so that it works from
fstab, before anybody has a PATH.
"""

from __future__ import annotations

import sys

from dfsmount.cli.app import main

sys.exit(main())
