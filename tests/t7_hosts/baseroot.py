"""The root file system that all test hosts share: a small Debian 12, made once and kept.

mmdebstrap makes it from Debian's packages; a host is an overlay on it.  It lies in
/var/cache/dfs-test-hosts (or DFS_TEST_CACHE) under a name with the hash of its recipe, so a change
here makes a new one.  It holds nothing of dfs: that comes with the playbooks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
OPERATOR = "ops"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("python3", "python3-venv", "fuse3", "iproute2", "procps"),
)
# Run in the new root.  Nothing in it may be the same on two hosts.
CUSTOMIZE = f"""
useradd --create-home --shell /bin/bash {OPERATOR}
echo '{OPERATOR} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{OPERATOR}
echo 'c /dev/fuse 0666 root root - 10:229' > /etc/tmpfiles.d/dev-fuse.conf
mkdir -p /var/log/journal /srv/dfs
systemctl disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
systemctl mask e2scrub_reap.service getty@.service console-getty.service
: > /etc/machine-id
rm -f /etc/hostname /etc/resolv.conf /etc/ssh/ssh_host_*
"""
BUILD_S = 540.0


def cache() -> Path:
    """Where root file systems are kept between runs."""
    return Path(os.environ.get("DFS_TEST_CACHE", "/var/cache/dfs-test-hosts"))


def base_root() -> Path:
    """The root file system; made if there is none yet (a minute or two, and a network)."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, CUSTOMIZE)).encode()).hexdigest()[:16]
    cache().mkdir(parents=True, exist_ok=True)
    root = cache() / f"{SUITE}-{recipe}"
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one run makes it, others wait for that
        if not root.exists():
            unfinished = cache() / f"{root.name}.unfinished"
            if unfinished.exists():
                shutil.rmtree(unfinished)
            _make(unfinished)
            unfinished.rename(root)
    return root


def _make(root: Path) -> None:
    script = cache() / "customize.sh"
    script.write_text(f"set -e\n{CUSTOMIZE}")
    done = subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--skip=output/dev"),
            f"--include={','.join(PACKAGES)}",
            f'--customize-hook=chroot "$1" sh -s < {script}',
            *(SUITE, str(root)),
        ],
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"mmdebstrap: {done.stderr[-2000:]}"
