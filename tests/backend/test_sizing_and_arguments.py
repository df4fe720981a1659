"""What of a command line is worked out: the pool in main memory, and how arguments are written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from backend.pool_size import pool_size, room_for_reloads
from backend.serve_plan import ServePlan, flags, grouped, resolved, unresolved
from backend.vllm_flags import release

counts = st.integers(0, 5000)
slots = st.integers(1, 512)
rooms = st.none() | counts
model_names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(counts, slots, rooms)
def test_a_pool_holds_every_adapter_its_reloads_and_every_slot(
    adapters: int, max_loras: int, wanted: int | None
) -> None:
    room = room_for_reloads(adapters, wanted)
    size = pool_size(adapters, max_loras=max_loras, room=room, given=None)
    assert size >= adapters + room
    assert size >= max_loras
    assert room >= (8 if wanted is None else wanted)


@given(counts, counts, slots, rooms)
def test_more_adapters_never_make_a_smaller_pool(fewer: int, more: int, max_loras: int, wanted: int | None) -> None:
    fewer, more = sorted((fewer, more))
    sizes = [
        pool_size(count, max_loras=max_loras, room=room_for_reloads(count, wanted), given=None)
        for count in (fewer, more)
    ]
    assert sizes == sorted(sizes)


@given(counts, slots, st.integers(1, 5000))
def test_a_pool_that_is_written_is_taken_as_it_is(adapters: int, max_loras: int, given_size: int) -> None:
    assert pool_size(adapters, max_loras=max_loras, room=0, given=given_size) == given_size


@given(st.lists(st.text(max_size=12) | st.from_regex(r"--?[a-z-]{1,9}(=\d)?", fullmatch=True)))
def test_grouping_arguments_loses_none_and_keeps_their_order(arguments: list[str]) -> None:
    assert [argument for group in grouped(arguments) for argument in group] == arguments


def as_vllm_reads(module: str) -> tuple[str, str]:
    """LoRAParserAction of vLLM's cli_args.py."""
    if "=" in module and "," not in module:
        name, _, path = module.partition("=")
        return name, path
    read = json.loads(module)
    return read["name"], read["path"]


@given(st.dictionaries(model_names, model_names.map("/{}".format), min_size=1))
def test_vllm_reads_each_adapter_s_name_and_path_as_they_are(adapters: dict[str, str]) -> None:
    plan = ServePlan("/m", "base", "127.0.0.1", 8000, adapters=adapters, max_loras=2, max_cpu_loras=64)
    (modules,) = [group[1:] for group in flags(plan, release("0.32")) if group[0] == "--lora-modules"]
    assert dict(map(as_vllm_reads, modules)) == adapters


def test_references_are_resolved_where_the_box_starts_and_what_is_missing_is_named() -> None:
    values = {"A": "${ONE}", "B": "plain", "C": "${TWO}"}
    assert unresolved(values, {"ONE": "1"}) == ["TWO"]
    assert resolved(values, {"ONE": "1", "TWO": "2"}) == {"A": "1", "B": "plain", "C": "2"}
