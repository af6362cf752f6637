"""What becomes of requests whose caller gets a signal."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.lowlevel.library import Request
from dfsmount.lowlevel.requests import Answered, Requests, caller_is_dying, is_dying
from dfswire.errors import Interrupted, NoSpace, Unavailable

CALLER = 77
KILL_S = 2.0  # what is promised


class FakeLibrary:
    """A kernel that dispatches one request after the other."""

    def __init__(self) -> None:
        self.current = Request()
        self.answers: list[tuple[int, int]] = []

    def dispatch(self, unique: int, pid: int = CALLER) -> None:
        self.current.unique, self.current.pid = unique, pid

    def answer_early(self, unique: int, error: int) -> None:
        self.answers.append((unique, error))


class Scene:
    """Requests whose callers die when told."""

    def __init__(self) -> None:
        self.library = FakeLibrary()
        self.dying: set[int] = set()
        self.forgotten = 0
        self.requests = Requests(self.library, self.forget, lambda pid: pid in self.dying)
        self.outcome: object = None

    async def forget(self) -> None:
        self.forgotten += 1

    async def ask(self, event: trio.Event, *, any_signal: bool = False) -> None:
        try:
            request = None
            if any_signal:
                scope = trio.CancelScope()
                request = self.requests.admit(self.library.current, scope, any_signal=True)
            await self.requests.ask(event.wait(), request)
            self.outcome = "answered"
        except Interrupted as problem:
            self.outcome = problem.errno

    async def change(self, event: trio.Event, problem: Exception | None = None) -> None:
        async def work() -> str:
            await event.wait()
            if problem is not None:
                raise problem
            return "a file"

        async def undo(result: object) -> None:
            self.undone.append(result)

        self.undone: list[object] = []
        try:
            self.outcome = await self.requests.change(work(), undo)
        except (Answered, NoSpace, Unavailable) as caught:
            self.outcome = type(caught)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        one = Scene()
        one.requests.nursery = nursery
        yield one
        nursery.cancel_scope.cancel()


async def test_a_killed_caller_of_a_question_is_let_go_in_time(autojump_clock: MockClock) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        one.library.dispatch(5)
        nursery.start_soon(one.ask, trio.Event())
        await wait_all_tasks_blocked()
        one.dying.add(CALLER)
        one.requests.interrupted(5)
        await trio.sleep(KILL_S)
        assert one.outcome == errno.EINTR
        assert one.library.answers == []  # by pyfuse3, as any other error


async def test_a_signal_that_does_not_kill_changes_nothing(autojump_clock: MockClock) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        answer = trio.Event()
        one.library.dispatch(5)
        nursery.start_soon(one.ask, answer)
        await wait_all_tasks_blocked()
        one.requests.interrupted(5)
        await trio.sleep(3600)
        assert one.outcome is None
        answer.set()
    assert one.outcome == "answered"


async def test_a_kill_after_another_signal_is_noticed(autojump_clock: MockClock) -> None:
    """The kernel tells of the first signal only."""
    async with scene() as one, trio.open_nursery() as nursery:
        one.library.dispatch(5)
        nursery.start_soon(one.ask, trio.Event())
        await wait_all_tasks_blocked()
        one.requests.interrupted(5)
        await trio.sleep(60.1)
        one.dying.add(CALLER)
        await trio.sleep(KILL_S)
        assert one.outcome == errno.EINTR


async def test_what_is_over_soon_ends_by_itself(autojump_clock: MockClock) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        answer = trio.Event()
        one.library.dispatch(5)
        nursery.start_soon(one.change, answer)
        await wait_all_tasks_blocked()
        one.dying.add(CALLER)
        one.requests.interrupted(5)
        await trio.sleep(0.1)
        answer.set()
        await trio.sleep(10)
    assert (one.outcome, one.library.answers, one.forgotten) == ("a file", [], 0)


async def test_a_change_goes_on_after_its_caller_was_let_go(autojump_clock: MockClock) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        answer = trio.Event()
        one.library.dispatch(5)
        nursery.start_soon(one.change, answer)
        await wait_all_tasks_blocked()
        one.dying.add(CALLER)
        one.requests.interrupted(5)
        await trio.sleep(KILL_S)
        assert one.library.answers == [(5, errno.EINTR)]
        assert one.outcome is None
        assert one.forgotten == 0  # too early: the kernel would learn the old state again
        answer.set()
        await wait_all_tasks_blocked()
        assert one.outcome is Answered  # so that no second answer is sent
        assert (one.undone, one.forgotten) == (["a file"], 1)


@pytest.mark.parametrize("problem", [NoSpace("full"), Unavailable("away")])
async def test_a_change_that_fails_after_that(
    problem: Exception, autojump_clock: MockClock
) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        answer = trio.Event()
        one.library.dispatch(5)
        nursery.start_soon(one.change, answer, problem)
        await wait_all_tasks_blocked()
        one.dying.add(CALLER)
        one.requests.interrupted(5)
        await trio.sleep(KILL_S)
        answer.set()
        await wait_all_tasks_blocked()
        assert (one.outcome, one.undone, one.forgotten) == (Answered, [], 1)


async def test_a_change_that_fails_in_time_says_why(autojump_clock: MockClock) -> None:
    async with scene() as one:
        one.library.dispatch(5)
        done = trio.Event()
        done.set()
        await one.change(done, NoSpace("full"))
        assert (one.outcome, one.forgotten) == (NoSpace, 0)


async def test_any_signal_ends_the_waiting_for_other_processes(autojump_clock: MockClock) -> None:
    async with scene() as one, trio.open_nursery() as nursery:
        one.library.dispatch(5)
        nursery.start_soon(ask_interruptibly, one)
        await wait_all_tasks_blocked()
        one.requests.interrupted(5)
        await wait_all_tasks_blocked()
        assert one.outcome == errno.EINTR


async def ask_interruptibly(one: Scene) -> None:
    await one.ask(trio.Event(), any_signal=True)


async def test_one_of_several_requests_of_a_caller(autojump_clock: MockClock) -> None:
    async with scene() as one, scene() as other, trio.open_nursery() as nursery:
        other.requests = one.requests
        one.library.dispatch(5)
        nursery.start_soon(one.ask, trio.Event())
        await wait_all_tasks_blocked()
        one.library.dispatch(6)
        nursery.start_soon(other.ask, trio.Event())
        await wait_all_tasks_blocked()
        one.dying.add(CALLER)
        one.requests.interrupted(6)
        await trio.sleep(KILL_S)
        assert (one.outcome, other.outcome) == (None, errno.EINTR)
        nursery.cancel_scope.cancel()


async def test_a_signal_that_comes_after_the_answer(autojump_clock: MockClock) -> None:
    async with scene() as one:
        one.library.dispatch(5)
        done = trio.Event()
        done.set()
        await one.ask(done)
        one.requests.interrupted(5)
        await trio.sleep(10)
        assert one.outcome == "answered"


async def test_at_the_end_everybody_is_let_go(autojump_clock: MockClock) -> None:
    scene, never, later = Scene(), trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        scene.library.dispatch(1)
        nursery.start_soon(scene.ask, never)
        await wait_all_tasks_blocked()
        scene.library.dispatch(2)
        nursery.start_soon(scene.change, later)
        await wait_all_tasks_blocked()
        scene.requests.give_up()
        await wait_all_tasks_blocked()
        assert (scene.outcome, scene.undone) == (errno.EINTR, [])
        scene.requests.give_up()
        assert scene.library.answers == [(2, errno.EINTR)]
        later.set()
    assert (scene.outcome, scene.undone) == (Answered, ["a file"])


def test_a_living_process_or_none_is_not_dying() -> None:
    """That a process is dying can be seen only while it cannot die: see t5_process/test_killed."""
    assert not caller_is_dying(os.getpid())
    assert not caller_is_dying(0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not caller_is_dying(ended.pid)


def test_a_blocked_signal_is_not_death() -> None:
    program = "import signal, sys; signal.pthread_sigmask(0, range(1, 65)); print(1, flush=True); "
    process = subprocess.Popen(
        [sys.executable, "-c", program + "sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGALRM)
        assert not caller_is_dying(process.pid)
        process.kill()


def status_of(signals: Mapping[str, Collection[int]], tracer: int = 0) -> str:
    """/proc/PID/status of a thread with these sets of signals."""
    lines = ["Name:\tname: of a program", f"TracerPid:\t{tracer}"]
    for name in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"):
        bits = sum(1 << (number - 1) for number in signals.get(name, ()))
        lines.append(f"{name}:\t{bits:016x}")
    return "\n".join(lines)


@pytest.mark.parametrize("pending", ["SigPnd", "ShdPnd"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, 64])
def test_a_signal_that_nothing_stops_is_death(pending: str, number: int) -> None:
    assert is_dying(status_of({pending: {number}}))
    caught = {signal.SIGALRM}
    assert is_dying(status_of({pending: {number} | caught, "SigCgt": caught}))


@pytest.mark.parametrize("how", ["SigBlk", "SigIgn", "SigCgt"])
def test_a_signal_that_is_handled_is_not_death(how: str) -> None:
    handled: dict[str, set[int]] = {"ShdPnd": {signal.SIGTERM}, how: {signal.SIGTERM}}
    assert not is_dying(status_of(handled))
    handled["SigPnd"] = {signal.SIGKILL}
    assert is_dying(status_of(handled))


@pytest.mark.parametrize("name", ["CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH"])
def test_a_signal_that_kills_nobody_is_not_death(name: str) -> None:
    assert not is_dying(status_of({"SigPnd": {signal.Signals[f"SIG{name}"]}}))


def test_a_debugger_may_keep_any_signal_but_sigkill() -> None:
    assert not is_dying(status_of({"SigPnd": {signal.SIGTERM}}, tracer=1))
    assert is_dying(status_of({"SigPnd": {signal.SIGKILL}}, tracer=1))


def test_no_signal_is_not_death() -> None:
    assert not is_dying(status_of({}))
