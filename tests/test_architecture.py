"""The rules of the house that a linter does not know: rooms, sizes, names, and what the README promises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "backend")
LONGEST_MODULE = 350
BANNED_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})
TEXT = frozenset({".py", ".md", ".yaml", ".yml", ".toml", ".mk", ".html", ".js", ".css", ".txt", ".lock", ".json"})
UNTRACKED = frozenset({"node_modules", "build", "dist", "__pycache__"})

# What each room may import besides itself and the leaves; the table of docs/architecture.md.
LEAVES = frozenset({"gateway.errors", "gateway.tasks", "gateway.clock"})
OBSERVE = frozenset({"gateway.observe"})
POLICY = OBSERVE | {"gateway.policy"}
UPSTREAM = POLICY | {"gateway.upstream"}
FLEET = UPSTREAM | {"gateway.fleet"}
STORED = frozenset({"gateway.accounts", "gateway.orders"})
SCORES = frozenset({"gateway.scores"})
ADAPTERS = frozenset({"gateway.adapters"})
PARTS = (
    FLEET | STORED | {"gateway.dataplane", "gateway.control", "gateway.workers", "gateway.drills"} | SCORES | ADAPTERS
)
ROOMS: dict[str, frozenset[str]] = {
    "gateway.errors": frozenset(),
    "gateway.tasks": frozenset(),
    "gateway.clock": frozenset(),
    "gateway.settings": OBSERVE,
    "gateway.observe": frozenset(),
    "gateway.policy": OBSERVE,
    "gateway.upstream": POLICY,
    "gateway.fleet": UPSTREAM,
    "gateway.accounts": POLICY,
    "gateway.orders": POLICY,
    "gateway.scores": POLICY,
    "gateway.adapters": FLEET,
    "gateway.dataplane": FLEET | STORED,
    "gateway.drills": FLEET | STORED | {"gateway.dataplane"},
    "gateway.workers": FLEET | STORED | {"gateway.dataplane", "gateway.drills"},
    "gateway.control": POLICY | STORED | SCORES | {"gateway.fleet"},
    "gateway.app": PARTS | {"gateway.settings"},
    "gateway.demo": PARTS | {"gateway.app", "backend"},
    "gateway.cli": PARTS | {"gateway.settings", "gateway.app", "gateway.demo", "backend", "backend.planner"},
    # Before the room that it is a part of: the first that fits is taken.
    "backend.planner": FLEET | STORED | {"gateway.dataplane", "backend"},
    "backend": frozenset({"gateway.policy"}),
}

REQUEST_PATH = frozenset({"gateway.dataplane", "gateway.upstream", "gateway.fleet"})


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if module == room or module.startswith(room + ".")), None)


def imports(module: str, path: Path) -> Iterator[str]:
    """Every module of ours that ``module`` imports, at its top or inside a function; not for type checking only."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test).endswith("TYPE_CHECKING")
        for statement in guard.body
        for node in ast.walk(statement)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            # `from gateway.policy import compiled` names a module, `from gateway.tasks import TaskSet` does not.
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_only_downwards_between_rooms(module: str) -> None:
    room = room_of(module)
    if room is None:
        assert module == "gateway", f"{module} is in no room of docs/architecture.md"
        return
    for imported in imports(module, MODULES[module]):
        target = room_of(imported)
        assert target == room or target in LEAVES | ROOMS[room], f"{module} ({room}) imports {imported} ({target})"


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) in REQUEST_PATH])
def test_the_request_path_knows_no_redis(module: str) -> None:
    text = MODULES[module].read_text()
    assert not re.search(r"^\s*(?:from|import) redis\b", text, re.M)
    assert not {"gateway.policy.redis_link", "gateway.policy.store"} & set(imports(module, MODULES[module]))


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: set(imports(module, path)) & set(MODULES) - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("these import each other: " + " -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_enough_to_be_read(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_named_for_what_it_holds(module: str) -> None:
    assert not BANNED_NAMES & set(module.split("."))


def written_files(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name == ".ci" or (path.name not in UNTRACKED and not path.name.startswith(".")):
                yield from written_files(path)
        elif path.suffix in TEXT or path.name in {"Makefile", "Dockerfile", "LICENSE", "run"}:
            yield path


def test_no_file_names_a_path_of_one_machine() -> None:
    home = re.compile(r"(?<![\w.$}])/(?:home|Users|work|root)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in written_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if home.search(line)
    ]
    assert found == []


def test_the_locks_pin_every_package_with_hashes_and_name_no_host() -> None:
    for lock in (ROOT / "requirements.lock", ROOT / "requirements-dev.lock"):
        text = lock.read_text()
        assert "://" not in text
        entries = re.split(r"\n(?=\S)", text.strip())
        for entry in entries:
            assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==\S+", entry), entry.splitlines()[0]
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    runtime, development = (
        set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runtime <= development


def test_no_lock_holds_a_release_of_litellm_known_to_be_malicious() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"^litellm(\[.*\])?==1\.82\.[78]\b", lock.read_text(), re.M)


@pytest.mark.parametrize("command", ["make run", "make test", "make test-engine", "make test-clients"])
def test_the_readme_names_the_commands_that_matter(command: str) -> None:
    assert re.search(rf"\b{command}\b", (ROOT / "README.md").read_text())


@pytest.mark.parametrize("target", ["help", "setup", "run", "test", "test-engine", "test-clients", "bench", "lint"])
def test_make_help_lists_each_target(target: str) -> None:
    assert re.search(rf"^{target}:.*## \S", (ROOT / "Makefile").read_text(), re.M)
