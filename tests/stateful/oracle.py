"""The file system that is always right: ext4 in a file of its own, or what the tests stand on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE_BYTES = 512 << 20  # the file that holds it is mostly holes


@contextlib.contextmanager
def ext4(directory: Path) -> Iterator[Path]:
    """A directory on a fresh ext4.  Where none can be mounted, one of the local file system.

    Device nodes can't be opened there, as on a mount of ours.
    """
    image, point = directory / "ext4.image", directory / "ext4"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    mounted = False
    for command in (
        ["mkfs.ext4", "-q", "-F", str(image)],
        ["mount", "-o", "loop,nodev,nosuid", str(image), str(point)],
    ):
        try:
            mounted = not subprocess.run(command, capture_output=True).returncode
        except FileNotFoundError:
            mounted = False
        if not mounted:
            break
    try:
        place = point / "oracle"
        place.mkdir()
        yield place
    finally:
        if mounted:
            # Lazily: a test that failed may have left something open.
            subprocess.run(["umount", "--lazy", str(point)], check=True)
        image.unlink()
