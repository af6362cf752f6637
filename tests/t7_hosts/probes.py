"""What a daemon that was taken over would try; run on a host, inside a sandbox and outside of it.

This file is sent to the host and run by its own Python: each probe in a process of its own, since
some cannot be undone.  Standard output is JSON: probe -> "done" or the name of the errno that
denied it.  Arguments: a directory and the port of the daemon, and a file with a `Place` as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """What the caller has put there.  `open` is a directory in which everybody may write."""

    open: str
    readable: str  # a file that everybody may read, in somebody's home
    temporary: str  # the same, in /tmp
    setuid: str  # cat, as root whoever calls it
    device: str  # that everybody may open
    shared_memory: int  # a key; everybody may read and write
    own: str  # the address of this host
    peer: str  # of another one of the cluster; port 22 listens
    elsewhere: str  # an address outside the cluster; port 9 listens


DONE = "done"
MULTICAST = "224.0.0.251"
# x86-64 and aarch64 number these differently; the rest has functions in libc.
NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "add_key": 248, "adjtimex": 159},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "add_key": 217, "adjtimex": 171},
}[os.uname().machine]
CLONE = {"mount": 0x20000, "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000}
PTRACE_SEIZE = 0x4206
KEYRING_OF_PROCESS = -2
ADDR_NO_RANDOMIZE = 0x0040000
CONNECT_S = 3.0

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int) -> int:
    """Raise what the C library says went wrong."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def kernel(name: str, *arguments: object) -> int:
    return must(libc.syscall(NUMBERS[name], *arguments))


def make(path: Path) -> None:
    """A new file, gone again."""
    path.touch(exist_ok=False)
    path.unlink()


def read(path: str) -> None:
    Path(path).read_bytes()


def setuid_file(directory: Path) -> None:
    """A file that would make others who they are not."""
    path = directory / "probe-setuid"
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def device_file(directory: Path) -> None:
    path = directory / "probe-device"
    os.mknod(path, 0o20600, os.makedev(1, 3))
    path.unlink()


def give_away(directory: Path) -> None:
    path = directory / "probe-owner"
    path.touch()
    try:
        os.chown(path, 65534, 65534)
    finally:
        path.unlink()


def control_group(_: Path) -> None:
    path = Path("/sys/fs/cgroup/probe")
    path.mkdir()
    path.rmdir()


def tunable(_: Path) -> None:
    """The same value again."""
    path = Path("/proc/sys/net/ipv4/ip_default_ttl")
    with path.open("r+") as file:
        file.write(file.read())


def by_setuid_program(place: Place) -> None:
    done = subprocess.run([place.setuid, "/etc/shadow"], capture_output=True)
    if done.returncode:
        raise PermissionError(errno.EACCES, "denied to the program")


