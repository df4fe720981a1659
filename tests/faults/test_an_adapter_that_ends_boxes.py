"""An adapter that ends every engine that is asked for it costs the others two boxes, and then nothing for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.cast import ACME, GENERIC_MODEL, INITECH, PROVIDER_KEY, Customer, write_policies
from tests.faults.gateway_process import GatewayProcess
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

POISON: Final = ACME.adapters[0]
KILLS: Final = {"fault": "die", "adapter": POISON}


class Place:
    """Two boxes that an adapter ends, a provider and a gateway of their own."""

    def __init__(self, processes: Processes, folder: Path, workers: int) -> None:
        adapters = [*ACME.adapters, *INITECH.adapters]
        self.boxes = {name: processes.box(name=name, adapters=adapters, ttft_ms=5, tokens=4) for name in ("a", "b")}
        provider = processes.provider(api_key=PROVIDER_KEY, model=[GENERIC_MODEL], ttft_ms=5, itl_ms=1)
        for simulator in (*self.boxes.values(), provider):
            simulator.wait_ready()
        entries = {name: {"url": box.url} for name, box in self.boxes.items()}
        write_policies(folder / "policies", {"main": entries}, provider.url, customers=(ACME, INITECH))
        options = ("--policies", folder / "policies", "--state", folder / "state", "--workers", str(workers))
        self.gateway = GatewayProcess.start(processes, *options)
        self.gateway.wait_ready()
        for box in self.boxes.values():
            box.admin.faults(KILLS)

    async def ask(self, customer: Customer) -> Recording:
        answer = await RawClient(self.gateway.url, key=customer.key).chat(customer.adapters[0], stream=True)
        assert answer.status == 200
        return answer

    def dead(self) -> list[Simulator]:
        return [box for box in self.boxes.values() if not box.running]

    async def revive(self, *, poisoned: bool = True) -> None:
        for box in self.dead():
            box.start()
            await box.ready()
            if poisoned:
                box.admin.faults(KILLS)
        await eventually(
            lambda: all(box["state"] == "closed" for box in self.gateway.status()["boxes"]), within_s=20, every_s=0.05
        )

    async def until_a_box_dies_of_it(self) -> None:
        """Have the adapter asked for until it is let in again."""
        for _ in range(400):
            await self.ask(ACME)
            if self.dead():
                return
        pytest.fail("it was never tried again")


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def place(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> Iterator[Place]:
    place = Place(processes, tmp_path, request.param)
    yield place
    place.gateway.close()


def by(answer: Recording) -> str:
    return answer.headers["x-failsoft-served-by"]


async def test_it_is_kept_off_the_boxes_that_came_back_and_the_others_are_served_there(place: Place) -> None:
    assert by(await place.ask(ACME)) == "provider:hosted"
    await eventually(lambda: len(place.dead()) == 2, within_s=10)
    await eventually(lambda: "adapter_suspected" in place.gateway.alarms(), within_s=20, every_s=0.05)
    await place.revive()
    await place.until_a_box_dies_of_it()
    assert len(place.dead()) == 1, "it is tried at one box, to spare the others"
    await eventually(
        lambda: [box["suspected_adapters"] != [] for box in place.gateway.status()["boxes"]] == [True, True],
        within_s=10,
        every_s=0.05,
    )
    await place.revive()
    for _ in range(20):
        degraded, own = await place.ask(ACME), await place.ask(INITECH)
        assert (by(degraded), degraded.headers["x-failsoft-degraded"]) == ("provider:hosted", "circuit_open")
        assert by(own).startswith("box:")
    assert place.dead() == []


async def test_once_it_answers_it_is_as_any_other(place: Place) -> None:
    await place.ask(ACME)
    await eventually(lambda: "adapter_suspected" in place.gateway.alarms(), within_s=20, every_s=0.05)
    await place.revive(poisoned=False)

    async def answers() -> bool:
        return by(await place.ask(ACME)).startswith("box:")

    for _ in range(400):
        if await answers():
            break
    await eventually(lambda: "adapter_suspected" not in place.gateway.alarms(), within_s=10)
    assert all(box["suspected_adapters"] == [] for box in place.gateway.status()["boxes"])
    assert [await answers() for _ in range(10)] == [True] * 10
