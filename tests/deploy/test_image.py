"""The gateway's image: what its Dockerfile says, and the gateway run as its container runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway.cli.serve import serve
from tests.deploy import dockerfile, read_only
from tests.deploy.compose import ROOT, SERVICES, health_check
from tests.support.processes import Process, Processes
from tests.support.redis_server import free_port

BUILD, IMAGE = dockerfile.stages()


def test_it_is_slim_and_of_a_named_release() -> None:
    for stage in (BUILD, IMAGE):
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", stage.image), stage.image
    assert BUILD.image == IMAGE.image  # or its environment would name another interpreter


def test_it_runs_as_a_number_that_is_not_roots() -> None:
    # A number, as Kubernetes cannot tell of a name whether it is root's.
    assert IMAGE.arguments("USER") == [f"{read_only.USER}:{read_only.USER}"]
    # Whatever follows would be run as that user; what went before was root's and stays root's.
    after = IMAGE.steps[[word for word, _ in IMAGE.steps].index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & {word for word, _ in after}


def test_nothing_in_it_can_be_written_but_the_state() -> None:
    runs = IMAGE.arguments("RUN")
    assert runs == ["install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/failsoft"]
    assert IMAGE.arguments("VOLUME") == ["/var/lib/failsoft"]
    assert all("--chown" not in copied and "--chmod" not in copied for copied in IMAGE.arguments("COPY"))


def test_nothing_is_installed_whose_hash_is_not_in_a_lock() -> None:
    installed = [run for run in BUILD.arguments("RUN") for run in run.split("&&") if "pip" in run and "install" in run]
    assert installed
    for run in installed:
        assert "--require-hashes -r requirements" in run or "--no-deps" in run, run
    assert not any("apt-get" in run or "curl" in run for stage in (BUILD, IMAGE) for run in stage.arguments("RUN"))
    assert "ADD" not in {word for stage in (BUILD, IMAGE) for word, _ in stage.steps}


def test_it_copies_only_what_exists_and_what_dockerignore_lets_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for argument in BUILD.arguments("COPY") for source in argument.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    assert all(argument.startswith("--from=build ") for argument in IMAGE.arguments("COPY"))


def test_it_is_started_with_flags_that_serve_has_and_ends_by_the_signal_that_drains() -> None:
    [entry], [command] = IMAGE.arguments("ENTRYPOINT"), IMAGE.arguments("CMD")
    assert dockerfile.exec_form(entry) == ["failsoft"]  # no shell in between that would keep the signal
    words = dockerfile.exec_form(command)
    assert words[0] == serve.__name__
    known = {f"--{name.replace('_', '-')}" for name in serve.__annotations__}
    assert {word for word in words if word.startswith("--")} <= known
    assert IMAGE.arguments("STOPSIGNAL") == ["SIGTERM"]


def test_its_health_check_is_composes() -> None:
    [check] = IMAGE.arguments("HEALTHCHECK")
    assert dockerfile.exec_form(check[check.index("CMD") :]) == health_check(SERVICES["gateway"])


@pytest.fixture
def folders() -> Iterator[Path]:
    """State and /tmp of a container. Not in pytest's folders, which no other user may enter."""
    made = Path(tempfile.mkdtemp(prefix="failsoft-image-"))
    made.chmod(0o755)
    for name in ("state", "tmp"):
        (made / name).mkdir()
        os.chown(made / name, read_only.USER, read_only.USER)
    yield made
    shutil.rmtree(made)


def unpacked(folder: Path) -> Path:
    """The wheel that the Dockerfile builds, as it lies in the image."""
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder / "wheels", ROOT], capture_output=True, check=True)
    [wheel] = (folder / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


async def serves_confined(processes: Processes, folders: Path, program: list[str | Path], env: dict[str, str]) -> None:
    """Start it with the store of its own, ask it for its health, end it; what it wrote is in the state folder alone."""
    port = free_port()
    tail = ["serve", "--policies", ROOT / "docs" / "deploy" / "cpu", "--state", folders / "state" / "gateway"]
    tail += ["--host", "127.0.0.1", "--port", str(port)]
    given = env | {"HOME": str(folders / "tmp"), "TMPDIR": str(folders / "tmp"), "OPENAI_API_KEY": "x"}
    command = read_only.confined([*program, *tail], writable=[folders / "state", folders / "tmp"], env=given)
    gateway = processes.command(command, name="gateway")
    await gateway.ready(lambda: "failsoft listens on" in gateway.output)
    assert httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    assert identity(gateway) == {"Uid": str(read_only.USER), "CapEff": "0" * 16, "NoNewPrivs": "1"}
    state = folders / "state" / "gateway"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "valkey").is_dir()
    gateway.terminate()
    assert await gateway.ended(within_s=20) == 0, gateway.output
    assert "Read-only file system" not in gateway.output
    assert "Permission denied" not in gateway.output


def identity(process: Process) -> dict[str, str]:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return dict(re.findall(r"^(Uid|CapEff|NoNewPrivs):\s+(\w+)", status, re.MULTILINE))


def needs_mounts() -> None:
    if not read_only.possible():
        pytest.skip("a root of its own that is read-only takes root here")


def test_a_confined_process_can_write_where_it_is_let_and_nowhere_else(folders: Path) -> None:
    needs_mounts()
    for path, written in (
        (folders / "state" / "x", True),
        (folders / "x", False),
        (Path("/var/tmp/failsoft-x"), False),
    ):
        command = read_only.confined(["touch", path], writable=[folders / "state"], env={})
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) is written, path
        assert path.exists() is written


@pytest.mark.timeout(180)
async def test_the_gateway_runs_on_a_read_only_root_as_nobody_in_particular(
    processes: Processes, folders: Path
) -> None:
    needs_mounts()
    site = unpacked(folders)
    env = {"PYTHONPATH": f"{site}:{sysconfig.get_path('purelib')}", "PYTHONDONTWRITEBYTECODE": "1"}
    await serves_confined(processes, folders, [sys.executable, "-m", "gateway.cli"], env)


def installed(folders: Path) -> Path:
    """What the Dockerfile's build stage makes, each of its steps taken with its folders here."""
    paths = {"/build": folders / "build", "/opt/failsoft": folders / "failsoft", "/wheels": folders / "wheels"}
    source = folders / "src"
    source.mkdir()
    for instruction, argument in BUILD.steps:
        if instruction == "COPY":
            *names, target = argument.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / target)
        elif instruction == "RUN":
            step = argument.replace("python -m venv", f"{sys.base_prefix}/bin/python3 -m venv")
            for inside, path in paths.items():
                step = re.sub(rf"(?<![\w/]){inside}\b", str(path), step)
            done = subprocess.run(["sh", "-ec", step], cwd=source, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
    return paths["/opt/failsoft"]


@pytest.mark.image
@pytest.mark.timeout(900)
async def test_the_dockerfiles_steps_make_an_environment_that_serves(processes: Processes, folders: Path) -> None:
    """Needs a package index, as the image's build does."""
    needs_mounts()
    made = installed(folders)
    assert not (made / "bin" / "pip").exists()
    await serves_confined(processes, folders, [made / "bin" / "failsoft"], {"PYTHONDONTWRITEBYTECODE": "1"})
