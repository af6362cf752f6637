"""What operators do to servers and disks: drain, enable, remove; messages of the admin.* calls."""

from __future__ import annotations

from dfswire.hosts import Admin
from dfswire.jobs import JobStatus
from dfswire.messages import Message, Natural

FILES_TOLD_MAX = 100


class Target(Message, frozen=True, kw_only=True):
    """A server (its id, the beginning of it, or its address), or one disk by its id."""

    server: str = ""
    disk: str = ""


class RemoveTarget(Message, frozen=True, kw_only=True):
    """`accept_loss`: also when the last copies of something are there."""

    server: str = ""
    disk: str = ""
    accept_loss: bool = False


class FileLoss(Message, frozen=True, kw_only=True):
    """A file that loses `chunks` of its chunks; `path` is one of its names, empty without any."""

    inode: Natural
    path: bytes
    chunks: Natural


class Losses(Message, frozen=True, kw_only=True):
    """What has no good copy anywhere else that can be reached; `described` are the first files."""

    chunks: Natural = 0
    bytes: Natural = 0
    files: Natural = 0
    described: list[FileLoss] = []


class AdminReply(Message, frozen=True, kw_only=True):
    """What is to be of the target now, and the job that works on it.

    `losses` is what its removal costs; without leave for that, nothing was done.
    """

    server: str
    disk: str
    admin: Admin
    job: JobStatus | None = None
    losses: Losses = Losses()
