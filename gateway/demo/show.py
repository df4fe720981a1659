"""The demo itself: starts everything, shows what happens, takes commands, and ends all it started."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from dataclasses import dataclass
from typing import Final

import httpx2

from gateway.demo.boxes import Box, Boxes, answers
from gateway.demo.cast import PROVIDER_KEY_VARIABLE, Customer, write_keys, write_policies
from gateway.demo.child import Child
from gateway.demo.control import ControlServer
from gateway.demo.guardian import Guardian
from gateway.demo.layout import Layout, default_root
from gateway.demo.narrator import Line, Narrator
from gateway.demo.ports import HOST
from gateway.demo.screen import Screen
from gateway.demo.traffic import Answer, Traffic
from gateway.tasks import TaskSet

SUMMARY_EVERY_S: Final = 15.0
READY_WITHIN_S: Final = 60.0
GRACE_S: Final = 10.0


class DemoFailed(Exception):
    """The demo could not start, or something it needs has ended. The message is for people."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What takes part, and how. ``once``: end after so many answers; None goes on until told to stop."""

    layout: Layout
    customers: tuple[Customer, ...]
    guardian: Guardian
    boxes: tuple[Box, ...]
    provider: Child
    provider_url: str
    port: int
    requests_per_second: float
    once: int | None = None


class Demo:
    """One demo, from the first process to the last."""

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self._settings = settings
        self._screen = screen
        self._url = f"http://{HOST}:{settings.port}"
        self._token = secrets.token_urlsafe(16)
        self._boxes = Boxes(settings.boxes, screen.line)
        self._control = ControlServer(settings.layout.control, self._boxes.command)
        self._gateway = self._make_gateway()
        self._narrator = Narrator(every_s=SUMMARY_EVERY_S)
        self._tasks = TaskSet()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> bool:
        """Run until told to stop; True if no customer saw an error. Raises DemoFailed, or OSError early on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._finish)
        try:
            await self._start()
            await self._over
            self._screen.line(Line("plain", "demo", "over; ending every process it started"))
        finally:
            await self._stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return self._narrator.errors == 0

    async def _start(self) -> None:
        settings = self._settings
        write_policies(settings.layout.policies, settings.customers, self._boxes.urls, settings.provider_url)
        write_keys(settings.layout.keys, settings.customers)
        settings.layout.address.write_text(self._url)
        await settings.guardian.start()
        await self._control.start()
        await self._boxes.start()
        for child in (settings.provider, self._gateway):
            await child.start()
            self._tasks.spawn(self._watch(child), name=f"watch over the {child.name}")
        await self._until_ready()
        if self._over.done():
            return
        self._screen.introduction(
            self._url,
            settings.customers[0],
            boxes=tuple(self._boxes.urls),
            ops=f"{self._url}/ops#token={self._token}",
            state="" if settings.layout.root == default_root() else f" --state {settings.layout.root}",
        )
        self._tasks.spawn(self._ask(), name="the demo's traffic")
        self._tasks.spawn(self._sum_up(), name="the demo's summaries")

    async def _stop(self) -> None:
        await self._tasks.close()
        await self._control.close()
        await self._gateway.stop(GRACE_S)  # before the boxes, so that it never has to make do without them
        await self._boxes.stop()
        await self._settings.provider.stop(GRACE_S)
        await self._settings.guardian.close()
        for file in (self._settings.layout.keys, self._settings.layout.address):
            file.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _make_gateway(self) -> Child:
        layout = self._settings.layout
        command = [sys.executable, "-m", "gateway.cli", "serve", "--host", HOST, "--port", str(self._settings.port)]
        command += ["--policies", str(layout.policies), "--state", str(layout.gateway)]
        environment = {PROVIDER_KEY_VARIABLE: secrets.token_urlsafe(12), "FAILSOFT_ADMIN_TOKEN": self._token}
        return Child(
            "gateway",
            command,
            log=layout.log("gateway"),
            guardian=self._settings.guardian,
            environment=environment,
        )

    async def _watch(self, child: Child) -> None:
        status = await child.wait()
        if child.state == "up" and not self._over.done():
            words = child.last_words()
            self._over.set_exception(DemoFailed(f"the {child.name} ended with status {status}:\n{words}"))

    async def _until_ready(self) -> None:
        """Until the gateway takes requests; the boxes may still be loading then."""
        async with httpx2.AsyncClient(timeout=1.0, trust_env=False) as client:
            try:
                async with asyncio.timeout(READY_WITHIN_S):
                    while not self._over.done():
                        if await answers(client, f"{self._url}/readyz"):
                            return
                        await asyncio.sleep(0.1)
            except TimeoutError:
                words = self._gateway.last_words()
                raise DemoFailed(f"the gateway was not ready within {READY_WITHIN_S:.0f} s:\n{words}") from None

    async def _ask(self) -> None:
        settings = self._settings
        traffic = Traffic(self._url, settings.customers, per_second=settings.requests_per_second, tell=self._hear)
        await traffic.run(settings.once)
        if line := self._narrator.summary(asyncio.get_running_loop().time(), last=True):
            self._screen.line(line)
        self._finish()

    def _hear(self, answer: Answer) -> None:
        if line := self._narrator.hear(answer):
            self._screen.line(line)

    async def _sum_up(self) -> None:
        while True:
            if line := self._narrator.summary(asyncio.get_running_loop().time()):
                self._screen.line(line)
            await asyncio.sleep(1)
