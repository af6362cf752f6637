"""One host with a systemd of its own, booted by systemd-nspawn in an overlay and a namespace.

It can be switched off, rebooted and cut from power like a real one; what it has on its disks stays.
Everything it runs is in one control group, which ends with it.  systemd tells over a socket that it
has booted, so nothing here polls.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.t5_faults.disks import run
from tests.t5_faults.network import NAMESPACES, Network
from tests.t7_hosts.baseroot import OPERATOR
from tests.t7_hosts.groups import end_group

BOOT_S = 60.0
END_S = 60.0
COMMAND_S = 120.0
OPERATOR_ID = 1000
REBOOT = 133  # how systemd-nspawn ends when the host asked for a reboot
# The mounts are made in a mount namespace of this host's own, and go with its last process.
# Copies of this machine's FUSE mounts must not stay in it: the process that serves one would not
# end when it is unmounted.
START = r"""
while read -r _ point kind _; do
    case $kind in fuse | fuse.*) umount -i -l "$(printf '%b' "$point")" ;; esac
done </proc/self/mounts
set -e
echo $$ > "$GROUP/cgroup.procs"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$HOST/upper,workdir=$HOST/work" "$HOST/root"
status={reboot}
while [ "$status" = {reboot} ]; do
    status=0
    systemd-nspawn -D "$HOST/root" --machine="$NAME" --register=no --keep-unit --notify-ready=yes \
        --network-namespace-path="$NETWORK" --console=pipe --resolv-conf=off --timezone=off \
        --link-journal=no --capability=CAP_NET_ADMIN,CAP_SYSLOG \
        --kill-signal=SIGRTMIN+3 "$@" \
        -- /bin/sh -c 'exec /lib/systemd/systemd' || status=$?
