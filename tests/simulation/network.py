"""The network between all parties, with faults on every link and in each direction.

A party is "metad", "chunkd0", "client0"...; what goes from one to another passes the link between
them, and the reply passes the link back.  While a link is cut, messages wait as TCP would let them
wait, and arrive when it heals, though the sender may have given up long ago.  A message can also be
lost (the connection breaks, before or after the other side has acted), come twice, the second time
much later, or be late.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import httpx
import trio

from dfswire.bodies import BodyStream, Octets
from dfswire.dispatch import Dispatcher
from dfswire.transport import INTO
from tests.fakes import DirectTransport, _Answer, _LiveStream, _octets, _serve
from tests.simulation.disk import Crash

LATE_MAX_S = 12.0  # a copy that comes twice, or late, does so within this time
JITTER = 0.3  # of the messages take a moment


@dataclass(frozen=True)
class Weather:
    """How often each thing happens to a message, on links that are not cut."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    late_max_s: float = LATE_MAX_S


FAIR = Weather()


class Network(DirectTransport):
    """All links; see the module's text.  `trace` is told of every message."""

    def __init__(
        self, nursery: trio.Nursery, rng: random.Random, trace: Callable[[str], None]
    ) -> None:
        super().__init__({}, nursery=nursery)
        self.weather = FAIR
        self.cuts: set[tuple[str, str]] = set()
        self._changed = trio.Event()
        self._tasks = nursery
        self._rng = rng
        self._trace = trace
        self.dead: set[str] = set()  # parties that neither send nor receive any more

    # -- what the nemesis does

    def cut(self, source: str, target: str) -> None:
        """Nothing passes in this direction."""
        self.cuts.add((source, target))

    def heal(self, *links: tuple[str, str]) -> None:
        """These links (all, when none is named) pass messages again."""
        self.cuts.difference_update(links or set(self.cuts))
        self._changed.set()
        self._changed = trio.Event()

    def bury(self, party: str) -> None:
        """A process that dies without a word."""
        self.dead.add(party)
        self._changed.set()
        self._changed = trio.Event()

    # -- messages

    def endpoint(self, party: str) -> Endpoint:
        """The transport with which a party calls others."""
        return Endpoint(self, party)

    async def passes(self, source: str, target: str) -> None:
        """Wait until a message gets from one party to another.  Raises httpx.ConnectError."""
        while (source, target) in self.cuts and source not in self.dead:
            await self._changed.wait()
        if source in self.dead or target in self.dead:
            raise httpx.ConnectError(f"{source} or {target} is dead")

    def draw(self) -> str:
        """What happens to the next message: as the letters of tests/fakes.py."""
        weather = self.weather
        if weather is FAIR:
            return "."
        weights = (weather.lost_request, weather.lost_reply, weather.duplicate, weather.delay)
        return self._rng.choices(".xrds", (1.0 - sum(weights), *weights))[0]

    def late_s(self) -> float:
        """Mostly short, sometimes as long as the weather allows."""
        return self.weather.late_max_s * self._rng.random() ** 4

    async def moment(self) -> None:
        """The time on the way, which puts messages into another order."""
        if self._rng.random() < JITTER:
            await trio.sleep(self._rng.uniform(0.0001, 0.003))

    async def exchange(self, source: str, request: httpx.Request) -> httpx.Response:
        """One exchange from `source`.  Raises httpx.TransportError."""
        address = request.url.netloc.decode("ascii")
        target = address.partition(":")[0]
        fate = self.draw()
        self._trace(f"{source} {target} {request.url.path} {fate}")
        await trio.lowlevel.checkpoint()
        if fate == "x":
            raise httpx.ReadError("request lost (injected)")
        assert isinstance(request.stream, BodyStream)
        if request.stream.memory is None:
            await self.passes(source, target)
            response = await super().handle_async_request(request)
            await self.passes(target, source)
        else:
            response = await self._exchange_message(source, target, address, request, fate)
        if fate == "r":
            await response.aclose()
            raise httpx.ReadError("reply lost (injected)")
        return response

    async def _exchange_message(
        self, source: str, target: str, address: str, request: httpx.Request, fate: str
    ) -> httpx.Response:
        """A message in memory: it goes its way whether or not the sender still waits."""
        answer = _Answer()
        late_s = self.late_s() if fate == "s" else 0.0
        self._tasks.start_soon(self._carry, source, target, address, request, answer, late_s)
        if fate == "d":
            again = self.late_s()
            self._tasks.start_soon(self._carry, source, target, address, request, _Answer(), again)
        try:
            await answer.ready.wait()
        except trio.Cancelled:
            answer.is_wanted = False
            raise
        if answer.response is None:
            raise httpx.ReadError(f"{address} did not answer")
        await self.moment()
        await self.passes(target, source)
        response, headers = answer.response, [*answer.response.headers]
        if isinstance(response.body, AsyncGenerator):
            assert answer.server is not None
            # Of the process that answered: another may serve there by the time that the answer
            # has passed a link that was cut, and this stream is broken then.
            live = _LiveStream(self, address, answer.server, response.body)
            frames = _Frames(self, target, source, live)
            return httpx.Response(response.status, headers=headers, stream=BodyStream(frames))
        body = _received(request, response.status, _octets(response.body))
        return httpx.Response(response.status, headers=headers, stream=BodyStream(body))

    async def _carry(
        self,
        source: str,
        target: str,
        address: str,
        request: httpx.Request,
        answer: _Answer,
        late_s: float,
    ) -> None:
        try:
            if late_s:
                await trio.sleep(late_s)
            else:
                await self.moment()
            await self.passes(source, target)
        except httpx.ConnectError:
            answer.give(None)
            return
        except trio.Cancelled:
            answer.give(None)
            raise
        dispatcher = self._routes.get(address)
        if dispatcher is None:
            answer.give(None)
            return
        if late_s:
            self._trace(f"{source} {target} {request.url.path} arrives late")
        await self._run_apart(address, dispatcher, request, answer)

    async def _run_apart(
        self, address: str, dispatcher: Dispatcher, request: httpx.Request, answer: _Answer
    ) -> None:
        try:
            with self.while_up(address, dispatcher):
                try:
                    answer.give(await _serve(dispatcher, request), dispatcher)
                except* Crash:
                    await trio.sleep_forever()  # until the process is taken down
        except httpx.ReadError:
            answer.give(None)
        except trio.Cancelled:
            answer.give(None)
            raise


def _received(request: httpx.Request, status: int, body: bytes) -> memoryview:
    into: memoryview | None = request.extensions.get(INTO)
    if status != 200 or into is None or len(into) < len(body):
        return memoryview(body)
    into[: len(body)] = body
    return into[: len(body)]


class Endpoint(httpx.AsyncBaseTransport):
    """One party's way into the network."""

    def __init__(self, network: Network, party: str) -> None:
        self._network = network
        self._party = party

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._network.exchange(self._party, request)


class _Frames:
    """The frames of a stream on their way over a link."""

    def __init__(self, network: Network, source: str, target: str, frames: _LiveStream) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._frames = frames

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> Octets:
        frame = await anext(self._frames)
        await self._network.passes(self._source, self._target)
        if self._network.draw() in "xr":
            raise httpx.ReadError("stream broken (injected)")
        return frame

    async def aclose(self) -> None:
        await self._frames.aclose()
