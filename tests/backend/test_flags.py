"""The table of vLLM's flags: what each release takes, and what became of flags that are gone."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.flag_survey import survey, values, with_surveyed
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
    st.dictionaries(st.sampled_from(VERSIONS), st.sampled_from(["int", "size", "auto,fp8", "fcfs"])).map(
        lambda some: tuple((v, some[v]) for v in VERSIONS if v in some)
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


def write_source(tmp_path: Path) -> None:
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


def test_a_release_is_read_off_its_source(tmp_path: Path) -> None:
    write_source(tmp_path)
    assert survey(tmp_path) == {
        "--max-loras": ("value", ()),
        "--enforce-eager": ("toggle", ()),
        "--hf-token": ("optional", ()),
        "--tensor-parallel-size": ("value", ("-tp",)),
        "--disable-log-stats": ("switch", ()),
        "--api-key": ("value", ()),
        "--enable-auto-tool-choice": ("toggle", ()),
    }


def test_what_flags_take_is_read_off_the_source_where_it_is_plain(tmp_path: Path) -> None:
    for folder in ("engine", "config", "tool_parsers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tool_parsers" / "__init__.py").write_text('_TOOL_PARSERS_TO_REGISTER = {"pyt": ("a", "B"), "j": ()}\n')
    (tmp_path / "config" / "cache.py").write_text(
        textwrap.dedent("""
        Small = Literal["int4"]
        CacheDType = Literal["auto", Small]
        class CacheConfig:
            block_size: int | None = None
            cache_dtype: Annotated[CacheDType, "of the cache"] = "auto"
            backend: Literal["a"] | str = "a"
            tokens: int = 1
            share: float = 0.5
            picked: Literal["x", "y"] = "x"
            lengths: list[int] = []
            longest: int = 0
        """)
    )
    (tmp_path / "engine" / "arg_utils.py").write_text(
        textwrap.dedent("""
        def rules():
            if name == "longest":
                pass
            human_readable_int_args = {"tokens"}
        def add_cli_args(parser):
            cache_kwargs = get_kwargs(CacheConfig)
            cache_kwargs["picked"]["choices"].remove("y")
            group.add_argument("--block-size", **cache_kwargs["block_size"])
            group.add_argument("--kv-cache-dtype", **{**cache_kwargs["cache_dtype"], "default": None})
            group.add_argument("--backend", **cache_kwargs["backend"])
            group.add_argument("--tokens", **cache_kwargs["tokens"])
            group.add_argument("--share", **cache_kwargs["share"])
            group.add_argument("--picked", **cache_kwargs["picked"])
            group.add_argument("--lengths", **cache_kwargs["lengths"])
            group.add_argument("--longest", **cache_kwargs["longest"])
            group.add_argument("--renamed", **cache_kwargs["share"], type=str)
            group.add_argument("--own", choices=["b", "a"])
            group.add_argument("--computed", choices=get_args(Small))
            group.add_argument("--tool-call-parser", type=str)
        """)
    )
    assert values(tmp_path) == {
        "--block-size": "int",
        "--kv-cache-dtype": "auto,int4",
        "--tokens": "size",
        "--share": "float",
        "--own": "a,b",
        "--tool-call-parser": "j,pyt",
    }


def test_a_survey_of_one_release_leaves_what_is_known_of_the_others(tmp_path: Path) -> None:
    write_source(tmp_path)
    known = [
        Flag("--max-loras", "switch", ("-old",), ("0.20", "0.21"), (("0.20", "int"),)),
        Flag("--gone", "value", (), ("0.21",)),
    ]
    versions, made = with_surveyed(("0.20", "0.21"), known, {"0.21": tmp_path})
    assert versions == ("0.20", "0.21")
    assert Flag("--max-loras", "value", (), ("0.20", "0.21"), (("0.20", "int"),)) in made
    assert "--gone" not in {flag.name for flag in made}
    assert {flag.versions for flag in made if flag.name != "--max-loras"} == {("0.21",)}
