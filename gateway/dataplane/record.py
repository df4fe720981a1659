"""What the data plane tells the watchers: counts for every request, an event only where something changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Protocol

from gateway.dataplane.attempt import Answer
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.journey import Journey
from gateway.dataplane.request import Request
from gateway.errors import InternalFault, NotAdmitted, Reason, UpstreamError, UpstreamStatus
from gateway.fleet.hosted import UNAUTHORIZED
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import NOT_DEGRADED, GatewayMetrics, ServedByKind
from gateway.policy.compiled import CustomerPolicy, ProviderStep

KINDS: dict[str, ServedByKind] = {"own": "box", "base": "base", "provider": "provider", "static": "static"}


class Witness(Protocol):
    """Who hears what customers' requests show of the fallback: each whole answer, and each drill that failed."""

    def __call__(self, customer: CustomerPolicy, attempt: Attempt, *, model: str, error: str) -> None:
        """``model`` is what answered, ``error`` what went wrong; one of them is empty."""


class Record:
    """The data plane's side of metrics, events and alarms. ``witness`` hears of the fallback."""

    def __init__(
        self, metrics: GatewayMetrics, events: Events, alarms: Alarms, *, witness: Witness | None = None
    ) -> None:
        self._witness = witness
        self._metrics = metrics
        self._events = events
        self._alarms = alarms
        self._answered_by: dict[str, str] = {}

    @property
    def metrics(self) -> GatewayMetrics:
        """Where it counts."""
        return self._metrics

    def in_flight(self, requests: Sized) -> None:
        """``requests`` holds those that are being answered."""
        self._metrics.before_render(lambda: self._metrics.in_flight.set(len(requests)))

    def waiting(self, by_fleet: Callable[[], Mapping[str, int]]) -> None:
        """``by_fleet`` says how many requests wait for room now."""
        metrics = self._metrics
        metrics.before_render(lambda: metrics.waiting.replace({(fleet,): count for fleet, count in by_fleet().items()}))

    def waited(self, for_s: float, *, served: bool) -> None:
        """A request waited for room at a box, and got it or did not."""
        self._metrics.wait_seconds.observe(for_s, "room" if served else "none")

    def client_left(self) -> None:
        """A client hung up before its answer had ended. Nobody's breaker is to hear of it."""
        self._metrics.client_disconnects.inc()

    def attempt_failed(self, customer: CustomerPolicy, attempt: Attempt, error: UpstreamError, *, final: bool) -> None:
        """An attempt ended before it was committed."""
        if isinstance(error, NotAdmitted):
            return
        self._metrics.attempts.inc(attempt.served_by, "final" if final else "retryable")
        self._failed(customer, attempt, error)
        provider = attempt.step.provider.name if isinstance(attempt.step, ProviderStep) else None
        if provider and isinstance(error, UpstreamStatus) and error.status in (401, 403):
            self._alarms.on(UNAUTHORIZED, provider, f"provider {provider} answers {error.status}: check its api_key")

    def committed(self, customer: CustomerPolicy, answer: Answer, after_s: float) -> None:
        """An answer was committed, ``after_s`` seconds after the request was read."""
        attempt = answer.attempt
        reason = NOT_DEGRADED if attempt.reason is None else attempt.reason.value
        self._metrics.attempts.inc(attempt.served_by, "committed")
        self._metrics.requests.inc(customer.name, KINDS[attempt.kind], reason)
        self._metrics.time_to_first_content_seconds.observe(after_s, KINDS[attempt.kind])
        if isinstance(attempt.step, ProviderStep):
            self._alarms.off(UNAUTHORIZED, attempt.step.provider.name)
        self._changed(customer, attempt)

    def static(self, customer: CustomerPolicy, attempt: Attempt) -> None:
        """The fixed text was given."""
        reason = attempt.reason or Reason.BACKEND_DOWN
        self._metrics.attempts.inc("static", "committed")
        self._metrics.requests.inc(customer.name, "static", reason.value)
        self._changed(customer, attempt)

    def retry_denied(self) -> None:
        """The retry budget was spent: no other box was asked."""
        self._metrics.retries_denied.inc()

    def asked_beyond_limits(self) -> None:
        """Another box is asked in spite of the retry budget and the limit on attempts, as nothing else is left."""
        self._metrics.attempts_beyond_limits.inc()

    def resolved(self, customer: CustomerPolicy, request: Request) -> None:
        """An alias was asked for, and stands for ``request.adapter`` this time."""
        self._metrics.alias_requests.inc(customer.name, request.model, request.adapter)

    def other_version(self, customer: CustomerPolicy, request: Request, adapter: str) -> None:
        """A box lacks the alias's version: ``adapter`` is to stand in for it."""
        self._metrics.alias_stand_ins.inc(customer.name, request.model, adapter)

    def refused(self, customer: CustomerPolicy) -> None:
        """The box found the client's mistake."""
        self._metrics.requests.inc(customer.name, "none", NOT_DEGRADED)

    def whole(self, customer: CustomerPolicy, answer: Answer) -> None:
        """The answer came to its end as it should."""
        if self._witness is not None and answer.mark is not None:
            self._witness(customer, answer.attempt, model=answer.mark.served_model, error="")

    def ended(self, answer: Answer, after_s: float) -> None:
        """The answer's last byte was handed over."""
        self._metrics.request_seconds.observe(after_s, KINDS[answer.attempt.kind])

    def raced(self, winner: str) -> None:
        """A silent attempt had another one beside it."""
        self._metrics.races.inc(winner)

    def resumed(self, customer: CustomerPolicy, broken: Answer, rest: Answer, error: UpstreamError) -> None:
        """A stream broke, and goes on elsewhere."""
        self._metrics.stream_resumes.inc(customer.name, "resumed")
        self._events.add(
            "stream_resumed",
            customer=customer.name,
            broke_at=broken.attempt.served_by,
            served_by=rest.attempt.served_by,
            error=error.for_watchers,
        )
        self._failed(customer, broken.attempt, error)

    def restarted(self, customer: CustomerPolicy, broken: Answer, rest: Answer, error: UpstreamError) -> None:
        """A stream broke of which next to nothing was told, and another answer takes its place."""
        attempt = rest.attempt
        self._metrics.attempts.inc(attempt.served_by, "committed")
        self._metrics.stream_resumes.inc(customer.name, "restarted" if attempt.reason is None else "degraded")
        self._events.add(
            "stream_restarted",
            customer=customer.name,
            broke_at=broken.attempt.served_by,
            served_by=attempt.served_by,
            error=error.for_watchers,
        )
        self._changed(customer, attempt)
        self._failed(customer, broken.attempt, error)

    def stream_broke(self, customer: CustomerPolicy, answer: Answer, error: UpstreamError, why: str = "") -> None:
        """A stream ended with an error frame. ``why``: it could not go on elsewhere, where it was to."""
        served_by = answer.attempt.served_by
        if why:
            self._metrics.stream_resumes.inc(customer.name, "failed")
        self._metrics.streams_broken.inc(served_by)
        found = {"not_resumed": why} if why else {}
        self._events.add(
            "stream_broken", customer=customer.name, served_by=served_by, error=error.for_watchers, **found
        )
        self._failed(customer, answer.attempt, error)

    def defect(self, error: Exception, where: str = "request") -> None:
        """Something failed that cannot: a person has to look."""
        what = str(error) if isinstance(error, InternalFault) else f"internal error ({type(error).__name__})"
        self._alarms.on("internal_error", where, f"{what}: see the log")

    def unavailable(self, customer: CustomerPolicy, journey: Journey) -> None:
        """Nothing could answer: the client gets the 503."""
        self._metrics.requests.inc(customer.name, "none", journey.reason.value)
        if self._answered_by.get(customer.name) != "none":
            self._answered_by[customer.name] = "none"
            self._events.add("unavailable", customer=customer.name, tried="; ".join(journey.tried))

    def _failed(self, customer: CustomerPolicy, attempt: Attempt, error: UpstreamError) -> None:
        """Tell whom else it concerns: of a drill its witness, of a defect a person."""
        if attempt.reason is Reason.DRILL and self._witness is not None:
            self._witness(customer, attempt, model="", error=str(error))
        if isinstance(error, InternalFault):
            self.defect(error, attempt.served_by)

    def _changed(self, customer: CustomerPolicy, attempt: Attempt) -> None:
        """One event when a customer's answers start or stop being degraded, or change who gives them."""
        if attempt.reason is Reason.DRILL:
            return  # which says nothing about how the customer is answered
        now = "own" if attempt.reason is None else f"{attempt.served_by} {attempt.reason.value}"
        before = self._answered_by.get(customer.name, "own")
        if before == now:
            return
        self._answered_by[customer.name] = now
        if attempt.reason is None:
            self._events.add("restored", customer=customer.name, served_by=attempt.served_by)
        else:
            self._events.add(
                "degraded", customer=customer.name, reason=attempt.reason.value, served_by=attempt.served_by
            )
