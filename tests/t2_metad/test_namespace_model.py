"""Random operations on names, against a simple model made of dictionaries."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire.errors import FileError
from dfswire.operations import RENAME_EXCHANGE, Link, Operation, Rename, RmDir, Unlink
from metad.names.namespace import lookup

if TYPE_CHECKING:
    from metad.storage.database import Database
    from tests.t2_metad.conftest import World

ROOT = 1
NAMES = (b"a", b"b", b"c")

Path = tuple[bytes, ...]
names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=4).map(tuple)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("mkdir"), paths),
        st.tuples(st.just("create"), paths),
        st.tuples(st.just("unlink"), paths),
        st.tuples(st.just("rmdir"), paths),
        st.tuples(st.just("link"), paths, paths),
        st.tuples(st.just("rename"), paths, paths),
        st.tuples(st.just("exchange"), paths, paths),
    ),
    max_size=30,
)


class Refused(Exception):
    """The model's answer, with the errno that it expects."""


class Model:
    """A tree as nested dictionaries; a file is a string, one object for all its names."""

    def __init__(self) -> None:
        self.root: dict[bytes, object] = {}

    def directory(self, path: Path) -> dict[bytes, object]:
        node: object = self.root
        for name in path:
            if not isinstance(node, dict):
                raise Refused(errno.ENOTDIR)
            if name not in node:
                raise Refused(errno.ENOENT)
            node = node[name]
        if not isinstance(node, dict):
            raise Refused(errno.ENOTDIR)
        return node

    def get(self, path: Path) -> object:
        directory = self.directory(path[:-1])
        if path[-1] not in directory:
            raise Refused(errno.ENOENT)
        return directory[path[-1]]

    def put(self, path: Path, node: object) -> None:
        directory = self.directory(path[:-1])
        if path[-1] in directory:
            raise Refused(errno.EEXIST)
        directory[path[-1]] = node

    def unlink(self, path: Path) -> None:
        if isinstance(self.get(path), dict):
            raise Refused(errno.EISDIR)
        del self.directory(path[:-1])[path[-1]]

    def rmdir(self, path: Path) -> None:
        node = self.get(path)
        if not isinstance(node, dict):
            raise Refused(errno.ENOTDIR)
        if node:
            raise Refused(errno.ENOTEMPTY)
        del self.directory(path[:-1])[path[-1]]

    def link(self, old: Path, new: Path) -> None:
        node = self.get(old)
        self.directory(new[:-1])
        if isinstance(node, dict):
            raise Refused(errno.EPERM)
        self.put(new, node)

    def rename(self, old: Path, new: Path) -> None:
        self.directory(old[:-1])
        target = self.directory(new[:-1]).get(new[-1])  # both parents are resolved first
        node = self.get(old)
        if isinstance(node, dict) and new[: len(old)] == old and new != old:
            raise Refused(errno.EINVAL)
        if target is node:
            return
        if target is not None:
            if isinstance(target, dict) and not isinstance(node, dict):
                raise Refused(errno.EISDIR)
            if isinstance(target, dict) and target:
                raise Refused(errno.ENOTEMPTY)
            if isinstance(node, dict) and not isinstance(target, dict):
                raise Refused(errno.ENOTDIR)
        del self.directory(old[:-1])[old[-1]]
        self.directory(new[:-1])[new[-1]] = node

    def exchange(self, old: Path, new: Path) -> None:
        self.directory(old[:-1])
        self.directory(new[:-1])
        node = self.get(old)
        if isinstance(node, dict) and new[: len(old)] == old and new != old:
            raise Refused(errno.EINVAL)
        target = self.get(new)
        if isinstance(target, dict) and old[: len(new)] == new and new != old:
            raise Refused(errno.EINVAL)
        one, other = self.directory(old[:-1]), self.directory(new[:-1])
        one[old[-1]], other[new[-1]] = target, node


class Real:
    """The same verbs on the database, by path."""

    def __init__(self, world: World) -> None:
        self.world = world

    def resolve(self, path: Path) -> int:
        inode = ROOT
        for name in path:
            attr = lookup(self.world.db, inode, name)
            if attr is None:
                raise Refused(errno.ENOENT)
            inode = attr.inode
        return inode

    def parent(self, path: Path) -> int:
        """The directory of a path, found as the kernel does before it asks for the operation."""
        found = lookup(self.world.db, self.resolve(path[:-1]), b".")
        assert found is not None
        return found.inode

    def do(self, kind: type[Operation], path: Path) -> None:
        self.world.do(kind(parent=self.parent(path), name=path[-1]))

    def link(self, old: Path, new: Path) -> None:
        inode, parent = self.resolve(old), self.parent(new)
        self.world.do(Link(inode=inode, parent=parent, name=new[-1]))

    def rename(self, old: Path, new: Path, flags: int = 0) -> None:
        self.world.do(
            Rename(
                parent=self.parent(old),
                name=old[-1],
                new_parent=self.parent(new),
                new_name=new[-1],
                flags=flags,
            )
        )

    def apply(self, verb: str, path: Path, *more: Path) -> None:
        if verb == "mkdir":
            self.world.mkdir(path[-1], self.parent(path))
        elif verb == "create":
            self.world.make(path[-1], self.parent(path))
        elif verb in ("unlink", "rmdir"):
            self.do(Unlink if verb == "unlink" else RmDir, path)
        elif verb == "link":
            self.link(path, *more)
        else:
            (new,) = more
            self.rename(path, new, RENAME_EXCHANGE if verb == "exchange" else 0)


def outcome_of(action: Callable[..., object], *arguments: object) -> int:
    try:
        action(*arguments)
    except Refused as refusal:
        return int(refusal.args[0])
    except FileError as problem:
        return problem.errno
    return 0


def apply_to_model(model: Model, step: int, verb: str, path: Path, *more: Path) -> None:
    if verb == "mkdir":
        model.put(path, {})
    elif verb == "create":
        model.put(path, f"file {step}")
    else:
        getattr(model, verb)(path, *more)


def tree(world: World, directory: int = ROOT) -> dict[bytes, object]:
    """The database's tree in the model's form, files as their inode numbers."""
    return {
        name: tree(world, inode) if stat.S_ISDIR(world.attr(inode).mode) else inode
        for name, inode in world.names(directory).items()
    }


def same(model: object, real: object, pairs: dict[object, object]) -> bool:
    """Equal trees, where each of the model's files is always the same inode."""
    if isinstance(model, dict) and isinstance(real, dict):
        return model.keys() == real.keys() and all(
            same(model[name], real[name], pairs) for name in model
        )
    return type(real) is int and pairs.setdefault(model, real) == real


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_names_behave_like_dictionaries(
    steps: list[tuple[str, Path, Path]],
    new_world: Callable[[], World],
    findings: Callable[[Database], list[str]],
) -> None:
    world, model = new_world(), Model()
    real = Real(world)
    for number, step in enumerate(steps):
        expected = outcome_of(apply_to_model, model, number, *step)
        assert outcome_of(real.apply, *step) == expected, step
    assert same(model.root, tree(world), {})
    assert findings(world.db) == []
    world.db.close()
