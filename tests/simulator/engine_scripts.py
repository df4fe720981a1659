"""What may happen to an engine, as data for property tests, and what it does then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from backend.simulator.costs import Costs
from backend.simulator.engine_model import EngineModel
from backend.simulator.engine_step import Step

DYADIC = Costs(
    step_s=1 / 256,
    per_sequence_s=1 / 1024,
    per_adapter_s=1 / 4096,
    prefill_tokens_per_s=4096.0,
    swap_s=1 / 32,
    disk_load_s=1 / 4,
)
"""Costs whose sums are exact in binary, so that times can be compared for equality."""


@dataclass(frozen=True)
class Submit:
    """A new request; ``adapter`` None is the base."""

    adapter: str | None
    prompt: int
    output: int


@dataclass(frozen=True)
class Abort:
    """Of the request with this number, whatever has become of it."""

    number: int


@dataclass(frozen=True)
class Run:
    """So many steps."""

    steps: int


Action = Submit | Abort | Run

adapters = st.sampled_from([None, "a", "b", "c", "d", "e"])
submits = st.builds(Submit, adapters, st.integers(1, 90), st.integers(1, 60))
actions = st.lists(
    st.one_of(submits, submits, st.builds(Abort, st.integers(0, 30)), st.builds(Run, st.integers(1, 25)))
)
limits = st.fixed_dictionaries(
    {
        "max_loras": st.integers(1, 3),
        "max_cpu_loras": st.integers(3, 5),
        "max_num_seqs": st.integers(1, 6),
        "max_num_batched_tokens": st.integers(1, 64),
        # Just room for the longest request, or some more.
        "kv_tokens": st.integers(160, 400),
    }
)


@dataclass
class Account:
    """What went into an engine and what came out."""

    model: EngineModel
    now: float = 0.0
    asked: dict[str, Submit] = field(default_factory=dict)
    got: dict[str, int] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    aborted: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def submit(self, wanted: Submit) -> None:
        """Give it a request, named for its number."""
        id = f"r{len(self.asked)}"
        assert self.model.submit(id, wanted.adapter, wanted.prompt, wanted.output)
        self.asked[id] = wanted
        self.got[id] = 0

    def abort(self, number: int) -> None:
        """Take one out."""
        if self.model.abort(f"r{number}"):
            self.aborted.add(f"r{number}")

    def step(self) -> Step | None:
        """Run one."""
        step = self.model.step(self.now)
        if step is not None:
            self.steps.append(step)
            self.now = step.ended_s
            self.started += step.started
            self.finished += step.finished
            for id in step.tokens:
                self.got[id] += step.steps
        return step

    def play(self, script: list[Action]) -> None:
        """Do all of it."""
        for action in script:
            match action:
                case Submit():
                    self.submit(action)
                case Abort(number):
                    self.abort(number)
                case Run(steps):
                    for _ in range(steps):
                        self.step()

    def drain(self) -> None:
        """Run until there is nothing left to do."""
        while self.step() is not None:
            assert len(self.steps) < 100_000


def account(**limits: Any) -> Account:
    """Of a new engine with exact costs."""
    return Account(EngineModel(DYADIC, **limits))
