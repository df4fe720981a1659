"""`failsoft load` needs no options beside a demo that runs here."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from gateway.demo.ports import free_port
from tests.support.processes import Processes

FAILSOFT = (sys.executable, "-m", "gateway.cli")


async def test_the_demos_customers_are_known_while_it_runs_and_to_its_owner_alone(processes: Processes) -> None:
    # A short folder, as the demo listens on a Unix socket in it.
    with tempfile.TemporaryDirectory(prefix="fs-") as home:
        root = Path(home) / "failsoft" / "demo"
        environment = {"XDG_STATE_HOME": home}
        command = [*FAILSOFT, "demo", "--port", str(free_port()), "--rate", "1"]
        demo = processes.command(command, name="demo", env=environment)
        await demo.ready(lambda: "The gateway answers at" in demo.output)
        assert (root / "keys.yaml").stat().st_mode & 0o777 == 0o600
        load = processes.command(
            [*FAILSOFT, "load", "--rate", "900", "--duration", "1s", "--warm-up", "0s", "--json"],
            name="load",
            env=environment,
        )
        assert await load.ended(within_s=40) == 0, load.output
        document = json.loads(load.output[load.output.index("\n{") :])
        assert set(document["customers"]) <= {"acme", "globex", "initech", "umbrella"}
        assert document["overall"]["answered"] == document["overall"]["requests"] > 0
        assert document["run"]["budgets"]["acme"]["ttft_s"] == 2.0
        demo.terminate()
        await demo.ended(within_s=20)
        assert not (root / "keys.yaml").exists()
