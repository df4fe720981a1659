"""What is measured: each section on servers that are up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from backend.box_process import tie_to_parent
from bench.gpu.boxes import Box, told_memory
from bench.gpu.settings import Settings
from bench.gpu.single import Asker, NoAnswer, Timed, forget
from bench.gpu.spread import added_ms
from bench.servers import ROOT

ANSWER_WITHIN_S: Final = 60.0
"""A single request, or one of the load's."""
_ROUNDS_BEFORE: Final = 1
"""Of all adapters, unmeasured: kernels are compiled and pages touched in them."""

Say = Callable[[str], None]
Document = dict[str, Any]


class Failed(Exception):
    """A section could not be measured. The message says why."""


def load(settings: Settings, boxes: Sequence[Box], gateway: str, folder: Path, say: Say) -> Document:
    """The load through the gateway, by `failsoft load`, and what vLLM's logs say of memory. Raises Failed."""
    keys, traffic, out = folder / "keys.yaml", folder / "traffic.yaml", folder / "load.json"
    keys.write_text(
        "".join(f"{name}: {{key: key-{name}, model: {adapter}}}\n" for name, adapter in settings.customers.items())
    )
    traffic.write_text(json.dumps(settings.mix()))
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "gateway.cli", "load", "--url", gateway, "--keys", str(keys)]
    command += [
        "--traffic",
        str(traffic),
        "--patience",
        f"{ANSWER_WITHIN_S:.0f}s",
        "--json",
        "--samples",
        "--out",
        str(out),
    ]
    command += [option for box in boxes for option in ("--box", box.url)]
    limit_s = settings.warm_up + settings.seconds + ANSWER_WITHIN_S + 30
    say(
        f"load: {settings.requests_per_minute:g} requests a minute over {settings.adapters} names for "
        f"{settings.warm_up:g} + {settings.seconds:g} s, at most {limit_s:.0f} s"
    )
    _run(command, limit_s, folder / "load.log")
    report = json.loads(out.read_text())
    overall = report["overall"]
    say(
        f"load: {overall['answered']} of {overall['requests']} answered, p50 {overall['e2e_ms']['p50']:.0f} ms, "
        f"{overall['output_tokens_per_s']:.0f} tokens/s"
    )
    return {"report": report, "memory": told_memory(boxes[0].process.log.read_text(errors="replace"))}


def _run(command: list[str], limit_s: float, log: Path) -> None:
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, preexec_fn=tie_to_parent()
        )
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"failsoft load had not ended within {limit_s:.0f} s; {_end_of(log)}") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if status != 0:
        raise Failed(f"failsoft load ended with {status}; {_end_of(log)}")


def _end_of(log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return f"its log {log} ends with:\n{tail}"


def swap(settings: Settings, box: Box, say: Say) -> Document:
    """What it takes to bring an adapter from the CPU pool into a slot: the first request of each pair, over the second.

    vLLM cannot be told to evict. But it evicts the least recently used, so that with one adapter more than there are
    slots, asked for in turn, each has just lost its slot when its turn comes.
    """
    say(f"swap: {settings.singles} pairs, from the CPU pool and from a slot")
    return {"pool": _pairs(settings, box, lambda name: None)}


def disk(settings: Settings, box: Box, adapters: Mapping[str, Path], say: Say) -> Document:
    """The same where the pool is no larger than the slots, so that what is not in a slot is read from its folder."""
    say(f"disk: {settings.singles} pairs, read from the page cache and from a slot")
    cached = _pairs(settings, box, lambda name: None)
    say(f"disk: {settings.singles} pairs, read from the disk and from a slot")
    return {"page_cache": cached, "disk": _pairs(settings, box, lambda name: forget(adapters[name]))}


def _pairs(settings: Settings, box: Box, before: Callable[[str], None]) -> Document:
    turns = list(settings.customers.values())[: settings.max_loras + 1]
    absent, present = [], []
    with _asker(settings, box.url) as asker:
        for name in turns * _ROUNDS_BEFORE:
            asker.ask(name)
        for name in islice(cycle(turns), settings.singles):
            before(name)
            absent.append(asker.ask(name).first_s)
            present.append(asker.ask(name).first_s)
    return added_ms(absent, present)


def gateway(settings: Settings, boxes: Sequence[Box], url: str, say: Say) -> Document:
    """The same request directly and through the gateway, in turn; its adapter is in a slot of every box."""
    customer, adapter = next(iter(settings.customers.items()))
    say(f"gateway: {settings.singles} pairs, directly and through it")
    direct, through = list[Timed](), list[Timed]()
    with _asker(settings, boxes[0].url) as box, _asker(settings, url) as front:
        for other in boxes:
            with _asker(settings, other.url) as warm:
                warm.ask(adapter)
        front.ask(adapter, f"key-{customer}")
        for number in range(settings.singles):
            if number % 2:  # who goes first changes, as the second finds warmer caches
                direct.append(box.ask(adapter))
                through.append(front.ask(adapter, f"key-{customer}"))
            else:
                through.append(front.ask(adapter, f"key-{customer}"))
                direct.append(box.ask(adapter))
    elsewhere = [one.served_by for one in through if not one.served_by.startswith("box:")]
    if elsewhere:
        raise NoAnswer(f"{len(elsewhere)} requests through the gateway were answered by {elsewhere[0]}, not by a box")
    return {
        "first": added_ms([one.first_s for one in through], [one.first_s for one in direct]),
        "whole": added_ms([one.whole_s for one in through], [one.whole_s for one in direct]),
        "tokens": settings.single_tokens,
    }


def _asker(settings: Settings, url: str) -> Asker:
    return Asker(url, tokens=settings.single_tokens, seed=str(settings.seed), timeout_s=ANSWER_WITHIN_S)
