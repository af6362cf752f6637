"""The one exception tree, and the one table: error <-> wire code <-> errno.

    DFSError                      everything that dfs raises on purpose
    ├── FileError                 the answer of a file system: has an errno, is never retried
    │   ├── NoEntry  Exists  NotDirectory  IsDirectory  NotEmpty  NotPermitted  AccessDenied
    │   ├── NameTooLong  TooManyLinks  FileTooBig  Invalid  NoAttribute  BadHandle
    │   ├── NoSpace  Stale  InputOutput  Interrupted  NotSupported  NoData
    │   │   └── Full              NoSpace, and no server is away that might have some: for certain
    │   ├── WouldBlock  Deadlock  NoLocks
    ├── ClusterError              the answer of a daemon about the cluster itself
    │   ├── UnknownChunk          this disk does not have it; or not granted to you
    │   ├── CorruptChunk          bytes that do not match their checksum
    │   ├── SessionLost           the session is unknown, expired or closed: open a new one
    │   ├── Leased                another client has it exclusively and was asked; nothing happened
    │   ├── WrongCluster          a server, directory or client that belongs to another cluster
    │   ├── Removed               a server that this cluster has removed
    │   ├── Forbidden             the caller's certificate is for another role
    │   ├── TokenRefused          a chunkd wants another token: metad gives it, with the layout
    │   ├── AlreadyRunning        the same identity twice, as far as is known
    │   │   └── IdentityTaken     and the other process is alive, without doubt
    │   └── DiskFailed            this disk can't be trusted any more
    ├── ProtocolError             the peer speaks another version, or nonsense
    │   └── WrongVersion
    ├── Unavailable               not reached or not in time: outcome unknown, retry
    └── UsageError                a person asked for the impossible: exit status 2

Who uses it: everybody.  It promises that no other errno table exists in the project.
"""

from __future__ import annotations

import errno
from typing import Any


class DFSError(Exception):
    """Base of all errors that dfs raises on purpose."""

    code = "internal"
    errno = errno.EIO
    told: Any = None
    """Of an answer to a session: the messages.EventPosition whose news must be heard first."""

    def __str__(self) -> str:
        text = super().__str__()
        return text or type(self).__name__


class FileError(DFSError):
    """The answer of a file system: final, with an errno that the application sees."""


class NoEntry(FileError):
    code, errno = "no_entry", errno.ENOENT


class Exists(FileError):
    code, errno = "exists", errno.EEXIST


class NotDirectory(FileError):
    code, errno = "not_directory", errno.ENOTDIR


class IsDirectory(FileError):
    code, errno = "is_directory", errno.EISDIR


class NotEmpty(FileError):
    code, errno = "not_empty", errno.ENOTEMPTY


class NotPermitted(FileError):
    code, errno = "not_permitted", errno.EPERM


class AccessDenied(FileError):
    code, errno = "access_denied", errno.EACCES


class NameTooLong(FileError):
    code, errno = "name_too_long", errno.ENAMETOOLONG


class TooManyLinks(FileError):
    code, errno = "too_many_links", errno.EMLINK


class FileTooBig(FileError):
    code, errno = "file_too_big", errno.EFBIG


class Invalid(FileError):
    code, errno = "invalid", errno.EINVAL


class NoAttribute(FileError):
    code, errno = "no_attribute", errno.ENODATA


class BadHandle(FileError):
    code, errno = "bad_handle", errno.EBADF


class NoSpace(FileError):
    code, errno = "no_space", errno.ENOSPC


class Full(NoSpace):
    code = "full"


class Stale(FileError):
    code, errno = "stale", errno.ESTALE


class InputOutput(FileError):
    code, errno = "input_output", errno.EIO


class Interrupted(FileError):
    code, errno = "interrupted", errno.EINTR


class NotSupported(FileError):
    code, errno = "not_supported", errno.ENOTSUP


class WouldBlock(FileError):
    code, errno = "would_block", errno.EAGAIN


class Deadlock(FileError):
    code, errno = "deadlock", errno.EDEADLK


class NoLocks(FileError):
    code, errno = "no_locks", errno.ENOLCK


class NoData(FileError):
    """SEEK_DATA or SEEK_HOLE found none."""

    code, errno = "no_data", errno.ENXIO


class ClusterError(DFSError):
    """The answer of a daemon about the cluster itself; a client may act on it."""


class UnknownChunk(ClusterError):
    code = "unknown_chunk"


class CorruptChunk(ClusterError):
    code = "corrupt_chunk"


class SessionLost(ClusterError):
    code, errno = "session_lost", errno.ESTALE


class Leased(ClusterError):
    code, errno = "leased", errno.EAGAIN


class WrongCluster(ClusterError):
    code = "wrong_cluster"


class Removed(ClusterError):
    code = "removed"


class Forbidden(ClusterError):
    code, errno = "forbidden", errno.EACCES


class TokenRefused(ClusterError):
    code, errno = "token_refused", errno.EACCES


class AlreadyRunning(ClusterError):
    code = "already_running"


class IdentityTaken(AlreadyRunning):
    code = "identity_taken"


class DiskFailed(ClusterError):
    code = "disk_failed"


class ProtocolError(DFSError):
    """The peer sent what cannot be understood."""

    code, errno = "protocol", errno.EPROTO


class WrongVersion(ProtocolError):
    code = "wrong_version"


class Unavailable(DFSError):
    """Not reached, or no answer in time.  Whether a mutation happened is unknown."""

    code, errno = "unavailable", errno.EIO


class UsageError(DFSError):
    """What a person asked for cannot be; the message says what to do instead."""

    code, errno = "usage", errno.EINVAL


def _tree(root: type[DFSError]) -> list[type[DFSError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


BY_CODE: dict[str, type[DFSError]] = {kind.code: kind for kind in reversed(_tree(DFSError))}
"""Wire code -> exception class; the branches without a code of their own share their parent's."""


def from_code(code: str, message: str, told: Any = None) -> DFSError:
    """The exception for a code that came over the network; an unknown code is a plain DFSError."""
    problem = BY_CODE.get(code, DFSError)(message)
    problem.told = told
    return problem
