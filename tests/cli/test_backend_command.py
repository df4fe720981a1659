"""`failsoft backend command BOX`: what starts a box, and what is refused before vLLM would refuse it, or would not."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from tests.backend.boxes import PolicyFolder


@pytest.fixture
def policies(tmp_path: Path) -> PolicyFolder:
    return PolicyFolder(tmp_path)


class Ask:
    """Runs the command in this process."""

    def __init__(self, policies: PolicyFolder, capsys: pytest.CaptureFixture[str]) -> None:
        self._policies = policies
        self._capsys = capsys

    def __call__(self, *options: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["backend", "command", "a", "--policies", str(self._policies.path), *options])
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    def facts(self, *options: str) -> dict[str, Any]:
        _, out, _ = self("--json", *options)
        found: dict[str, Any] = json.loads(out)
        return found

    def refused(self, *options: str) -> str:
        code, out, err = self(*options)
        assert (code, out) == (1, ""), f"not refused: {out}{err}"
        return err


@pytest.fixture
def ask(policies: PolicyFolder, capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(policies, capsys)


def after(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_says_what_fleet_yaml_and_the_customers_say(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(gpu_memory_utilization=0.9, max_model_len=8192, drain="45s")
    policies.customer("globex", "globex_v1")
    command = ask.facts()["command"]
    assert command[:3] == ["vllm", "serve", str(policies.model)]
    where = command.index("--lora-modules")
    assert command[where + 1 : where + 3] == [
        f"acme_v3={policies.adapters}/acme_v3",
        f"globex_v1={policies.adapters}/globex_v1",
    ]
    expected = {
        "--served-model-name": "base",
        "--host": "127.0.0.1",
        "--port": str(policies.port),
        "--max-loras": "2",
        "--max-cpu-loras": "64",
        "--max-lora-rank": "16",
        "--gpu-memory-utilization": "0.9",
        "--max-model-len": "8192",
        "--max-num-seqs": "32",
        "--max-num-queued-reqs": "128",
        "--tool-call-parser": "llama3_json",
        "--shutdown-timeout": "45",
    }
    assert {flag: after(command, flag) for flag in expected} == expected
    assert {"--enable-lora", "--enable-auto-tool-choice"} <= set(command)


def test_what_is_printed_for_people_is_the_same_command_to_a_shell(
    policies: PolicyFolder, ask: Ask, tmp_path: Path
) -> None:
    policies.box(api_key="${BOX_KEY}")
    policies.engine(env={"LABEL": "a 'quoted' $word"}, extra=["--hf-overrides", '{"rope_theta": 1e6}', "--seed=7"])
    facts = ask.facts()
    _, text, _ = ask()
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done; env\n')
    vllm.chmod(0o755)
    shell = subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": f"{tmp_path}:/bin:/usr/bin", "BOX_KEY": "sesame"},
        capture_output=True,
        text=True,
    )
    printed = shell.stdout.splitlines()
    assert printed[: len(facts["command"]) - 1] == facts["command"][1:]
    assert "VLLM_API_KEY=sesame" in printed
    assert "LABEL=a 'quoted' $word" in printed
    assert all(line.endswith(" \\") for line in text.splitlines()[:-1])


def test_a_key_is_a_reference_in_every_form_and_its_absence_stops_the_shell(policies: PolicyFolder, ask: Ask) -> None:
    policies.box(api_key="${BOX_KEY}")
    assert ask.facts()["env"]["VLLM_API_KEY"] == "${BOX_KEY}"
    _, text, _ = ask()
    assert 'VLLM_API_KEY="${BOX_KEY:?}"' in text
    shell = subprocess.run(["/bin/sh", "-c", text], env={"PATH": "/nowhere"}, capture_output=True, text=True)
    assert "BOX_KEY" in shell.stderr


def test_a_box_overrides_its_fleet_key_by_key(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(max_model_len=8192)
    policies.box(engine={"max_num_seqs": 16, "listen": "0.0.0.0:9000"})
    command = ask.facts()["command"]
    assert [after(command, flag) for flag in ("--max-model-len", "--max-num-seqs", "--host", "--port")] == [
        "8192",
        "16",
        "0.0.0.0",
        "9000",
    ]


def test_a_box_that_is_named_by_dns_listens_on_every_address(policies: PolicyFolder, ask: Ask) -> None:
    policies.box(url="http://vllm-0.boxes.svc:8000")
    command = ask.facts()["command"]
    assert (after(command, "--host"), after(command, "--port")) == ("0.0.0.0", "8000")


def test_the_pool_grows_with_the_adapters_that_policies_name(policies: PolicyFolder, ask: Ask) -> None:
    policies.customer("many", *(f"many_{number}" for number in range(99)))
    assert after(ask.facts()["command"], "--max-cpu-loras") == "150"
    policies.engine(reload_room=7)
    assert after(ask.facts()["command"], "--max-cpu-loras") == "107"


def test_a_pool_that_does_not_hold_all_adapters_is_refused_as_an_eviction_could_end_the_engine(
    policies: PolicyFolder, ask: Ask
) -> None:
    policies.customer("more", "more_v1", "more_v2")
    policies.box(max_cpu_loras=2)
    assert "max_cpu_loras is 2, too few for the 3 adapters" in ask.refused()
    policies.box(max_cpu_loras=4)
    code, _, err = ask()
    assert code == 0
    assert "holds 3 adapters and 1 reloads" in err


def test_the_pool_of_another_fleet_is_its_own(policies: PolicyFolder, ask: Ask) -> None:
    policies.box(max_cpu_loras=2)
    policies.customer("other", "other_v1", "other_v2")
    fleet = json.loads((policies.path / "fleet.yaml").read_text())
    fleet["fleets"]["second"] = {"base_model": "second", "boxes": {"b": {"url": "http://10.0.0.9:8000"}}}
    (policies.path / "fleet.yaml").write_text(json.dumps(fleet))
    for name, own in (("acme", "main"), ("other", "second")):
        path = policies.path / "customers" / f"{name}.yaml"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fleet": own}))
    modules = ask.facts()["command"]
    assert [part for part in modules if "_v" in part] == [f"acme_v3={policies.adapters}/acme_v3"]


def test_adapters_that_are_not_there_are_named_before_vllm_dies_of_them(policies: PolicyFolder, ask: Ask) -> None:
    (policies.adapters / "acme_v3" / "adapter_config.json").unlink()
    assert f"adapter acme_v3 is not in {policies.adapters}" in ask.refused()


def test_an_adapter_of_too_high_a_rank_is_refused(policies: PolicyFolder, ask: Ask) -> None:
    policies.customer("wide", "wide_v1", rank=64)
    assert "wide_v1 (rank 64) is of a higher rank than max_lora_rank (16)" in ask.refused()


def test_a_root_that_only_the_box_has_is_not_looked_into(policies: PolicyFolder, ask: Ask) -> None:
    policies.fleet(adapter_root="/only/on/the/box")
    assert "acme_v3=/only/on/the/box/acme_v3" in ask.facts()["command"]


def test_adapters_may_be_left_to_runtime_loading(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(register_adapters=False)
    facts = ask.facts()
    assert "--lora-modules" not in facts["command"]
    assert facts["env"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    policies.engine(runtime_loading=False)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in ask.facts()["env"]


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"extra": ["--swap-space", "4"]}, "--swap-space is gone: vLLM 0.6.3 was the last known here to have it"),
        ({"extra": ["--disable_log_requests"]}, "--enable-log-requests is given"),
        ({"extra": ["--guided-decoding-backend=outlines"]}, "--structured-outputs-config"),
        ({"extra": ["--max-lora"]}, "is not a flag of vLLM 0.32 (did you mean --max-loras?)"),
        (
            {"extra": ["--max-loras", "9"]},
            "--max-loras is not for engine.extra (it is written from max_loras of the box)",
        ),
        ({"extra": ["--no-enable-lora"]}, "--no-enable-lora is not for engine.extra"),
        ({"extra": ["--enable-auto-tool-choice"]}, "written from engine.tool_call_parser"),
        ({"extra": ["--gpu-memory-utilization", "1.5"]}, "written from engine.gpu_memory_utilization"),
        ({"extra": ["--block-size"]}, "--block-size needs a value"),
        ({"extra": ["--enforce-eager", "yes"]}, "--enforce-eager takes no value"),
        ({"extra": ["eager"]}, "begins with eager, which is no flag"),
        ({"extra": ["--headless"]}, "--headless starts no HTTP server"),
        ({"extra": ["--api-server-count", "2"]}, "loads adapters at run time only with one API server"),
        ({"extra": ["--max-num-batched-tokens", "16"]}, "is 16, less than max_num_seqs (32), which vLLM refuses"),
        ({"listen": "a100-a:8000"}, "engine.listen is no IP address"),
    ],
)
def test_what_vllm_would_refuse_is_refused_with_what_to_do(
    keys: dict[str, Any], complaint: str, policies: PolicyFolder, ask: Ask
) -> None:
    policies.engine(**keys)
    assert complaint in ask.refused()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"model_path": None}, "fleets.main has no model_path"),
        ({"adapter_root": None}, "fleets.main has no adapter_root"),
    ],
)
def test_a_fleet_that_says_too_little_for_a_box_is_refused(
    keys: dict[str, Any], complaint: str, policies: PolicyFolder, ask: Ask
) -> None:
    policies.fleet(**keys)
    assert complaint in ask.refused()


def test_an_https_box_needs_a_certificate_or_a_proxy(policies: PolicyFolder, ask: Ask) -> None:
    policies.box(url="https://box.example")
    assert "is https, and vLLM would serve http" in ask.refused()
    policies.engine(extra=["--ssl-certfile", "/tls/cert.pem", "--ssl-keyfile", "/tls/key.pem"])
    assert after(ask.facts()["command"], "--port") == "443"
    policies.engine(extra=[], listen="127.0.0.1:8000")
    assert after(ask.facts()["command"], "--host") == "127.0.0.1"


@pytest.mark.parametrize(
    ("extra", "runs"),
    [
        (["--data-parallel-size", "2"], "would be 2"),
        (["-dp=4", "--no-data-parallel-external-lb"], "would be 4"),
        (["--data-parallel-size", "8", "--data-parallel-hybrid-lb", "--data-parallel-size-local", "2"], "would be 2"),
        (["--data-parallel-size", "4", "--data-parallel-start-rank", "2", "-dpl", "2"], "would be 2"),
        (["--data-parallel-size", "4", "--api-server-count", "2"], "is 2"),
    ],
)
def test_several_api_servers_are_refused_also_where_vllm_makes_them_of_data_parallelism(
    policies: PolicyFolder, ask: Ask, extra: list[str], runs: str
) -> None:
    policies.engine(extra=extra)
    said = ask.refused()
    assert f"--api-server-count {runs}" in said
    assert "only with one API server" in said
    policies.engine(runtime_loading=False)
    assert ask()[0] == 0


@pytest.mark.parametrize(
    "extra",
    [
        ["--data-parallel-size", "2", "--api-server-count", "1"],
        ["--data-parallel-size", "2", "--data-parallel-external-lb", "--data-parallel-rank", "0"],
        ["--data-parallel-size", "2", "--data-parallel-rank", "0"],
        ["--data-parallel-size", "2", "--data-parallel-hybrid-lb", "--data-parallel-size-local", "1"],
        ["--data-parallel-size", "2", "--data-parallel-multi-port-external-lb"],
        ["--data-parallel-size", "2", "--enable-elastic-ep"],
        ["--data-parallel-size", "1"],
    ],
)
def test_data_parallelism_with_one_api_server_a_box_is_let_pass(
    policies: PolicyFolder, ask: Ask, extra: list[str]
) -> None:
    policies.engine(extra=extra)
    code, _, err = ask()
    assert (code, "--api-server-count" in err) == (0, False), err


@pytest.mark.parametrize(
    ("extra", "complaint", "hint"),
    [
        (["--kv-cache-dtype", "fp9"], "--kv-cache-dtype is 'fp9', which vLLM does not take", "did you mean fp8?"),
        (["--kv-cache-dtype=fp9"], "--kv-cache-dtype is 'fp9'", "did you mean fp8?"),
        (["--pipeline-parallel-size", "x"], "--pipeline-parallel-size is 'x', which is no number", "a whole number"),
        (["-pp", "1.5"], "--pipeline-parallel-size is '1.5'", "a whole number"),
        (["--max-num-batched-tokens", "8.5K"], "--max-num-batched-tokens is '8.5K'", "such as 8192 or 8k"),
        (["--cpu-offload-gb", "some"], "--cpu-offload-gb is 'some'", "a number"),
        (["--reasoning-parser", "quen3"], "--reasoning-parser is 'quen3'", "did you mean qwen3?"),
        (["--scheduling-policy", "unheard-of"], "--scheduling-policy is 'unheard-of'", "it takes fcfs, priority"),
    ],
)
def test_a_value_that_vllm_would_not_take_is_refused_with_the_nearest_that_it_does(
    policies: PolicyFolder, ask: Ask, extra: list[str], complaint: str, hint: str
) -> None:
    policies.engine(extra=extra)
    said = ask.refused()
    assert complaint in said
    assert hint in said


@pytest.mark.parametrize(
    "extra",
    [
        ["--kv-cache-dtype", "fp8"],
        ["--max-num-batched-tokens", "8k"],
        ["--max-num-batched-tokens", "8K"],
        ["--cpu-offload-gb", "1.5"],
        ["--seed", "-1"],
        ["--moe-backend", "of-tomorrow"],
    ],
)
def test_what_vllm_takes_or_may_take_is_let_pass(policies: PolicyFolder, ask: Ask, extra: list[str]) -> None:
    policies.engine(extra=extra)
    assert ask()[0] == 0


def test_a_mistyped_tool_parser_is_refused_with_the_one_that_was_meant(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(tool_call_parser="llama4_jsn")
    said = ask.refused()
    assert "engine.tool_call_parser is 'llama4_jsn', which vLLM does not take" in said
    assert "did you mean llama4_json?" in said


def test_a_parser_that_a_plugin_may_bring_is_only_warned_of(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(tool_call_parser="acme", extra=["--tool-parser-plugin", "/acme.py", "--reasoning-parser", "acme"])
    said = ask.refused()
    assert "error: --reasoning-parser is 'acme'" in said, "that plugin brings tool parsers"
    policies.engine(extra=["--tool-parser-plugin", "/acme.py"])
    assert ask()[0] == 0
    policies.engine(extra=["--reasoning-parser", "acme", "--reasoning-parser-plugin", "/acme.py"])
    assert "error: engine.tool_call_parser is 'acme'" in ask.refused()
    policies.engine(env={"VLLM_PLUGINS": "acme"})
    code, _, err = ask()
    assert code == 0
    assert "warning: engine.tool_call_parser is 'acme'" in err


def test_values_are_not_judged_by_a_release_whose_lists_are_not_known(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(tool_call_parser="of_its_own", extra=["--kv-cache-dtype", "fp9"])
    code, _, err = ask("--vllm-version", "0.25")
    assert (code, "fp9" in err, "of_its_own" in err) == (0, False, False), "these were not surveyed for their values"
    code, _, err = ask("--vllm-version", "0.99")
    assert code == 0
    assert "warning: --kv-cache-dtype is 'fp9'" in err, "it is taken for the newest that is known"


def test_a_release_gets_only_flags_that_it_has(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(extra=["--swap-space", "4"])
    old = ask.facts("--vllm-version", "0.6.3.post1")
    assert old["command"][-2:] == ["--swap-space", "4"]
    assert {"--shutdown-timeout", "--max-num-queued-reqs"} & set(old["command"]) == set()
    assert "--disable-log-requests" in old["command"], "it would log prompts"
    said = [one["about"] for one in old["objections"]]
    assert said == ["engine.max_queued_requests", "engine.drain"]


def test_a_rank_that_the_release_does_not_take_is_refused(policies: PolicyFolder, ask: Ask) -> None:
    policies.fleet(max_lora_rank=320)
    assert "vLLM 0.6.3 takes only 8, 16, 32, 64, 128, 256" in ask.refused("--vllm-version", "0.6.3")


def test_flags_of_an_unknown_release_are_only_warned_of(policies: PolicyFolder, ask: Ask) -> None:
    policies.engine(extra=["--brand-new-flag", "7"])
    code, out, err = ask("--vllm-version", "0.99")
    assert code == 0
    assert "--brand-new-flag 7" in out
    assert "is not among the releases whose flags are known here" in err


def test_a_box_without_a_tool_parser_is_warned_of(policies: PolicyFolder, ask: Ask) -> None:
    policies.fleet(engine={})
    code, _, err = ask()
    assert code == 0
    assert "vLLM answers requests with tools with a 400" in err


def test_a_mistyped_box_is_misuse_and_a_version_that_is_none_too(
    policies: PolicyFolder, capsys: pytest.CaptureFixture[str], ask: Ask
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backend", "command", "aa", "--policies", str(policies.path)])
    assert ended.value.code == 2
    assert "there is no box aa" in capsys.readouterr().err
    assert ask("--vllm-version", "newest")[0] == 2


def test_the_model_of_the_example_policies_is_started_by_one_line_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parent.parent.parent
    with pytest.raises(SystemExit) as ended:
        main(["backend", "command", "a100-b", "--policies", str(root / "policies")])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    words = shlex.split(out.replace("\\\n", " "))
    assert 'VLLM_API_KEY="${BOX_KEY:?}" \\\n' in out
    assert words[words.index("--max-cpu-loras") + 1] == "64"
    assert words[words.index("--max-num-queued-reqs") + 1] == "256"
