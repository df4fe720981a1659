"""Which programs take part in a demo, and how each is started."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Final

from backend.launch import ENGINE_PYTHON, BoxPlan, vllm_command
from backend.tiny_agents.artefacts import ensure
from gateway.demo.boxes import Box
from gateway.demo.cast import BASE_MODEL, Customer, cast
from gateway.demo.child import Child
from gateway.demo.guardian import Guardian
from gateway.demo.layout import Layout
from gateway.demo.ports import HOST, free_port
from gateway.demo.question import box_replies, provider_replies
from gateway.demo.show import Settings

_PROVIDER: Final = (sys.executable, "-m", "backend.simulator.provider", "--host", HOST)
BOX_NAMES: Final = ("box-a", "box-b")


class Engine(StrEnum):
    """What the boxes are: simulated, or vLLM on this machine's CPU."""

    SIM = "sim"
    VLLM = "vllm"


class MissingEngine(Exception):
    """What real boxes need is not installed. The message says how to get it."""


def make_settings(
    engine: Engine, layout: Layout, *, port: int, requests_per_second: float, once: int | None
) -> Settings:
    """Everything that a demo needs, on free ports. Raises MissingEngine, MakingFailed, or OSError."""
    customers, guardian = cast(), Guardian()
    layout.box_replies.write_text(box_replies(customer.adapter for customer in customers))
    layout.provider_replies.write_text(provider_replies())
    provider_port = free_port()
    make_box = _simulated if engine is Engine.SIM else _real
    return Settings(
        layout=layout,
        customers=customers,
        guardian=guardian,
        boxes=tuple(make_box(name, layout, customers, guardian) for name in BOX_NAMES),
        provider=Child(
            "provider",
            (*_PROVIDER, "--port", str(provider_port), "--replies", str(layout.provider_replies)),
            log=layout.log("provider"),
            guardian=guardian,
        ),
        provider_url=f"http://{HOST}:{provider_port}/v1",
        port=port,
        requests_per_second=requests_per_second,
        once=once,
    )


def _simulated(name: str, layout: Layout, customers: tuple[Customer, ...], guardian: Guardian) -> Box:
    port = free_port()
    command = [sys.executable, "-m", "backend.simulator", "--name", name, "--host", HOST, "--port", str(port)]
    command += ["--base-model", BASE_MODEL, "--max-loras", str(len(customers)), "--ttft-ms", "60", "--itl-ms", "15"]
    command += ["--replies", str(layout.box_replies)]
    for customer in customers:
        command += ["--adapter", customer.adapter]
    return Box(Child(name, command, log=layout.log(name), guardian=guardian), f"http://{HOST}:{port}")


def _real(name: str, layout: Layout, customers: tuple[Customer, ...], guardian: Guardian) -> Box:
    if not ENGINE_PYTHON.exists():
        raise MissingEngine("the engine is not installed: `make engine`, or `make run ENGINE=vllm`, sets it up")
    model, port = ensure(ENGINE_PYTHON), free_port()
    adapters = {customer.adapter: model.adapters[customer.adapter] for customer in customers}
    command = vllm_command(BoxPlan(model.base, port, host=HOST, adapters=adapters, max_loras=len(adapters)))
    child = Child(name, command.arguments, log=layout.log(name), guardian=guardian, environment=command.environment)
    return Box(child, f"http://{HOST}:{port}")
