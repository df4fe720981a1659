"""One engine without a GPU: vLLM 0.32's scheduler, its KV cache and its LoRA caches, step by step.

Pure: no socket, no clock, no randomness. Times are seconds of whatever clock the caller has. What is modelled is
``Scheduler.schedule`` of ``vllm/v1/core/sched/scheduler.py`` under the policy ``fcfs``:

- Running requests first, in the order of their admission, each with all the tokens that it lacks (one if it decodes),
  within ``max_num_batched_tokens``; so a long prompt is prefilled in chunks.
- Where the KV cache has no block left, the latest running request is preempted: it goes back to the head of the queue
  and is computed anew, prompt and answer. Nobody is admitted in such a step.
- Then the queue, in its order, until a prompt does not fit into the KV cache, ``max_num_seqs`` run, or the token
  budget is spent. **A request whose adapter would be one too many in this step is skipped** and keeps its place; those
  behind it are looked at, so later requests for adapters that run overtake it. There is no ageing: cold ones starve.
- The adapters of a step are brought into GPU slots before its forward pass, and the step lasts so much longer.

Left out: prefix caching, speculation (the costs stand for it), asynchronous scheduling, priorities.
"""

from __future__ import annotations

import math
from collections import deque

from backend.simulator.costs import Costs
from backend.simulator.engine_step import Step
from backend.simulator.lora_cache import LoraCache, Source
from backend.simulator.pause import Pause
from backend.simulator.sequence import KV_BLOCK_TOKENS, Sequence, blocks_of


