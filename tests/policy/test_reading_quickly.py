"""Files of thousands of customers are read quickly, and say the same as when they are read with care."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import PolicyError
from gateway.policy import read_ahead as reading
from gateway.policy.alone import Alone
from gateway.policy.models import CustomerFile
from gateway.policy.quick_source import QuickReader, read_quickly
from gateway.policy.read_ahead import read_ahead
from gateway.policy.source import SourceError, read_yaml
from gateway.policy.validate import ReadAhead, policy_files, read_folder
from tests.policy.scenery import FLEET, Folder, digest

SCALARS = st.sampled_from(
    ["a", "yes", "No", "null", "~", "", "010", "1:30", "1e5", "12", "-3", "1.5", "1_", "._", ".inf", "2027-01-01",
     "2027-02-31", "<<", "_1", "*x", "&x a", "!!str 1", "! a", "'quoted'", '"q: 1"', "{", "]", "- a", "a: b", "#c",
     "null_"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab: ", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner),
    max_leaves=8,
)
LINES = st.lists(st.builds("{}{}: {}".format, st.sampled_from(["", "  ", "- "]), SCALARS, SCALARS), max_size=5)


@given(st.one_of(VALUES.map(yaml.safe_dump), LINES.map("\n".join), st.text(max_size=12)))
@example("a: &x [1]\nb: *x\n")
@example("a: 1\n---\nb: 2\n")
@example("[" * 40 + "]" * 40)
@example("a: 1\na: 2\n")
def test_what_is_read_quickly_is_what_is_read_with_care(text: str) -> None:
    quick = read_quickly(text)
    if quick is None:
        return
    careful = read_yaml(text)
    assert careful.problems == []
    assert careful.root is not None
    assert careful.root.plain() == quick
    assert repr(careful.root.plain()) == repr(quick)


BLOCKS = st.lists(
    st.one_of(
        st.sampled_from(
            ["a: 1", "b: [x, y]", "b: [x,", "c:", "- z", "  - z", "  d: 2", "# comment", "", "e: |", "e: |+", "e: >-",
             "e: 'open", "f'", "---", "...", "%YAML 1.2", "? k", ": v", "g: &x 1", "h: *x", '"q": 3', "i:j", "k: l # m",
             " n: 1", "o: {p: 1,", "q: 2}", "r: plain", "  goes on", "s: a\x85t: b", "# u\u2028v: 1", "w: 1\rx: 2",
             "\ufeffy: 1", "<<: {z: 1}", "a-b: 1", "e: |2", "\tg: 1", "text\\", 'e: "x\\', "a: 1:"]
        ),
        st.builds("{}: {}".format, st.sampled_from("abcdef"), SCALARS),
    ),
    max_size=9,
)  # fmt: skip


@given(st.lists(st.one_of(BLOCKS.map("\n".join), VALUES.map(yaml.safe_dump), st.text(max_size=12)), max_size=4))
@example(["a: 1\nb: |\n  text\n\n", "a: 1\nb: |\n  text\n\nc: 2\n", "a: 1\na: 1\n"])
@example(["e: |+\n  x\n\n\na: 1", "e: |+\n  x\n\n\n"])
def test_what_is_read_block_by_block_is_what_is_read_as_a_whole(texts: list[str]) -> None:
    reader = QuickReader()
    for text in texts:
        # More quickly it may be given up only where there is something to be said.
        assert repr(reader.read(text)) == repr(read_quickly(text))


def test_a_block_that_many_files_share_is_read_twice_at_most() -> None:
    reader = QuickReader()
    found = [reader.read(f"# a customer\nname: c{number}\nlimits: {{most: 3}}\n") for number in range(4)]
    assert found == [{"name": f"c{number}", "limits": {"most": 3}} for number in range(4)]
    assert found[1]["limits"] is found[2]["limits"] is found[3]["limits"]


@pytest.mark.parametrize("text", ["a: {b: [1, 2.5, yes, 2027-01-01, text]}\n", "- x\n- 'y'\n", "plain"])
def test_an_ordinary_file_is_read_quickly(text: str) -> None:
    assert read_quickly(text) is not None


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1\n", "a: *b\n", "a:\n", "a: 010\n"])
def test_what_has_to_be_pointed_at_is_left_to_the_careful_reader(text: str) -> None:
    assert read_quickly(text) is None


def test_files_read_on_all_cores_give_the_same_policies_and_the_same_complaints(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "WORTH_IT", 2)
    monkeypatch.setattr(reading.os, "cpu_count", lambda: 2)
    for number in range(20):
        folder.customer(f"c{number:02}", "priority: low\n" if number % 2 else "")
    paths = [path for path in policy_files(folder.path) if path.parent != folder.path]
    settled = read_folder(folder.path)
    alone = Alone(settled.fleet, settled.defaults)
    assert set(read_ahead(paths, alone)) == set(paths)
    found, expected = read_folder(folder.path, ahead=read_ahead), read_folder(folder.path)
    assert found == expected
    assert found.document == expected.document

    folder.customer("c03", "x: 1\n")
    folder.customer("c04", "priority: hihg\n")
    folder.write("customers/c05.yaml", "customer: [\n")
    assert len(read_ahead(paths, alone)) == len(paths) - 3
    with pytest.raises(PolicyError) as quick:
        read_folder(folder.path, ahead=read_ahead)
    with pytest.raises(PolicyError) as careful:
        read_folder(folder.path)
    assert quick.value.diagnostics == careful.value.diagnostics
    assert len(quick.value.diagnostics) == 3


ONE_OF = st.sampled_from
LINES = st.fixed_dictionaries(
    {},
    optional={
        "fallback": ONE_OF(
            ["[{base: {}}]", "[{provider: hosted}, {static: Later.}]", "[{provider: elsewhere}]", "[]", "[{x: 1}]"]
        ),
        "hosted": ONE_OF(["{allowed: false}", "{usd_per_day: 5}"]),
        "deadline": ONE_OF(["1s", "20s", "an hour"]),
        "limits": ONE_OF(["{concurrency: 3}", "{requests_per_minute: 60}"]),
        "aliases": ONE_OF(["{latest: own_v1}", "{own_v1: own_v1}", "{other_v1: own_v1}", "{base: own_v1}"]),
        "fleet": ONE_OF(["main", "elsewhere"]),
    },
)
CUSTOMERS = st.lists(st.tuples(LINES, st.integers(0, 12)), min_size=1, max_size=5)
FLEETS = ONE_OF(
    [
        FLEET,
        FLEET.replace("8000", "8000/v1"),
        FLEET.partition("providers:")[0],
        FLEET.replace('000"}', '000", max_cpu_loras: 8}', 1),
        FLEET.replace("base_model: base", "base_model: [base]"),
        FLEET + f'admin_tokens: [{{name: ops, sha256: "{digest("c0")}", scope: read}}]\n',
    ]
)
DEFAULTS = ONE_OF(["", "defaults: {hosted: {allowed: false}}\n", "defaults: {fallback: [{provider: elsewhere}]}\n"])


def found_in(folder: Path, ahead: ReadAhead | None) -> tuple[object, ...]:
    """All that anybody could make of a folder."""
    try:
        found = read_folder(folder) if ahead is None else read_folder(folder, ahead=ahead)
    except PolicyError as error:
        return error.diagnostics
    return found.document, found.deflated, found.adapters, len(found.customers), found.warnings, found


@given(CUSTOMERS, FLEETS, DEFAULTS)
def test_customers_who_are_not_looked_at_twice_are_what_a_close_look_finds(
    customers: list[tuple[dict[str, str], int]], fleet: str, defaults: str
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{name}/cache")
        patch.setattr(reading, "WORTH_IT", 1)
        patch.setattr(reading.os, "cpu_count", lambda: 1)
        folder = Folder(Path(name, "policies"))
        (folder.path / "customers" / "acme.yaml").unlink()
        folder.write("fleet.yaml", fleet)
        folder.write("defaults.yaml", defaults)
        for number, (lines, slip) in enumerate(customers):
            own = f"c{number}"
            # Seldom it takes what is another's, or is called otherwise than its file.
            key, adapter = ("c0" if slip == one else own for one in (1, 2))
            text = f'customer: {"c0" if slip == 3 else own}\napi_keys: ["{digest(key)}"]\nadapters: [{adapter}_v1]\n'
            said = "".join(f"{line}: {value}\n" for line, value in lines.items())
            text += said.replace("own_v1", f"{adapter}_v1").replace("other_v1", "c1_v1")
            folder.write(f"customers/{own}.yaml", text)
        expected = found_in(folder.path, None)
        assert found_in(folder.path, read_ahead) == expected
        # And from what was kept of the first time.
        assert found_in(folder.path, read_ahead) == expected


def test_thousands_of_customers_in_order_are_not_made_again_of_what_is_kept_of_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "WORTH_IT", 1)
    folder.customer("globex", "priority: low\n")
    expected = read_folder(folder.path)
    found = read_folder(folder.path, ahead=read_ahead)
    assert found.proven
    with monkeypatch.context() as broken:
        broken.setattr(CustomerFile, "model_validate_json", None)
        assert found.document == expected.document
        assert (found.adapters, len(found.customers)) == (2, 2)
    assert found == expected
    assert [customer.priority for customer in found.customers] == [None, "low"]
    # What is in order under one fleet file is looked at again under another.
    folder.write("fleet.yaml", FLEET.partition("providers:")[0])
    assert not read_folder(folder.path, ahead=read_ahead).proven


def test_a_text_that_was_read_before_is_not_read_again_and_a_changed_one_is(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "WORTH_IT", 2)
    folder.customer("globex")
    first = read_folder(folder.path, ahead=read_ahead)

    def fail(reader: QuickReader, text: str) -> None:
        raise AssertionError(f"read again: {text}")

    with monkeypatch.context() as broken:
        broken.setattr(QuickReader, "read", fail)
        assert read_folder(folder.path, ahead=read_ahead) == first
    folder.customer("globex", "priority: low\n")
    changed = read_folder(folder.path, ahead=read_ahead)
    assert changed == read_folder(folder.path)
    assert changed != first

    # Whatever has become of the cache, it costs time at most. The same for files that fit no longer together.
    (cache,) = (tmp_path / "cache" / "failsoft").iterdir()
    whole = cache.read_bytes()
    for damaged in (b"", b"rubbish", whole[:-1], b"0" + whole[1:]):
        cache.write_bytes(damaged)
        assert read_folder(folder.path, ahead=read_ahead) == changed
    folder.write("fleet.yaml", FLEET.partition("providers:")[0])
    folder.customer("acme", "fallback: [{provider: hosted}]\n")
    for _ in range(2):
        with pytest.raises(PolicyError, match="there is no provider hosted"):
            read_folder(folder.path, ahead=read_ahead)


def test_what_was_made_of_one_file_among_many_is_not_worth_to_be_kept_and_of_several_is(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "WORTH_IT", 2)
    for number in range(2 * reading.WORTH_KEEPING):
        folder.customer(f"c{number:03}")
    read_folder(folder.path, ahead=read_ahead)
    (cache,) = (tmp_path / "cache" / "failsoft").iterdir()
    for changed, kept in (["c000"], False), (["c001", "c002"], True):
        before = cache.read_bytes()
        for name in changed:
            folder.customer(name, "priority: low\n")
        assert read_folder(folder.path, ahead=read_ahead) == read_folder(folder.path)
        assert (cache.read_bytes() != before) is kept


def test_a_few_files_are_not_worth_a_process(folder: Folder) -> None:
    settled = read_folder(folder.path)
    assert read_ahead(list(policy_files(folder.path)), Alone(settled.fleet, settled.defaults)) == {}


def test_a_file_that_is_no_yaml_at_all_is_named_by_the_careful_reader() -> None:
    with pytest.raises(SourceError):
        read_yaml("a: [1\n")
