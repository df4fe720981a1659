"""The table of vLLM's flags: what each release takes, and what became of flags that are gone."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.flag_survey import survey
from backend.vllm_flags import REPLACED, Flag, known_versions, read_table, release, write_table

NEWEST = release("0.32")
VERSIONS = ("0.6.3", "0.20", "0.21", "0.32")

flag_names = st.from_regex(r"--[a-z]{1,8}(-[a-z]{1,8}){0,2}", fullmatch=True)
flags = st.builds(
    Flag,
    flag_names,
    st.sampled_from(["value", "optional", "switch", "toggle"]),
    st.lists(st.from_regex(r"-[a-z]{1,3}", fullmatch=True), max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(VERSIONS), min_size=1, unique=True).map(
        lambda some: tuple(v for v in VERSIONS if v in some)
    ),
)


@given(st.lists(flags))
def test_a_table_is_read_as_it_was_written(some: list[Flag]) -> None:
    assert read_table(write_table(VERSIONS, some)) == (VERSIONS, tuple(some))


def test_the_releases_that_people_run_are_known() -> None:
    assert {"0.6.3", *(f"0.{minor}" for minor in range(20, 33))} <= set(known_versions())


@pytest.mark.parametrize(
    "gone",
    [
        "--swap-space",
        "--num-scheduler-steps",
        "--use-v2-block-manager",
        "--disable-log-requests",
        "--guided-decoding-backend",
        "--lora-extra-vocab-size",
        "--long-lora-scaling-factors",
    ],
)
def test_flags_that_0_6_3_had_and_0_32_has_not_have_an_answer(gone: str) -> None:
    assert release("0.6.3").find(gone) is not None
    assert NEWEST.find(gone) is None
    assert gone in REPLACED


def test_a_replacement_is_one_that_the_newest_release_takes() -> None:
    for gone, instead in REPLACED.items():
        assert NEWEST.find(gone) is None, gone
        for named in re.findall(r"write (--[a-z-]+)", instead):
            assert NEWEST.find(named) is not None, f"{gone}: {named}"


@pytest.mark.parametrize(
    ("asked", "like", "known"),
    [
        ("0.32", "0.32", True),
        ("0.32.1+cu130", "0.32", True),
        ("v0.6.3.post1", "0.6.3", True),
        ("0.33.0", "0.32", False),
        ("0.11.2", "0.6.3", False),
        ("0.5", "0.6.3", False),
    ],
)
def test_a_release_that_is_not_in_the_table_is_taken_for_the_nearest_older_one(
    asked: str, like: str, known: bool
) -> None:
    found = release(asked)
    assert (found.like, found.known) == (like, known)


@pytest.mark.parametrize(
    "written", ["--max-loras", "--max_loras", "--max-loras=8", "--no-enable-lora", "-tp", "-cc.mode=none", "-O3"]
)
def test_a_flag_is_found_however_vllm_lets_it_be_written(written: str) -> None:
    assert NEWEST.find(written) is not None


def test_a_release_is_read_off_its_source(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "entrypoints" / "openai").mkdir(parents=True)
    (tmp_path / "engine" / "arg_utils.py").write_text(
        textwrap.dedent("""
        class EngineArgs:
            max_loras: int = 1
            enforce_eager: bool = False
            hf_token: bool | str | None = None
            def add_cli_args(parser):
                group.add_argument("--max-loras", **kwargs["max_loras"])
                group.add_argument("--enforce-eager", **{**kwargs["enforce_eager"], "default": None})
                group.add_argument("--hf-token", **kwargs["hf_token"])
                group.add_argument("--tensor-parallel-size", "-tp", **kwargs["tensor_parallel_size"])
                group.add_argument("--disable-log-stats", action="store_true")
                group.add_argument(f"--{name}")
        """)
    )
    (tmp_path / "entrypoints" / "openai" / "cli_args.py").write_text(
        "class FrontendArgs:\n    api_key: list[str] | None = None\n    enable_auto_tool_choice: bool = False\n"
    )
    assert survey(tmp_path) == {
        "--max-loras": ("value", ()),
        "--enforce-eager": ("toggle", ()),
        "--hf-token": ("optional", ()),
        "--tensor-parallel-size": ("value", ("-tp",)),
        "--disable-log-stats": ("switch", ()),
        "--api-key": ("value", ()),
        "--enable-auto-tool-choice": ("toggle", ()),
    }
