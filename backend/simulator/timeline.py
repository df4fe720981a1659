"""An engine over time, for whoever has a queue of events: requests go in when they come, ended steps come out."""

from __future__ import annotations

import math

from backend.simulator.engine_model import EngineModel
from backend.simulator.engine_step import Step
from backend.simulator.pause import Pause


class EngineTimeline:
    """Runs the steps of one engine, each when the one before it has ended. Pure, like the engine: it is told the time.

    Times are seconds and never go back. Whoever drives it calls ``advance`` at ``due`` (which any call may move), and
    before it looks at the model's state.

    ``merged``: steps that are alike come out as one ``Step``, at the latest when something else happens to the engine.
    First tokens, ends and all else come at the same time with and without; only tokens between them come out late.
    """

    def __init__(self, model: EngineModel, *, merged: bool = True) -> None:
        self.model = model
        self._merged = merged
        self._step: Step | None = None
        self._free_s = -math.inf
        self._ended: list[Step] = []

    @property
    def due(self) -> float:
        """When something happens next if nothing is submitted or aborted; ``math.inf`` if nothing will."""
        if self._ended:
            return self._ended[0].ended_s
        if self._step is not None:
            return self._step.ended_s
        if self.model.idle:
            return math.inf
        if self._merged and self.model.steady is not None:
            each_s, steps = self.model.steady
            return self._free_s + each_s * steps
        return self._free_s

    def submit(self, id: str, adapter: str | None, prompt_tokens: int, output_tokens: int, now: float) -> bool:
        """See ``EngineModel.submit``; a step that is running does not have it."""
        self._catch_up(now)
        return self.model.submit(id, adapter, prompt_tokens, output_tokens)

    def abort(self, id: str, now: float) -> bool:
        """See ``EngineModel.abort``. A running step still names the request when it ends."""
        self._catch_up(now)
        return self.model.abort(id)

    def preload(self, adapter: str, now: float) -> float:
        """Load ``adapter`` between two steps; when that is done."""
        self._catch_up(now)
        seconds = self.model.preload(adapter)
        if self._step is not None:
            self._step.duration_s += seconds
            return self._step.ended_s
        self._free_s += seconds
        return self._free_s

    def pause(self, pause: Pause, now: float) -> None:
        """Set ``EngineModel.pause``."""
        self._catch_up(now)
        self.model.pause = pause

    def advance(self, now: float) -> list[Step]:
        """Run until ``now``. The steps that ended, oldest first, each once."""
        self._catch_up(now)
        ended, self._ended = self._ended, []
        return ended

    def _catch_up(self, now: float) -> None:
        """Every step that has begun by ``now`` is begun; of steps that are alike those that began before it."""
        model = self.model
        while True:
            if self._step is not None:
                if self._step.ended_s > now:
                    return
                self._ended.append(self._step)
                self._free_s = self._step.ended_s
                self._step = None
            if model.idle:
                self._free_s = max(self._free_s, now)
                return
            if self._free_s > now or (self._merged and model.steady is not None and self._free_s >= now):
                return
            self._step = model.step(self._free_s, until=now if self._merged else None)
