"""Names and files that must be on disk before something else is done (sumsfile.py, restore.py)."""

from __future__ import annotations

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """Of a file its bytes, of a directory its names.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
