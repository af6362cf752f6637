"""The compiled library extra.c as Python sees it; importing this loads it.

It must be imported before pyfuse3 (`fuse.py` does so): the dynamic linker binds pyfuse3's calls to
the first function of a name that it finds.  Where the library was not built, or cannot be loaded,
`LIBRARY` is None and `MISSING` says why, in words for an operator.  The variable DFS_LOWLEVEL=off
does the same.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ANSWERED = 999  # extra.c: the errno of a request that was answered early
SWITCH = "DFS_LOWLEVEL"


class Kind(IntEnum):
    """The operations that the library can add; `enum kind` of extra.c."""

    GETLK = 0
    SETLK = 1
    FLOCK = 2
    LSEEK = 3
    FALLOCATE = 4
    COPY_FILE_RANGE = 5
    IOCTL = 6
    TMPFILE = 7


class Request(ctypes.Structure):
    """The request that is being dispatched: `struct dfs_request` of extra.c, which explains it."""

    unique: int
    owner: int
    opcode: int
    pid: int
    flags: int
    _fields_ = [
        ("unique", ctypes.c_uint64),
        ("owner", ctypes.c_uint64),
        ("opcode", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("flags", ctypes.c_int32),
    ]


class Call(ctypes.Structure):
    """An operation that pyfuse3 does not know: `struct dfs_call` of extra.c."""

    request: int
    unique: int
    inode: int
    handle: int
    owner: int
    offset: int
    length: int
    inode_out: int
    handle_out: int
    offset_out: int
    kind: int
    argument: int
    command: int
    lock_type: int
    lock_pid: int
    pid: int
    uid: int
    gid: int
    data_bytes: int
    reply_room_bytes: int
    _fields_ = [
        ("request", ctypes.c_void_p),
        ("unique", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("handle", ctypes.c_uint64),
        ("owner", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("inode_out", ctypes.c_uint64),
        ("handle_out", ctypes.c_uint64),
        ("offset_out", ctypes.c_int64),
        ("kind", ctypes.c_uint32),
        ("argument", ctypes.c_int32),
        ("command", ctypes.c_uint32),
        ("lock_type", ctypes.c_int32),
        ("lock_pid", ctypes.c_int32),
        ("pid", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("data_bytes", ctypes.c_uint32),
        ("reply_room_bytes", ctypes.c_uint32),
        ("data_", ctypes.c_uint8 * 64),
    ]

    @property
    def data(self) -> bytes:
        """What came with an ioctl."""
        return bytes(self.data_[: self.data_bytes])


_OnCall = ctypes.CFUNCTYPE(None, ctypes.POINTER(Call))
_OnInterrupt = ctypes.CFUNCTYPE(None, ctypes.c_uint64)


class Library:
    """The functions of extra.c and, through it, the replies of libfuse."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when it cannot be loaded or is another one."""
        # RTLD_NOW: what libfuse lacks is noticed here, and not in the middle of an operation.
        self._functions = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
        if self.sizes() != (ctypes.sizeof(Request), ctypes.sizeof(Call)):
            raise OSError("it was built from older or newer sources: install dfs again")
        self.current = Request.in_dll(self._functions, "dfs_current")
        self._answer_early = self._function("dfs_answer_early", ctypes.c_uint64, ctypes.c_int)
        self._reply_err = self._function("fuse_reply_err", ctypes.c_void_p, ctypes.c_int)
        self._reply_write = self._function("fuse_reply_write", ctypes.c_void_p, ctypes.c_size_t)
        self._reply_lseek = self._function("fuse_reply_lseek", ctypes.c_void_p, ctypes.c_int64)
        self._reply_ioctl = self._function(
            "fuse_reply_ioctl", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
        )
        self._reply_lock = self._function(
            "dfs_reply_lock",
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int32,
        )
        self._callbacks: list[object] = []  # as long as C may call them

    def _function(self, name: str, *arguments: type) -> Callable[..., int]:
        function = self._functions[name]
        function.restype = ctypes.c_int
        function.argtypes = arguments
        return function

    def attach(
        self,
        kinds: set[Kind],
        on_call: Callable[[Call], None],
        on_interrupt: Callable[[int], None],
    ) -> None:
        """Have these operations, and interrupts, from the next pyfuse3.init on.

        Both are called in the thread that pyfuse3's loop runs in, and must not raise.
        """
        call = _OnCall(lambda pointer: on_call(Call.from_buffer_copy(pointer.contents)))
        interrupt = _OnInterrupt(on_interrupt)
        self._callbacks += [call, interrupt]
        self._functions.dfs_attach(sum(1 << kind for kind in kinds), call, interrupt)

    def sizes(self) -> tuple[int, int]:
        """Bytes of `Request` and `Call` as the compiler laid them out."""
        sizes = ctypes.c_size_t(), ctypes.c_size_t()
        if not hasattr(self._functions, "dfs_sizes"):
            raise OSError("it is another library")
        self._functions.dfs_sizes(ctypes.byref(sizes[0]), ctypes.byref(sizes[1]))
        return sizes[0].value, sizes[1].value

    # Answers.  That one does not arrive means that its request, or the mount, is gone.

    def answer_early(self, unique: int, error: int) -> None:
        """Answer while the handler goes on; it must end with the error ANSWERED."""
        self._answer_early(unique, error)

    def reply_error(self, call: Call, error: int) -> None:
        """Also for success without more to say (0)."""
        self._reply_err(call.request, error)

    def reply_count(self, call: Call, count: int) -> None:
        self._reply_write(call.request, count)

    def reply_offset(self, call: Call, offset: int) -> None:
        self._reply_lseek(call.request, offset)

    def reply_ioctl(self, call: Call, data: bytes) -> None:
        self._reply_ioctl(call.request, 0, data, len(data))

    def reply_lock(self, call: Call, kind: int, start: int, length: int, pid: int) -> None:
        self._reply_lock(call.request, kind, start, length, pid)


def load(directory: Path) -> tuple[Library | None, str]:
    """The library in `directory`; when there is none, None and the reason."""
    if "pyfuse3" in sys.modules:
        raise ImportError("dfsmount.lowlevel.library must be imported before pyfuse3")
    if os.environ.get(SWITCH) == "off":
        return None, f"{SWITCH}=off is set"
    for suffix in EXTENSION_SUFFIXES:
        if (path := directory / f"extra{suffix}").exists():
            try:
                return Library(path), ""
            except OSError as problem:
                return None, f"{path} cannot be used ({problem})"
    return None, "its compiled part is not installed (building it needs gcc and libfuse3-dev)"


LIBRARY, MISSING = load(Path(__file__).parent)