def trace() -> None:
    """A process of its own, stopped by nobody."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        must(libc.ptrace(PTRACE_SEIZE, child.pid, None, None))
    finally:
        child.kill()
        child.wait()


def measure() -> None:
    """Count the context switches of this process (a software event, so any machine has it)."""
    attributes = struct.pack("IIQ", 1, 128, 3).ljust(128, b"\0")
    kernel("perf_event_open", attributes, 0, -1, -1, 0)


def map_of_bpf() -> None:
    kernel("bpf", 0, struct.pack("IIII", 2, 4, 4, 1).ljust(128, b"\0"), 128)


def writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def mount_something(directory: Path) -> None:
    target = directory / "probe-mount"
    target.mkdir()
    try:
        must(libc.mount(b"probe", os.fsencode(target), b"tmpfs", 0, None))
        must(libc.umount2(os.fsencode(target), 0))
    finally:
        target.rmdir()


def listen(address: str, port: int) -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        one.listen()


def connect(address: str, port: int) -> None:
    """Packets that are taken away are not answered: that is a timeout."""
    try:
        socket.create_connection((address, port), CONNECT_S).close()
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, "no answer") from None


def send(address: str, own: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        one.sendto(b"probe", (address, 9))


def shared_memory(key: int) -> None:
    must(libc.shmget(key, 64, 0))


def probes(own: Path, port: int, place: Place) -> dict[str, Callable[[], Any]]:
    """All of them, by name.  `own` is the directory of the daemon, `port` its own."""
    outside = Path(place.open)
    kinds = socket.SocketKind
    return {
        # What it needs.
        "write in its own directory": lambda: make(own / "probe"),
        "listen on its port": lambda: listen("127.0.0.9", port),
        "connect within the cluster": lambda: connect(place.peer, 22),
        # Files.
        "read /etc/shadow": lambda: read("/etc/shadow"),
        "read /etc/shadow by a set-uid program": lambda: by_setuid_program(place),
        "read in a home directory": lambda: read(place.readable),
        "read what others have in /tmp": lambda: read(place.temporary),
        "write where everybody may": lambda: make(outside / "probe"),
        "write in /etc": lambda: make(Path("/etc/probe")),
        "change its settings": lambda: make(Path("/etc/dfs/probe")),
        "change its program": lambda: make(Path("/opt/dfs/current/bin/probe")),
        "set a kernel tunable": lambda: tunable(own),
        "make a control group": lambda: control_group(own),
        "make a set-uid file": lambda: setuid_file(own),
        "make a device file": lambda: device_file(own),
        "give a file away": lambda: give_away(own),
        "open a device": lambda: os.close(os.open(place.device, os.O_RDWR)),
        "mount": lambda: mount_something(own),
        "change its root": lambda: os.chroot(own),
        # Processes.
        "see processes of others": lambda: read("/proc/1/cmdline"),
        "signal processes of others": lambda: os.kill(1, 0),
        "read the memory of others": lambda: os.close(os.open("/proc/1/mem", os.O_RDONLY)),
        "trace a process": trace,
        "become another user": lambda: os.setresuid(65534, 65534, 65534),
        "allow core dumps": allow_core_dumps,
        "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "another priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 19),
        "new user namespace": lambda: must(libc.unshare(CLONE["user"])),
        "new mount namespace": lambda: must(libc.unshare(CLONE["mount"])),
        "new pid namespace": lambda: must(libc.unshare(CLONE["pid"])),
        "new network namespace": lambda: must(libc.unshare(CLONE["network"])),
        "another personality": lambda: must(libc.personality(ADDR_NO_RANDOMIZE)),
        "writable code": writable_code,
        # The kernel and the host.
        "read what the kernel knows of the clock": lambda: kernel("adjtimex", b"\0" * 256),
        "change the host's name": lambda: socket.sethostname(socket.gethostname()),
        "read the figures of the host": lambda: read("/proc/meminfo"),
        "read the kernel's log": lambda: must(libc.klogctl(10, None, 0)),
        "measure with perf": measure,
        "make a map for BPF": map_of_bpf,
        "keep a key": lambda: kernel("add_key", b"user", b"probe", b"x", 1, KEYRING_OF_PROCESS),
        "shared memory of others": lambda: shared_memory(place.shared_memory),
        # The network.
        "listen below 1024": lambda: listen("127.0.0.9", 80),
        "listen on another port": lambda: listen("127.0.0.9", 9999),
        "see all packets": lambda: socket.socket(socket.AF_PACKET, kinds.SOCK_RAW).close(),
        "send raw packets": lambda: socket.socket(socket.AF_INET, kinds.SOCK_RAW, 1).close(),
        "ask for routes and addresses": lambda: socket.socket(
            socket.AF_NETLINK, kinds.SOCK_RAW
        ).close(),
        "send to a multicast group": lambda: send(MULTICAST, place.own),
        "connect elsewhere": lambda: connect(place.elsewhere, 9),
        "send elsewhere": lambda: send(place.elsewhere, place.own),
    }


def allow_core_dumps() -> None:
    """Not by resource.setrlimit, which does not tell the errno."""
    everything = struct.pack("qq", resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    must(libc.setrlimit(resource.RLIMIT_CORE, everything))


def outcome(probe: Callable[[], Any]) -> str:
    """Of a probe in a process of its own."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            probe()
            code = 0
        except OSError as failure:
            code = failure.errno or 254
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not code:
        return DONE
    return signal.Signals(-code).name if code < 0 else errno.errorcode.get(code, f"broken ({code})")


def main(own: str, port: str, place: str) -> None:
    everything = probes(Path(own), int(port), Place(**json.loads(Path(place).read_text())))
    print(json.dumps({name: outcome(probe) for name, probe in everything.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