done
exit "$status"
""".replace("{reboot}", str(REBOOT))


def _datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@dataclass(frozen=True)
class Access:
    """With which key the operator comes, and which host keys are the right ones."""

    key: Path
    known_hosts: Path

    def ssh(self) -> list[str]:
        """The command without the host."""
        return [
            *("ssh", "-F", "none", "-i", str(self.key), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "ConnectTimeout=20"),
        ]


@dataclass
class Machine:
    """See the module.  `disks` are directories of the host on file systems of their own."""

    name: str
    directory: Path
    base: Path
    group: Path
    network: Network
    access: Access
    disks: Sequence[str] = ()
    _process: subprocess.Popen[bytes] | None = None
    _leader: int = 0
    _boots: int = 0
    _told: threading.Condition = field(default_factory=threading.Condition)
    _notify: socket.socket = field(default_factory=_datagrams)

    def __post_init__(self) -> None:
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True)
        for path in self.disks:
            (self.directory / "disks" / path.strip("/")).mkdir(parents=True)
        self._notify.bind(str(self.directory / "notify"))
        threading.Thread(target=self._listen, daemon=True).start()
        etc = self.directory / "upper/etc"
        (etc / "ssh").mkdir(parents=True)
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        key = etc / "ssh/ssh_host_ed25519_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", key)
        kind, public, *_ = key.with_suffix(".pub").read_text().split()
        with self.access.known_hosts.open("a") as known:
            known.write(f"{self.address} {kind} {public}\n")
        home = self.directory / f"upper/home/{OPERATOR}"
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh/authorized_keys").write_text(self.access.key.with_suffix(".pub").read_text())
        for own in (home, home / ".ssh", home / ".ssh/authorized_keys"):
            os.chown(own, OPERATOR_ID, OPERATOR_ID)

    @property
    def address(self) -> str:
        return self.network.address(self.name)

    # -- power

    def boot(self) -> None:
        """Switch it on; returns when all its services are up."""
        before = self._boots
        self.group.mkdir(parents=True, exist_ok=True)
        binds = [f"--bind={self.directory}/disks{path}:{path}" for path in self.disks]
        with (self.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "slave", "sh", "-c", START, "sh", *binds],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={
                    **os.environ,
                    "SYSTEMD_SECCOMP": "0",
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                    "NOTIFY_SOCKET": str(self.directory / "notify"),
                    "GROUP": str(self.group),
                    "BASE": str(self.base),
                    "HOST": str(self.directory),
                    "NAME": self.name,
                    "NETWORK": str(NAMESPACES / self.network.namespace(self.name)),
                },
            )
        self._wait_booted(before)

    def _listen(self) -> None:
        """Note what systemd tells; it would stand still if nobody read that."""
        booting = False
        while data := self._notify.recv(4096):
            lines = data.decode().splitlines()
            with self._told:
                for line in lines:
                    if line.startswith("X_NSPAWN_LEADER_PID="):
                        self._leader, booting = int(line.partition("=")[2]), True
                if booting and "READY=1" in lines:
                    self._boots, booting = self._boots + 1, False
                    self._told.notify_all()

    def _wait_booted(self, before: int) -> None:
        """Until systemd says that it is up, once more than before."""
        with self._told:
            if not self._told.wait_for(lambda: self._boots > before, BOOT_S):
                console = (self.directory / "console").read_text(errors="replace")
                raise AssertionError(f"{self.name} does not boot: {console[-2000:]}")

    def reboot(self) -> None:
        """As `reboot` typed by the operator."""
        before = self._boots
        self.ssh("sudo systemctl --no-block reboot", check=False)  # it may hang up on us first
        self._wait_booted(before)

    def power_off(self) -> None:
        """In order: all services are stopped."""
        assert self._process is not None
        os.kill(self._leader, signal.SIGRTMIN + 4)
        assert self._process.wait(END_S) == 0
        self._process = None

    def cut_power(self) -> None:
        """At once; its network goes first, since the kernel would answer for the dead."""
        self.network.unplug(self.name)
        self.end()

    def power_on(self) -> None:
        """After `power_off` or `cut_power`."""
        self.network.plug(self.name)
        self.boot()

    def end(self) -> None:
        """End all its processes and nothing else, however they are."""
        end_group(self.group)
        if self._process is not None:
            self._process.wait(END_S)
            self._process = None

    def close(self) -> None:
        self.end()
        self._notify.shutdown(socket.SHUT_RD)  # ends the thread
        self._notify.close()

    # -- the operator

    def ssh(
        self,
        command: str,
        *,
        check: bool = True,
        stdin: str = "",
        timeout_s: float = COMMAND_S,
    ) -> str:
        """Run a shell command as the operator; what it printed, without the last line end."""
        done = subprocess.run(
            self.ssh_command(command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}: status {done.returncode}: {done.stderr}{done.stdout}"
        )
        return done.stdout.removesuffix("\n")

    def ssh_command(self, command: str) -> list[str]:
        """What runs `command` there."""
        return [*self.access.ssh(), f"{OPERATOR}@{self.address}", "--", command]

    def main_pid(self, unit: str) -> int:
        """Of a service, as the host itself counts; 0 while it does not run."""
        return int(self.ssh(f"systemctl show --value -p MainPID {shlex.quote(unit)}"))

    def started(self, unit: str) -> str:
        """Changes with every start of a service, also one that gets the same pid again."""
        return self.ssh(f"systemctl show --value -p InvocationID {shlex.quote(unit)}")

    def wait_started_again(self, unit: str, before: str, within_s: float = BOOT_S) -> float:
        """Until systemd has a new process of the service ready; how long that took."""
        begun = time.monotonic()
        shown = f"systemctl show -p InvocationID -p ActiveState {shlex.quote(unit)}"
        shell = (
            f"for i in $(seq {int(within_s * 5)}); do case $({shown}) in"
            f" *{before}*) ;; *ActiveState=active*) exit 0 ;; esac; sleep 0.2; done; exit 1"
        )
        self.ssh(shell, timeout_s=within_s + COMMAND_S)
        return time.monotonic() - begun

    def journal(self, unit: str, lines: int = 40) -> str:
        """The end of what a service has logged."""
        return self.ssh(
            f"sudo journalctl --no-pager -o cat -n {lines} -u {shlex.quote(unit)}", check=False
        )
