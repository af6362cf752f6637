"""The error table: class <-> code <-> errno."""

from __future__ import annotations

import errno

import pytest

from dfswire import errors
from dfswire.errors import BY_CODE, ClusterError, DFSError, FileError, from_code

BRANCHES = {DFSError, FileError, ClusterError}  # never raised by themselves; share "internal"


def _classes() -> list[type[DFSError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, DFSError)]


def test_every_class_has_its_own_code() -> None:
    own = [kind for kind in _classes() if kind not in BRANCHES]
    assert len({kind.code for kind in own}) == len(own)
    assert all(BY_CODE[kind.code] is kind for kind in own)


def test_branches_share_the_code_of_the_root() -> None:
    assert {kind.code for kind in BRANCHES} == {"internal"}
    assert BY_CODE["internal"] is DFSError


@pytest.mark.parametrize("kind", _classes())
def test_code_brings_the_class_back(kind: type[DFSError]) -> None:
    again = from_code(kind.code, "why")
    assert isinstance(again, kind if kind not in BRANCHES else DFSError)
    assert (str(again), again.code, again.errno) == ("why", kind.code, kind.errno)


def test_errnos_are_real_and_distinct_for_file_errors() -> None:
    leaves = FileError.__subclasses__()
    assert len({kind.errno for kind in leaves}) == len(leaves)
    assert all(kind.errno in errno.errorcode for kind in _classes())


def test_an_unknown_code_is_a_plain_error_with_eio() -> None:
    error = from_code("from_the_future", "why")
    assert type(error) is DFSError
    assert error.errno == errno.EIO


def test_an_error_without_text_says_its_name() -> None:
    assert str(errors.NoSpace()) == "NoSpace"
