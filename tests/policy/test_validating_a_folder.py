"""What ops are told about a folder of policies: every mistake, its place, and what to do."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gateway.errors import PolicyError
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.policy_set import PolicySet, policy_set_from_document
from gateway.policy.read_ahead import read_ahead
from gateway.policy.validate import read_folder
from tests.policy.scenery import FLEET, Folder, customer, digest

EXAMPLES = Path(__file__).parents[2] / "policies"


def faults(path: Path) -> list[Diagnostic]:
    with pytest.raises(PolicyError) as caught:
        read_folder(path)
    return [d for d in caught.value.diagnostics if isinstance(d, Diagnostic) and d.severity == "error"]


def the_fault(path: Path) -> Diagnostic:
    found = faults(path)
    assert len(found) == 1, [str(d) for d in found]
    return found[0]


def test_the_examples_hold_together_without_a_warning() -> None:
    found = read_folder(EXAMPLES)
    assert found.warnings == ()
    assert [c.customer for c in found.customers] == ["acme", "globex"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda p: p.name)
def test_each_example_names_the_schema_for_editors(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == EXAMPLES / "schema.json"


def test_a_version_that_was_stored_is_the_one_that_was_written() -> None:
    found = read_folder(EXAMPLES)
    again = policy_set_from_document(found.document)
    assert again.document == found.document
    assert again.customers == found.customers
    assert again.fleet == found.fleet


def test_comments_and_layout_do_not_make_another_version(folder: Folder) -> None:
    before = read_folder(folder.path).digest
    folder.write("customers/acme.yaml", "# hello\n\n" + customer("acme"))
    folder.write("fleet.yaml", FLEET.replace('{url: "http://10.0.0.11:8000"}', "\n        url: http://10.0.0.11:8000"))
    assert read_folder(folder.path).digest == before


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_known_one(folder: Folder) -> None:
    folder.customer("acme", "ttft_buget: 2s\n")
    found = the_fault(folder.path)
    assert str(found) == (
        f"{folder.path}/customers/acme.yaml:4:1: error: ttft_buget: unknown key (did you mean ttft_budget?)"
    )


@pytest.mark.parametrize(
    ("extra", "line", "words"),
    [
        ("fallback:\n  - provider: hosted\n    sytem_prompt: x\n", 6, "did you mean system_prompt?"),
        ("limits: {request_per_minute: 1}\n", 4, "did you mean requests_per_minute?"),
        ("fallback: [{base: {x: 1}}]\n", 4, "unknown key"),
        (
            "fallback: [{provider: hosted, static: x}]\n",
            4,
            "unknown key (this is a provider step already: make static a step of its own)",
        ),
        (
            'fallback:\n  - static: "x"\n    drop: [logprobs]\n',
            6,
            "fallback[0].drop: unknown key (only a provider step takes it, and this is a static step)",
        ),
        (
            "fallback:\n  - base: {}\n    even_for_tools: true\n",
            6,
            "only a static step takes it, and this is a base step",
        ),
        ('fallback:\n  - static: "x"\n    even_for_tool: true\n', 6, "did you mean even_for_tools?"),
        ("fallback: [{povider: hosted}]\n", 4, "did you mean provider?"),
        ("fallback: [{provider: hostd}]\n", 4, "did you mean hosted?"),
        ("fleet: man\n", 4, "did you mean main?"),
        ("priority: hihg\n", 4, "did you mean high?"),
        ("ttft_budget: 2\n", 4, "250ms, 2s or 10m"),
        ("limits: {concurrency: 0}\n", 4, "at least 1"),
        ("limits: {concurrency: 010}\n", 4, "octal"),
        ("limits: {concurrency: 1.0}\n", 4, "whole number"),
        ("limits: {concurrency: true}\n", 4, "a boolean"),
        ("hosted: {allowed: 'no'}\n", 4, "true or false"),
        ("hosted: {usd_per_day: .nan}\n", 4, "finite"),
        ("fallback: [{static: no}]\n", 4, "put it in quotes"),
        ("fallback: [{static: 1:30}]\n", 4, "base-60"),
        ("fallback: [{base: }]\n", 4, "write base: {}"),
        ("fallback:\n", 4, "has no value"),
        ("fallback: [{provider: hosted, drop: [messages]}]\n", 4, "cannot be dropped"),
        ("aliases: {acme: acme_v2}\n", 4, "did you mean acme_v1?"),
        ("aliases: {acme_v1: acme_v1}\n", 4, "the name of an adapter"),
        ("aliases: {base: acme_v1}\n", 4, "the name of a base model"),
        ("aliases: {acme: {acme_v1: 0}}\n", 4, "all weights are 0"),
        ("customer: other\n", 4, "there twice (first in line 1)"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_place_and_says_what_to_do(folder: Folder, extra: str, line: int, words: str) -> None:
    folder.customer("acme", extra)
    found = the_fault(folder.path)
    assert words in str(found)
    assert found.line == line


def test_every_mistake_of_every_file_is_told_at_once(folder: Folder) -> None:
    folder.customer("acme", "x: 1\ny: 2\n")
    folder.customer("globex", "z: 3\n")
    folder.write("defaults.yaml", "defaults: {deadline: 1}\n")
    assert [d.key for d in faults(folder.path)] == ["x", "y", "z", "defaults.deadline"]


@pytest.mark.parametrize("secret", ["sk-very-secret", "$sk-very-secret", "${A}sk-very-secret", "${sk-very-secret}"])
@pytest.mark.parametrize("where", ["box", "provider"])
def test_a_literal_key_is_refused_and_never_repeated(folder: Folder, secret: str, where: str) -> None:
    reference = "${BOX_KEY}" if where == "box" else "${OPENAI_API_KEY}"
    folder.write("fleet.yaml", FLEET.replace(f'"{reference}"', reference).replace(reference, f'"{secret}"'))
    found = the_fault(folder.path)
    assert "a literal key is refused" in found.message
    assert "${NAME}" in found.message
    assert "very-secret" not in str(found)


def test_a_customers_key_in_the_clear_is_refused_and_never_repeated(folder: Folder) -> None:
    folder.write("customers/acme.yaml", "customer: acme\napi_keys: [fs-very-secret]\nadapters: [a]\n")
    found = the_fault(folder.path)
    assert "sha256sum" in found.message
    assert "very-secret" not in str(found)


@pytest.mark.parametrize(
    "url",
    ["ftp://a", "10.0.0.1:8000", "unix:/x", "http://", "http://u:very-secret@a", "http://a?k=very-secret", "http://a#x",
     "http://a:99999", "http://a b", "http://[::1"],
)  # fmt: skip
def test_a_url_is_http_or_https_and_holds_no_secret(folder: Folder, url: str) -> None:
    folder.write("fleet.yaml", FLEET.replace("http://10.0.0.11:8000", url))
    found = the_fault(folder.path)
    assert found.key == "fleets.main.boxes.box-a.url"
    assert "very-secret" not in str(found)


@pytest.mark.parametrize("name", ["box a", "böx", "-x", "a/b", '"a\\nb"', '"a\\n"'])
def test_the_name_of_a_box_fits_a_header(folder: Folder, name: str) -> None:
    folder.write("fleet.yaml", FLEET.replace("box-a:", f"{name}:"))
    assert "not a usable name" in the_fault(folder.path).message


@pytest.mark.parametrize("name", ["../x", "/x", "a..b", '"a b"', "ä", '""'])
def test_the_name_of_an_adapter_leads_nowhere_else(folder: Folder, name: str) -> None:
    folder.write("customers/acme.yaml", f'customer: acme\napi_keys: ["{digest("k")}"]\nadapters: [{name}]\n')
    assert "not a usable model name" in the_fault(folder.path).message


def test_an_adapter_that_is_called_like_the_base_model_is_refused(folder: Folder) -> None:
    folder.write("customers/acme.yaml", f'customer: acme\napi_keys: ["{digest("k")}"]\nadapters: [base]\n')
    assert "name of a base model" in the_fault(folder.path).message


def test_two_customers_in_two_files_may_not_share_name_adapter_or_key(folder: Folder) -> None:
    folder.write("customers/zeta.yaml", customer("acme"))
    found = faults(folder.path)
    assert sorted(d.key for d in found) == ["adapters[0]", "api_keys[0]", "customer"]
    assert all("zeta.yaml" in d.file and "acme.yaml:" in d.hint for d in found)


def test_a_box_has_one_name_over_all_fleets(folder: Folder) -> None:
    second = '  second:\n    base_model: b2\n    boxes:\n      box-a: {url: "http://10.0.0.13:8000"}\nproviders:\n'
    folder.write("fleet.yaml", FLEET.replace("providers:\n", second))
    assert {d.message for d in faults(folder.path)} == {
        "this box's name is taken",
        "is missing, and there is more than one",
    }


def test_a_cpu_pool_smaller_than_the_slots_is_refused_as_vllm_would(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET.replace(':8000"}', ':8000", max_loras: 8, max_cpu_loras: 4}'))
    assert "less than max_loras" in the_fault(folder.path).message


def test_gateways_that_are_to_load_adapters_from_nowhere_are_warned_of(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET.replace("    boxes:\n", "    sync: {watch: true}\n    boxes:\n", 1))
    assert "where adapters lie" in " ".join(found.message for found in read_folder(folder.path).warnings)


@pytest.mark.parametrize(
    ("remove", "words"),
    [
        ("fleet.yaml", "fleet.yaml: error: is missing (create it"),
        ("customers/acme.yaml", "there is no customer (create"),
        ("", "does not exist (create it with fleet.yaml and customers/NAME.yaml in it)"),
    ],
)
def test_a_folder_without_policies_says_what_to_create(folder: Folder, remove: str, words: str) -> None:
    if remove:
        (folder.path / remove).unlink()
    assert words in str(the_fault(folder.path if remove else folder.path / "absent"))


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ("- a\n", "is not a mapping"), ("x", "is not a mapping")]
)
def test_a_file_without_keys_is_refused(folder: Folder, text: str, words: str) -> None:
    folder.write("customers/acme.yaml", text)
    assert words in the_fault(folder.path).message


def test_a_broken_file_is_refused_with_its_place(folder: Folder) -> None:
    folder.write("customers/acme.yaml", "customer: acme\napi_keys: [\n")
    found = the_fault(folder.path)
    assert found.message.startswith("is not YAML")
    assert found.line == 3


def test_a_file_that_would_be_passed_over_in_silence_is_named(folder: Folder) -> None:
    folder.write("customers/globex.yml", customer("globex"))
    assert "rename it to .yaml" in str(the_fault(folder.path))


@pytest.mark.parametrize(
    ("path", "told_of", "hint"),
    [
        ("customers/eu/globex.yaml", "customers/eu/globex.yaml", "move it to customers/globex.yaml"),
        ("customers/a/b/globex.yml", "customers/a/b/globex.yml", "move it to customers/globex.yaml"),
        ("customer/globex.yaml", "customer", "did you mean customers/?"),
        ("Customers/globex.yaml", "Customers", "did you mean customers/?"),
        ("default.yaml", "default.yaml", "did you mean defaults.yaml?"),
        ("globex.yaml", "globex.yaml", "customers are in customers/"),
    ],
)  # fmt: skip
def test_what_lies_where_nobody_reads_is_warned_of(folder: Folder, path: str, told_of: str, hint: str) -> None:
    (folder.path / path).parent.mkdir(parents=True, exist_ok=True)
    folder.write(path, customer("globex"))
    assert warnings(read_folder(folder.path)) == f"{folder.path}/{told_of}: warning: is not read ({hint})"


def test_folders_that_are_no_policies_are_passed_over(folder: Folder) -> None:
    for name in ("docs", ".git", "customers/.old", "customers/notes"):
        (folder.path / name).mkdir()
        folder.write(f"{name}/README.md", "x")
    folder.write("customers/.old/x.yaml", "x")
    assert read_folder(folder.path).warnings == ()


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "ahead"])
def test_a_key_that_is_over_is_warned_of(folder: Folder, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str, expires: dt.date) -> str:
        key = f'{{sha256: "{digest(name)}", expires: {expires}}}'
        return f"customer: {name}\napi_keys:\n  - {key}\nadapters: [{name}_v1]\n"

    over, today = dt.date(2020, 1, 1), dt.datetime.now(dt.UTC).date()
    folder.write("customers/acme.yaml", of("acme", over))
    folder.write("customers/globex.yaml", of("globex", today + dt.timedelta(1)))
    token = f'{{name: ci, sha256: "{digest("t")}", scope: read, expires: {over}}}'
    folder.write("fleet.yaml", FLEET + f"admin_tokens: [{token}]\n")
    monkeypatch.setattr("gateway.policy.read_ahead.WORTH_IT", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.path.parent / "cache"))
    for _ in range(2):
        found = read_folder(folder.path, ahead=read_ahead) if ahead else read_folder(folder.path)
        assert [(Path(d.file).name, d.line, d.key, d.message) for d in found.warnings] == [
            ("acme.yaml", 3, "api_keys[0].expires", "is over since 2020-01-01: nobody can ask with this key"),
            ("fleet.yaml", 11, "admin_tokens[0].expires", "is over since 2020-01-01: this token opens nothing"),
        ]


def test_what_editors_leave_behind_is_passed_over(folder: Folder) -> None:
    folder.write("customers/.acme.yaml.swp", "\x00")
    folder.write("customers/acme.yaml~", "x")
    assert len(read_folder(folder.path).customers) == 1


def test_defaults_may_be_left_out_or_hold_nothing(folder: Folder) -> None:
    before = read_folder(folder.path).digest
    folder.write("defaults.yaml", "# nothing yet\n")
    assert read_folder(folder.path).digest == before


def warnings(found: PolicySet) -> str:
    return "\n".join(map(str, found.warnings))


def test_provider_steps_of_a_customer_without_hosted_are_warned_about(folder: Folder) -> None:
    folder.customer("acme", "hosted: {allowed: false}\n")
    text = warnings(read_folder(folder.path))
    assert "acme.yaml:4:1: warning: hosted: hosted.allowed is false: 1 provider step" in text
    assert "nothing answers when the boxes cannot" in text


def test_allowing_hosted_by_leaving_it_out_is_warned_about(folder: Folder) -> None:
    folder.write("defaults.yaml", "defaults: {hosted: {allowed: false}}\n")
    folder.customer("acme", "hosted: {usd_per_day: 5}\n")
    assert "hosted providers are allowed here" in warnings(read_folder(folder.path))


def test_a_pool_that_does_not_hold_every_adapter_is_warned_about(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET.replace(':8000"}', ':8000", max_loras: 1, max_cpu_loras: 2}'))
    folder.customer("globex")
    assert "max_cpu_loras" not in warnings(read_folder(folder.path))
    folder.customer("initech")
    assert "is less than the 3 adapters that this fleet's policies name" in warnings(read_folder(folder.path))


@pytest.mark.parametrize(
    ("defaults", "acme", "told"),
    [
        (
            "{}",
            "ttft_budget: 20s\ndeadline: 20s\n",
            "FOLDER/customers/acme.yaml:4:1: warning: ttft_budget: ttft_budget is 20s, "
            "not shorter than the deadline of 20s (FOLDER/customers/acme.yaml:5:1)",
        ),
        (
            "{ttft_budget: 20s}",
            "deadline: 20s\n",
            "FOLDER/customers/acme.yaml:4:1: warning: deadline: ttft_budget is 20s (FOLDER/defaults.yaml:1:12), "
            "not shorter than the deadline of 20s",
        ),
        (
            "{}",
            "deadline: 1s\n",
            "FOLDER/customers/acme.yaml:4:1: warning: deadline: ttft_budget is 2s (built in), "
            "not shorter than the deadline of 1s",
        ),
        (
            "{plain_budget: 90s}",
            "",
            "FOLDER/defaults.yaml:1:12: warning: defaults.plain_budget: plain_budget is 90s, "
            "not shorter than the deadline of 1m (built in)",
        ),
    ],
)
def test_a_budget_as_long_as_the_deadline_is_warned_about_with_where_both_come_from(
    folder: Folder, defaults: str, acme: str, told: str
) -> None:
    folder.write("defaults.yaml", f"defaults: {defaults}\n")
    folder.customer("acme", acme)
    folder.customer("globex", "ttft_budget: 1ms\nplain_budget: 1ms\n")
    told = told.replace("FOLDER", str(folder.path)) + ": no time is left for the fallback"
    assert warnings(read_folder(folder.path)) == told


def test_what_is_warned_of_in_the_defaults_is_so_once(folder: Folder) -> None:
    folder.write("defaults.yaml", "defaults: {ttft_budget: 90s, hosted: {allowed: false}}\n")
    folder.customer("globex")
    found = read_folder(folder.path).warnings
    assert [d.key for d in found] == ["defaults.hosted"] * 2
    folder.write("defaults.yaml", "defaults: {ttft_budget: 90s, fallback: [{static: x}]}\n")
    assert [d.key for d in read_folder(folder.path).warnings] == ["defaults.ttft_budget"]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("TTFT-Budget: 2s\n", "did you mean ttft_budget?"),
        ("requests_per_minute: 5\n", "requests_per_minute belongs in limits: {requests_per_minute: …}"),
        ("usd_per_day: 5\n", "usd_per_day belongs in hosted: {usd_per_day: …}"),
        ("hosted: {priority: low}\n", "priority belongs at the top of the file"),
    ],
)
def test_a_key_in_the_wrong_place_or_case_is_told_where_it_belongs(folder: Folder, written: str, hint: str) -> None:
    folder.customer("acme", written)
    with pytest.raises(PolicyError) as caught:
        read_folder(folder.path)
    (found,) = caught.value.diagnostics
    assert isinstance(found, Diagnostic)
    assert (found.message, found.hint) == ("unknown key", hint)
