"""An attempt that a box let in: what it tells the box, and that it is counted back."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from gateway.errors import UpstreamError
from gateway.fleet import breaker as circuit


class Permitter(Protocol):
    """Who hears how attempts go: the box."""

    def answered(self, permit: Permit, now: float) -> None:
        """The attempt's answer began."""

    def progressed(self, now: float) -> None:
        """More of an answer came."""

    def failed(self, permit: Permit, error: UpstreamError, now: float) -> None:
        """The attempt failed."""

    def ended(self, permit: Permit) -> None:
        """The attempt is over; told once."""


class Held(Protocol):
    """What an attempt holds of its target, a box or a provider, and an answer until it has ended.

    ``failed`` and ``released`` end it, and what is told after that is ignored.
    """

    def succeeded(self, now: float) -> None:
        """Content came."""

    def progressed(self, now: float) -> None:
        """More of the answer came."""

    def failed(self, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``, before or after its commit."""

    def released(self) -> None:
        """The attempt is over; where nothing else was said, it says nothing about its target."""


class Permit:
    """Counted in flight until ``failed`` or ``released``, whichever comes first.

    ``succeeded`` is told at commit; the stream behind it may still fail. As a context manager it is released at the
    end. ``began``: when it was let in, in monotonic seconds; ``silent_before``: how many streams were silent then;
    ``in_flight``: how many attempts there were, itself counted. ``streamed``: its first content is seen when it comes.
    ``probe``: no customer's, but the gateway's own.
    """

    __slots__ = (
        "_box",
        "_ended",
        "adapter",
        "answered",
        "began",
        "box_permit",
        "in_flight",
        "pair_permit",
        "probe",
        "silent_before",
        "streamed",
    )

    def __init__(
        self,
        box: Permitter,
        adapter: str | None,
        began: float,
        box_permit: circuit.Permit,
        pair_permit: circuit.Permit | None,
        streamed: bool,
        silent_before: int,
        in_flight: int,
        probe: bool = False,
    ) -> None:
        self._box = box
        self._ended = False
        self.adapter = adapter
        self.answered = False
        self.began = began
        self.streamed = streamed
        self.silent_before = silent_before
        self.in_flight = in_flight
        self.box_permit = box_permit
        self.pair_permit = pair_permit
        self.probe = probe

    def succeeded(self, now: float) -> None:
        """Content came: the box lives and has the adapter."""
        if not self._ended:
            self._box.answered(self, now)
            self.answered = True

    def progressed(self, now: float) -> None:
        """More of the answer came: a box at work on long answers is not silent, and needs no probe."""
        self._box.progressed(now)

    def failed(self, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``; :func:`gateway.fleet.blame.blame` says which breaker that moves."""
        if not self._ended:
            self._box.failed(self, error, now)
            self.released()

    def released(self) -> None:
        """The attempt is over; where nothing else was said, it says nothing about the box."""
        if self._ended:
            return
        self._ended = True
        self.box_permit.released()
        if self.pair_permit is not None:
            self.pair_permit.released()
        self._box.ended(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.released()
