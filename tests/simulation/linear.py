"""Is a history of operations on a few names linearizable?

The state is a small table from names to inodes.  The search takes, again and again, one operation
that began before all others that are left had ended, and asks whether its answer fits the state; it
goes back when it is stuck (Wing and Gong), and never visits the same set of operations with the
same state twice (Lowe).  Operations without an answer may be taken at any time, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.history import FOR_EVER, Violation

State = tuple[int, ...]  # the inode behind each name, 0 for none


@dataclass
class NameOperation:
    """`kind` with its names; `answer` is "ok", "exists", "missing", an inode, or a whole state."""

    client: int
    kind: str
    name: int
    other: int
    began: int
    ended: int = FOR_EVER
    answer: object = None  # None: unknown
    inode: int = field(default=0)  # that a create has made, that a link is about

    def __str__(self) -> str:
        return f"[{self.began}..{self.ended}] client{self.client} {self.kind} {self.name} " + (
            f"{self.other} -> {self.answer}"
        )


def outcomes(state: State, op: NameOperation) -> Iterator[tuple[object, State]]:
    """(answer, next state); one for each way in which the operation can end."""
    names = list(state)
    if op.kind == "look":
        yield names[op.name], state
    elif op.kind == "list":
        yield state, state
    elif op.kind == "create":
        if names[op.name]:
            yield "exists", state
        else:
            names[op.name] = op.inode or -op.began  # of an unanswered one nobody knows the inode
            yield "ok", tuple(names)
    elif op.kind == "link":
        if op.inode not in names:
            yield "missing", state
        if names[op.other]:
            yield "exists", state
        elif op.inode in names:
            names[op.other] = op.inode
            yield "ok", tuple(names)
    elif not names[op.name]:
        yield "missing", state
    elif op.kind == "unlink":
        names[op.name] = 0
        yield "ok", tuple(names)
    elif names[op.name] == names[op.other]:
        yield "ok", state  # rename between two names of one file does nothing
    else:
        names[op.other], names[op.name] = names[op.name], 0
        yield "ok", tuple(names)


def _matches(found: object, answer: object) -> bool:
    """Inodes of unanswered creations stand for any number."""
    if answer is None or found == answer:
        return True
    if isinstance(found, int) and isinstance(answer, int):
        return found < 0 and answer > 0
    if isinstance(found, tuple) and isinstance(answer, tuple):
        return all(map(_matches, found, answer))
    return False


def _learned(state: State, found: object, answer: object) -> State:
    """The state, where an answer has told the inode of an unanswered creation."""
    known: dict[int, int] = {}
    pairs: Iterable[tuple[object, object]] = [(found, answer)]
    if isinstance(found, tuple) and isinstance(answer, tuple):
        pairs = zip(found, answer, strict=True)
    for one, other in pairs:
        if (
            isinstance(one, int)
            and isinstance(other, int)
            and one < 0
            and (known.setdefault(one, other) != other or other in state)
        ):
            return ()
    return tuple(known.get(inode, inode) for inode in state)


def check(history: list[NameOperation], names: int) -> None:
    """Raise Violation unless some order explains all answers."""
    ops = sorted(history, key=lambda op: op.began)
    everything = sum(1 << index for index, op in enumerate(ops) if op.answer is not None)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, (0,) * names)]
    best = 0
    while stack:
        done, state = stack.pop()
        if done & everything == everything:
            return
        if (done, state) in seen:
            continue
        seen.add((done, state))
        best = max(best, done, key=lambda each: (each & everything).bit_count())
        left = [index for index in range(len(ops)) if not done >> index & 1]
        limit = min(ops[index].ended for index in left)
        for index in left:
            op = ops[index]
            if op.began > limit:
                break
            for found, after in outcomes(state, op):
                if not _matches(found, op.answer):
                    continue
                if op.answer is not None and op.kind in ("look", "list"):
                    after = _learned(after, found, op.answer)
                    if not after:
                        continue
                stack.append((done | 1 << index, after))
    lines = [f"{'  ' if best >> index & 1 else '? '}{op}" for index, op in enumerate(ops)]
    raise Violation("I3", "no order explains these answers:\n" + "\n".join(lines))
