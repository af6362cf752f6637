"""One seed in this process: its trace, its end, and what went wrong on the way.

simulate.py and beyond.py give it the task to run.  It hashes all that is traced, takes exceptions
that a handler did not expect from the log, and makes a sentence of whatever ends the run early.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from tests.simulation import scheduling
from tests.simulation.history import Violation


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    violation: str = ""
    trace_hash: str = ""
    virtual_s: float = 0.0
    errors: int = 0  # that applications saw
    faults: int = 0
    trace: list[str] = field(default_factory=list)


class Tracer:
    """Hashes all that happens; keeps it when asked to."""

    def __init__(self, *, keep: bool, messages: bool = False) -> None:
        self.lines: list[str] = []
        self._keep = keep
        self._messages = messages
        self._hash = hashlib.blake2b(digest_size=12)

    def __call__(self, text: str) -> None:
        line = f"{trio.current_time():9.4f} {text}"
        self._hash.update(line.encode())
        if self._keep and (self._messages or not text.startswith("   ")):
            self.lines.append(line)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()


class _Crashes(logging.Handler):
    """Exceptions that a handler did not expect are logged with their traceback."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._tracer = tracer

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(self.format(record))


def watched(
    result: Result,
    run_seed: object,
    run: Callable[[Tracer], Awaitable[None]],
    *,
    keep_trace: bool,
    messages: bool,
) -> Result:
    """Run a seed to its end; never raises because of what the cluster does."""
    tracer = Tracer(keep=keep_trace, messages=messages)
    crashes = _Crashes(tracer)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = [crashes]
    root.setLevel(logging.ERROR)
    try:
        scheduling.run(run_seed, lambda: run(tracer))
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        result.violation = _first(problem)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    if not result.violation and crashes.found:
        result.violation = f"F33: unexpected exception: {crashes.found[0]}"
    result.trace_hash = tracer.hash
    result.trace = tracer.lines
    return result


def _first(problem: BaseException) -> str:
    """The violation inside nested groups; else whatever went wrong."""
    found = list(_leaves(problem))
    for each in found:
        if isinstance(each, Violation):
            return str(each)
    for each in found:
        if not isinstance(each, trio.Cancelled):
            text = "".join(traceback.format_exception(each)[-6:])
            return f"crash: {type(each).__name__}: {each}\n{text}"
    return repr(problem)


def _leaves(problem: BaseException) -> list[BaseException]:
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for each in problem.exceptions for leaf in _leaves(each)]
    return [problem]


async def until(left: Callable[[], list[str]], within_s: Callable[[], float], what: str) -> None:
    """Wait until nothing is left.  Raises Violation, of the invariant that is named first."""
    began = trio.current_time()
    while found := left():
        if trio.current_time() > began + within_s():
            invariant = found[0].partition(":")[0] if found[0].startswith("I") else "I9"
            raise Violation(invariant, f"{what} after {within_s():g} s: {found[:5]}")
        await trio.sleep(1.0)
