"""The demo's boxes: started, killed, frozen and revived by name, and what there is to say about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx2

from gateway.demo.child import Child
from gateway.demo.control import Reply
from gateway.demo.narrator import Line, Mood
from gateway.tasks import TaskSet

GRACE_S: Final = 5.0
LOADING_NEWS_EVERY_S: Final = 10.0
VERBS: Final = ("kill", "revive", "freeze", "thaw")


@dataclass(frozen=True, slots=True)
class Box:
    """A vLLM server, real or simulated, in a process of its own."""

    child: Child
    url: str

    @property
    def name(self) -> str:
        """As the policies and the commands have it."""
        return self.child.name


class Boxes:
    """All boxes of one demo. ``tell`` is given a line for everything that happens to one of them."""

    def __init__(self, boxes: tuple[Box, ...], tell: Callable[[Line], None]) -> None:
        self._boxes = {box.name: box for box in boxes}
        self._tell = tell
        self._tasks = TaskSet()

    @property
    def urls(self) -> dict[str, str]:
        """Base URLs by name."""
        return {name: box.url for name, box in self._boxes.items()}

    async def start(self) -> None:
        """Start all of them, without waiting until they are up. Raises OSError."""
        for box in self._boxes.values():
            await self._start(box)

    async def stop(self) -> None:
        """End all of them, together."""
        await asyncio.gather(*(box.child.stop(GRACE_S) for box in self._boxes.values()))
        await self._tasks.close()

    async def command(self, verb: str, name: str) -> Reply:
        """Carry out one of ``VERBS``, and say what was done."""
        box = self._boxes.get(name)
        if box is None:
            return Reply(False, f"there is no {name}; there are {', '.join(self._boxes)}")
        if verb not in VERBS:
            return Reply(False, f"no such command: {verb}")
        if verb == "revive" and not box.child.running:
            await self._start(box)
            return self._done(box, "good", f"starting again (process {box.child.pid})")
        if not box.child.running:
            return Reply(False, f"{name} is not running; `failsoft demo revive {name}` starts it")
        pid = box.child.pid
        if verb == "kill":
            await box.child.kill()
            return self._done(box, "bad", f"killed (SIGKILL to process {pid} and all that it started)")
        if verb == "freeze":
            box.child.freeze()
            return self._done(box, "bad", f"frozen (SIGSTOP to process {pid}): it still accepts, and never answers")
        if box.child.state != "frozen":
            return Reply(False, f"{name} is up already")
        box.child.thaw()
        return self._done(box, "good", f"thawed (SIGCONT to process {pid})")

    async def _start(self, box: Box) -> None:
        await box.child.start()
        self._tasks.spawn(self._watch(box), name=f"watch over {box.name}")
        self._tasks.spawn(self._tell_when_up(box), name=f"progress of {box.name}")

    async def _watch(self, box: Box) -> None:
        status = await box.child.wait()
        if box.child.state in ("up", "frozen"):
            box.child.state = "ended"
            self._tell(Line("bad", box.name, f"ended by itself with status {status}; its log is {box.child.log}"))

    async def _tell_when_up(self, box: Box) -> None:
        """A real box loads for half a minute or more: say so now and then, and when it is there."""
        loop, pid = asyncio.get_running_loop(), box.child.pid
        began = told = loop.time()
        async with httpx2.AsyncClient(timeout=1.0, trust_env=False) as client:
            while box.child.running and box.child.pid == pid:
                if await answers(client, f"{box.url}/health"):
                    self._tell(Line("good", box.name, f"up after {loop.time() - began:.1f} s"))
                    return
                if loop.time() - told >= LOADING_NEWS_EVERY_S:
                    told = loop.time()
                    self._tell(Line("plain", box.name, f"still loading after {told - began:.0f} s"))
                await asyncio.sleep(0.2)

    def _done(self, box: Box, mood: Mood, text: str) -> Reply:
        self._tell(Line(mood, box.name, text))
        return Reply(True, f"{box.name} {text}")


async def answers(client: httpx2.AsyncClient, url: str) -> bool:
    """Whether a GET there is answered with 200."""
    try:
        return (await client.get(url)).status_code == 200
    except httpx2.HTTPError:
        return False
