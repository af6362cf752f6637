"""KernelCaches: what is written to /dev/fuse, and what the kernel's refusals of it mean."""

from __future__ import annotations

import errno
import os

import pytest

from dfsmount.adapter.kernelcaches import KernelCaches


class Refusing(KernelCaches):
    """A kernel that answers every notification with an error."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def _notify(self, code: int, body: bytes) -> None:
        raise OSError(self._number, os.strerror(self._number))


def test_an_inode_that_the_kernel_was_told_of_and_does_not_know_is_on_its_way() -> None:
    kernel = Refusing(errno.ENOENT)
    assert kernel.forget_inode(7, data=True), "it was never told of it"
    kernel.count(7)
    assert not kernel.forget_inode(7, data=True)
    assert not kernel.forget_pages(7, 0, None)
    kernel.forget(7, 1)
    assert kernel.forget_inode(7, data=True), "it has given it back"


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ENODEV])
def test_a_kernel_that_has_unmounted_knows_nothing_and_learns_nothing(number: int) -> None:
    kernel = Refusing(number)
    kernel.count(7)
    assert kernel.forget_inode(7, data=False)


def test_other_refusals_are_mistakes_of_ours() -> None:
    with pytest.raises(OSError, match="Invalid"):
        Refusing(errno.EINVAL).forget_name(1, b"a")
