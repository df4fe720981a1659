"""The open loop: sends each request when it is due, on one event loop, and keeps what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.loadtest.answer_reader import AnswerReader
from backend.loadtest.client import Address, Client
from backend.loadtest.question import body_of, question, words
from backend.loadtest.sample import Sample
from backend.traffic.arrival import Arrival
from gateway.tasks import TaskSet

LEAD_S = 0.1
"""Between the decision to start and the first request that may be due."""


@dataclass(slots=True)
class Progress:
    """What a run has come to, for people who watch. Times in seconds from its start."""

    now_s: float = 0.0
    length_s: float = 0.0
    sent: int = 0
    in_flight: int = 0
    samples: list[Sample] = field(default_factory=list)
    late_s: float = 0.0
    """How late the last request left."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over. ``cpu_share``: of one core, what this process took while it sent."""

    samples: list[Sample]
    unsent: int
    connections: int
    cpu_share: float
    interrupted: bool


class Generator:
    """One run. ``keys``: each customer's API key. ``at_once``: requests in flight beyond which one that is due is not
    sent but counted as the client's own error: a bound on sockets and memory where a server answers nobody.
    """

    def __init__(
        self,
        address: Address,
        keys: Mapping[str, str],
        *,
        patience_s: float = 120.0,
        at_once: int = 4096,
        exact_output: bool = True,
        seed: int = 1,
    ) -> None:
        self._address = address
        self._keys = keys
        self._at_once = at_once
        self._exact_output = exact_output
        self._words = words(seed)
        self._client = Client(address, patience_s=patience_s)
        self._tasks = TaskSet()
        self._began_s = 0.0
        self.progress = Progress()
        self.stop = asyncio.Event()
        """Set it to send nothing more; what is in flight is cut off and left out."""

    async def run(self, arrivals: Sequence[Arrival], *, mark_s: float = 0.0, mark: Callable[[], None]) -> Run:
        """Send all of ``arrivals`` (in order of time) and wait for their answers.

        ``mark`` is called once, when ``mark_s`` of the run have passed and before anything that is due then is sent.
        """
        loop = asyncio.get_running_loop()
        self.progress.length_s = arrivals[-1].at_s if arrivals else 0.0
        cpu_s, wall_s = time.process_time(), loop.time()
        self._began_s = loop.time() + LEAD_S
        marked = False
        try:
            for arrival in arrivals:
                if not marked and arrival.at_s >= mark_s:
                    await self._until(mark_s)
                    mark()
                    marked = True
                if not await self._until(arrival.at_s):
                    break
                self._send(arrival)
            cpu_share = (time.process_time() - cpu_s) / max(loop.time() - wall_s, 1e-9)
            await self._answers()
        finally:
            await self._tasks.close()
            await self._client.close()
        interrupted = self.stop.is_set()
        samples = sorted(self.progress.samples, key=lambda sample: sample.arrival.at_s)
        return Run(samples, len(arrivals) - self.progress.sent, self._client.opened, cpu_share, interrupted)

    async def _until(self, at_s: float) -> bool:
        """Wait for that moment of the run; False where somebody wants it to stop."""
        wait_s = self._began_s + at_s - asyncio.get_running_loop().time()
        if wait_s > 0 and not self.stop.is_set():
            self._tick()
            # Not a `wait_for` on the event each time: the timer alone costs a tenth, and a stop is seen soon enough.
            while wait_s > 0.25 and not self.stop.is_set():
                await asyncio.sleep(0.2)
                wait_s = self._began_s + at_s - asyncio.get_running_loop().time()
            if wait_s > 0 and not self.stop.is_set():
                await asyncio.sleep(wait_s)
        else:
            await asyncio.sleep(0)  # answers have to be read too, however late we are
        return not self.stop.is_set()

    def _send(self, arrival: Arrival) -> None:
        now_s = self._tick()
        self.progress.sent += 1
        self.progress.late_s = now_s - arrival.at_s
        if self.progress.in_flight >= self._at_once:
            self.progress.samples.append(Sample(arrival, now_s, now_s, error="not sent: too many in flight"))
            return
        self.progress.in_flight += 1
        self._tasks.spawn(self._ask(arrival), name="a request of the load test")

    async def _ask(self, arrival: Arrival) -> None:
        body = body_of(arrival, self._words, exact_output=self._exact_output)
        key, address = self._keys[arrival.customer], self._address
        request = question(body, key=key, host=address.name, path=address.path)
        sent_s = self._tick()
        try:
            reader = await self._client.ask(request, streamed=arrival.streamed)
        finally:
            self.progress.in_flight -= 1
        self.progress.samples.append(sample_of(arrival, reader, self._began_s, sent_s, self._tick()))

    async def _answers(self) -> None:
        """Until everything in flight is answered; each has its own time limit."""
        while self.progress.in_flight and not self.stop.is_set():
            self._tick()
            await asyncio.sleep(0.02)

    def _tick(self) -> float:
        self.progress.now_s = asyncio.get_running_loop().time() - self._began_s
        return self.progress.now_s


def sample_of(arrival: Arrival, reader: AnswerReader, began_s: float, sent_s: float, end_s: float) -> Sample:
    """What a reader, whose times are the loop's, has seen. ``began_s``: the run's start on that clock."""
    return Sample(
        arrival,
        sent_s,
        end_s,
        first_s=None if reader.first_s is None else reader.first_s - began_s,
        last_s=None if reader.last_s is None else reader.last_s - began_s,
        longest_gap_s=reader.longest_gap_s,
        status=reader.status,
        prompt_tokens=reader.prompt_tokens,
        output_tokens=reader.tokens,
        served_by=reader.served_by,
        degraded=reader.degraded,
        error=reader.error,
    )
