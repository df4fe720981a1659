"""A request's way through the fallback steps of its policy: pure, each step as it can be taken at that moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.dataplane.candidate import Attempt, ProvidersView, Unsuited, provider_attempt
from gateway.dataplane.decide import BoxView
from gateway.policy.compiled import BaseStep, ProviderStep, StaticStep, Step


class FallbackWay:
    """``tried`` gets a line for each step that is passed over. ``failed``: boxes that this request has failed on."""

    __slots__ = (
        "_base_index",
        "_boxes",
        "_index",
        "_providers",
        "_skipped",
        "_static_suits",
        "_steps",
        "_tried",
        "_unsuited",
        "failed",
    )

    def __init__(
        self,
        steps: Sequence[Step],
        boxes: Sequence[BoxView],
        *,
        unsuited: Unsuited,
        static_suits: Callable[[StaticStep], bool],
        providers: ProvidersView,
        tried: list[str],
    ) -> None:
        self._steps = steps
        self._boxes = boxes
        self._unsuited = unsuited
        self._static_suits = static_suits
        self._providers = providers
        self._tried = tried
        self._skipped: list[ProviderStep] = []
        self._index = self._base_index = 0
        self.failed: set[str] = set()

    @property
    def is_left(self) -> bool:
        """Whether a step is left that was not taken or passed over."""
        return self._index < len(self._steps)

    @property
    def providers_left(self) -> bool:
        """Whether a provider may still be asked as the last resort."""
        return bool(self._skipped)

    def takes_time_behind(self, attempt: Attempt) -> bool:
        """Whether steps that need time come behind that of ``attempt``."""
        here = next(i for i, step in enumerate(self._steps) if step is attempt.step)
        return any(not isinstance(step, StaticStep) for step in self._steps[here + 1 :])

    def stands(self, now: float) -> bool:
        """Whether some step that is left could be taken now."""
        for step in self._steps[self._index :]:
            if isinstance(step, ProviderStep):
                if not self._unsuited(step) and self._providers.condition(step.provider, now) is None:
                    return True
            elif isinstance(step, BaseStep):
                if any(box.condition(None, now) is None for box in self._boxes):
                    return True
            elif self._static_suits(step):
                return True
        return False

    def next(self, now: float, *, bases: bool) -> Attempt | None:
        """The next step that can be taken. ``bases``: whether a box may be asked for its base."""
        while self._index < len(self._steps):
            step = self._steps[self._index]
            if isinstance(step, BaseStep):
                if bases and (attempt := self._next_base(now)) is not None:
                    return attempt
                self._index += 1
                self._base_index = 0
                continue
            self._index += 1
            if isinstance(step, StaticStep):
                if self._static_suits(step):
                    return Attempt("static", "static", step=step)
                self._tried.append("static: skipped: the request asks for tools or JSON")
            elif why_not := self._unsuited(step):
                self._tried.append(f"provider:{step.provider.name}: skipped: {why_not}")
            elif why_not := self._providers.condition(step.provider, now):
                self._tried.append(f"provider:{step.provider.name}: skipped: {why_not}")
                self._skipped.append(step)
            else:
                return provider_attempt(step)
        return None

    def out_of_turn(self, step: Step, now: float) -> Attempt | None:
        """``step``, where it may be asked for this request now; it stays where it is in the order."""
        if isinstance(step, BaseStep):
            box = next((box for box in self._boxes if box.condition(None, now) is None), None)
            return None if box is None else _base(box)
        if isinstance(step, ProviderStep):
            stands = self._providers.condition(step.provider, now) is None and not self._unsuited(step)
            return provider_attempt(step) if stands else None
        return None

    def last_provider(self, now: float) -> Attempt | None:
        """A provider that was passed over as its breaker is open, where it fails fast."""
        while self._skipped:
            step = self._skipped.pop(0)
            if self._providers.is_last_resort(step.provider, now):
                return provider_attempt(step, forced=True)
        return None

    def _next_base(self, now: float) -> Attempt | None:
        while self._base_index < len(self._boxes):
            box = self._boxes[self._base_index]
            self._base_index += 1
            if box.name not in self.failed and box.condition(None, now) is None:
                return _base(box)
        return None


def _base(box: BoxView) -> Attempt:
    return Attempt("base", f"base:{box.name}", box=box)