class EngineModel:
    """One engine. ``step`` is to be called when the step before it has ended, with a time that never goes back.

    ``max_cpu_loras`` is ``max_loras`` where it is not given, ``max_queued_reqs`` no limit, both as with vLLM.
    ``kv_tokens``: what the KV cache holds. By default what 16 GB of weights leave of 0.9 × 80 GB, at 128 KiB a token.
    Raises ValueError where the numbers do not fit together.
    """

    def __init__(
        self,
        costs: Costs | None = None,
        *,
        max_loras: int = 8,
        max_cpu_loras: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 2048,
        kv_tokens: int = 400_000,
        max_queued_reqs: int | None = None,
    ) -> None:
        if max_num_seqs < 1 or max_num_batched_tokens < 1 or kv_tokens < KV_BLOCK_TOKENS:
            raise ValueError("an engine needs room for one sequence, one token and one block of the KV cache")
        self.costs = costs if costs is not None else Costs()
        self.loras = LoraCache(
            max_loras=max_loras, max_cpu_loras=max_cpu_loras if max_cpu_loras is not None else max_loras
        )
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_queued_reqs = max_queued_reqs
        self.kv_blocks = kv_tokens // KV_BLOCK_TOKENS
        self.kv_tokens = self.kv_blocks * KV_BLOCK_TOKENS
        self.preemptions = 0
        self.rejections = 0
        self.prompt_tokens = 0
        """Prompt tokens of the requests that have their first token."""
        self.generated_tokens = 0
        self._requests: dict[str, Sequence] = {}
        self._running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()
        self._deferred = 0
        self._free = self.kv_blocks
        self._pause = Pause.NO
        self._steady: tuple[float, int] | None = None

    # What can be seen of it

    @property
    def running(self) -> int:
        """Requests that were admitted (``vllm:num_requests_running``)."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue (``vllm:num_requests_waiting``)."""
        return len(self._waiting)

    @property
    def waiting_deferred(self) -> int:
        """Those that were skipped for want of a LoRA slot since they came or were preempted."""
        return self._deferred

    @property
    def waiting_capacity(self) -> int:
        """The others: no room, or not looked at yet."""
        return len(self._waiting) - self._deferred

    @property
    def kv_usage(self) -> float:
        """The part of the KV cache in use, 0 to 1 (``vllm:kv_cache_usage_perc``)."""
        return 1.0 - self._free / self.kv_blocks

    @property
    def running_adapters(self) -> tuple[str, ...]:
        """The distinct adapters of the running requests, in the order of admission."""
        return tuple(dict.fromkeys(r.adapter for r in self._running if r.adapter is not None))

    @property
    def waiting_adapters(self) -> tuple[str, ...]:
        """The distinct adapters of the queue, in its order."""
        return tuple(dict.fromkeys(r.adapter for r in self._waiting if r.adapter is not None))

    @property
    def steady(self) -> tuple[float, int] | None:
        """If the next steps will be alike: the seconds of one, and how many there are if nothing comes between."""
        return self._steady

    @property
    def idle(self) -> bool:
        """Whether there is nothing that a step could run."""
        return (not self._running and (not self._waiting or self._pause is not Pause.NO)) or self._pause is Pause.ALL

    @property
    def pause(self) -> Pause:
        """Whether the scheduler runs."""
        return self._pause

    @pause.setter
    def pause(self, pause: Pause) -> None:
        self._pause = pause
        self._steady = None

    def __contains__(self, id: str) -> bool:
        return id in self._requests

    # What can be done with it

    def preload(self, adapter: str) -> float:
        """Load ``adapter`` into pool and slot, as ``--lora-modules`` and ``load_lora_adapter`` do.

        Gives the seconds it takes, in which the engine runs no step.
        """
        self._steady = None
        return self.costs.load_s(self.loras.use(adapter))

    def submit(self, id: str, adapter: str | None, prompt_tokens: int, output_tokens: int) -> bool:
        """Queue a request; ``adapter`` None is the base. False: the queue limit is reached (vLLM's 503).

        Raises ValueError for an id that is in the engine already, and for what can never fit into the KV cache.
        """
        if id in self._requests:
            raise ValueError(f"request {id!r} is in the engine already")
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError("a request has a prompt and asks for a token")
        # The last token is never computed, as nothing comes after it.
        if blocks_of(prompt_tokens + output_tokens - 1) > self.kv_blocks:
            raise ValueError(f"{prompt_tokens} + {output_tokens} tokens never fit into {self.kv_blocks} blocks")
        if self.max_queued_reqs is not None and len(self._requests) >= self.max_queued_reqs:
            self.rejections += 1
            return False
        self._requests[id] = request = Sequence(id, adapter, prompt_tokens, output_tokens)
        self._waiting.append(request)
        self._steady = None
        return True

    def abort(self, id: str) -> bool:
        """Take a request out, and give back all it holds. False: it is not there (any more)."""
        request = self._requests.pop(id, None)
        if request is None:
            return False
        if request.running:
            self._running.remove(request)
        else:
            self._waiting.remove(request)
            self._deferred -= request.deferred
        self._free += request.blocks
        self._steady = None
        return True

    def step(self, now: float, until: float | None = None) -> Step | None:
        """Run one step that begins ``now``; None if there is nothing to run. The state is then that at its end.

        With ``until`` (when something may next be submitted or aborted), steps that are alike and begin before it are
        run as one, exactly as if they were run one by one; this makes long answers cheap.
        """
        if self.idle:
            return None
        if until is not None and self._steady is not None:
            each_s, most = self._steady
            steps = max(1, min(most, math.ceil((until - now) / each_s) if until < math.inf else most))
            return self._run_steady(now, each_s, steps)
        step = Step(now)
        self._run(step, self._schedule(step))
        return step

    # How it works

    def _schedule(self, step: Step) -> list[tuple[Sequence, int]]:
        """The requests of the next step, each with the number of its tokens."""
        batch: list[tuple[Sequence, int]] = []
        budget = self.max_num_batched_tokens
        running = self._running
        index = 0
        while index < len(running) and budget:
            request = running[index]
            tokens = min(request.total - request.computed, budget)
            need = blocks_of(request.computed + tokens) - request.blocks
            while need > self._free:
                latest = running.pop()
                self._preempt(latest, step)
                if latest is request:
                    break
            if not request.running:
                break
            self._free -= need
            request.blocks += need
            budget -= tokens
            batch.append((request, tokens))
            index += 1
        if not step.preempted and self._waiting and self._pause is Pause.NO:
            self._admit(step, batch, budget)
        return batch

    def _admit(self, step: Step, batch: list[tuple[Sequence, int]], budget: int) -> None:
        waiting, running = self._waiting, self._running
        adapters = {request.adapter for request, _ in batch if request.adapter is not None}
        skipped: list[Sequence] = []
        while budget and waiting and len(running) < self.max_num_seqs:
            request = waiting[0]
            adapter = request.adapter
            if adapter is not None and adapter not in adapters and len(adapters) >= self.loras.max_loras:
                skipped.append(waiting.popleft())
                if not request.deferred:
                    request.deferred = True
                    self._deferred += 1
                continue
            # The whole prompt has to fit, not just its first chunk (`scheduler_reserve_full_isl`).
            if blocks_of(request.total) > self._free:
                break
            waiting.popleft()
            self._deferred -= request.deferred
            request.deferred = False
            request.running = True
            running.append(request)
            if adapter is not None:
                adapters.add(adapter)
            if not request.admitted:
                request.admitted = True
                step.started.append(request.id)
            tokens = min(request.total, budget)
            request.blocks = blocks_of(tokens)
            self._free -= request.blocks
            budget -= tokens
            batch.append((request, tokens))
        waiting.extendleft(reversed(skipped))

    def _preempt(self, request: Sequence, step: Step) -> None:
        self._free += request.blocks
        request.blocks = request.computed = 0
        request.running = False
        self._waiting.appendleft(request)
        self.preemptions += 1
        step.preempted.append(request.id)

    def _run(self, step: Step, batch: list[tuple[Sequence, int]]) -> None:
        decoding = 0
        adapters: dict[str, None] = {}
        for request, tokens in batch:
            if request.adapter is not None:
                adapters[request.adapter] = None
            # A decoding sequence lacks the one token that it got in the step before.
            if request.told and tokens == 1 and request.computed + 1 == request.total:
                decoding += 1
            else:
                step.prefill_tokens += tokens
            request.computed += tokens
            if request.computed < request.total:
                continue
            if not request.told:
                request.told = True
                self.prompt_tokens += request.total
                step.first_tokens.append(request.id)
            request.total += 1
            request.left -= 1
            step.tokens.append(request.id)
            if not request.left:
                self._finish(request, step)
        self.generated_tokens += len(step.tokens)
        forward_s = self.costs.forward_s(decoding=decoding, adapters=len(adapters), prefill_tokens=step.prefill_tokens)
        step.duration_s = forward_s
        for adapter in adapters:
            step.duration_s += self._bring(adapter, step)
        if step.finished:
            self._running = [request for request in self._running if request.left]
        self._look_ahead(step, forward_s)

    def _bring(self, adapter: str, step: Step) -> float:
        source = self.loras.use(adapter)
        if source is not Source.SLOT:
            step.swapped_in.append(adapter)
            if source is Source.DISK:
                step.read_from_disk.append(adapter)
        return self.costs.load_s(source)

    def _finish(self, request: Sequence, step: Step) -> None:
        del self._requests[request.id]
        self._free += request.blocks
        step.finished.append(request.id)

    def _look_ahead(self, step: Step, forward_s: float) -> None:
        """Whether the steps after this one will be like it: the same sequences decode, and nobody else gets in.

        Nobody else gets in if nobody did in this step, for what kept them out (sequences, adapters, the token budget,
        the KV cache) is the same or worse in the next one.
        """
        running = self._running
        self._steady = None
        if not running or step.finished or step.preempted or len(step.tokens) != len(running):
            return
        if step.prefill_tokens:
            if self._waiting and self._pause is Pause.NO:
                return
            adapters = len({request.adapter for request in running} - {None})
            forward_s = self.costs.forward_s(decoding=len(running), adapters=adapters)
            if len(running) > self.max_num_batched_tokens:
                return
        steps = min(request.left for request in running)
        # In `steps` steps a sequence fills at most so many more blocks.
        if self._free < len(running) * (steps // KV_BLOCK_TOKENS + 1):
            steps = (self._free // len(running)) * KV_BLOCK_TOKENS - 1
        if steps > 0:
            self._steady = (forward_s, steps)

    def _run_steady(self, now: float, each_s: float, steps: int) -> Step:
        step = Step(now, each_s * steps, steps)
        for request in self._running:
            request.computed += steps
            request.total += steps
            request.left -= steps
            need = blocks_of(request.computed) - request.blocks
            request.blocks += need
            self._free -= need
            step.tokens.append(request.id)
            if not request.left:
                self._finish(request, step)
        self.generated_tokens += steps * len(step.tokens)
        if step.finished:
            self._running = [request for request in self._running if request.left]
        # Every adapter of the batch would be touched in the same order: the caches stay as they are.
        self._look_ahead(step, each_s)
        return step
