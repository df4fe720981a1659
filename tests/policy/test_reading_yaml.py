"""YAML files as ops write them, by accident or with intent."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.source import MAX_BYTES, Ambiguous, SourceError, decode, read_yaml


def value_of(text: str) -> object:
    root = read_yaml(text).root
    return None if root is None else root.plain()


def test_a_file_becomes_plain_values_that_know_their_place() -> None:
    document = read_yaml("a:\n  - x\n  - {b: 2, c: yes}\nd: 2027-01-01\n")
    assert document.root is not None
    assert document.root.plain() == {"a": ["x", {"b": 2, "c": True}], "d": dt.date(2027, 1, 1)}
    entry = document.root.child("a")
    assert entry is not None
    item = entry.node.child(1)
    assert item is not None
    assert (item.line, item.column) == (3, 5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_a_file_without_content_has_no_root(text: str) -> None:
    assert read_yaml(text).root is None


@pytest.mark.parametrize("text", ["010", "0x1f", "1:30", "12:30:45", "1e5", "2027-02-31", "2027-01-01 10:00:00"])
def test_scalars_that_readers_of_yaml_disagree_about_are_neither_text_nor_number(text: str) -> None:
    assert isinstance(value_of(f"a: {text}")["a"], Ambiguous)  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1_000", 1000),
        ("1_", 1),
        ("1__0", 10),
        ("0", 0),
        ("1.", 1.0),
        ("1._", 1.0),
        (".5_", 0.5),
        ("._", "._"),
        ("-._", "-._"),
    ],
)
def test_underscores_between_and_after_digits_make_no_difference(text: str, value: object) -> None:
    assert repr(value_of(f"a: {text}")) == repr({"a": value})


@pytest.mark.parametrize("text", ["010", "1:30", "no", "2027-01-01", "~", "1.0"])
def test_in_quotes_everything_is_text(text: str) -> None:
    assert value_of(f"a: '{text}'") == {"a": text}


def test_a_key_that_is_there_twice_is_found_with_both_lines() -> None:
    (problem,) = read_yaml("a: 1\nb: 2\na: 3\n").problems
    assert (problem.line, problem.message, problem.hint) == (3, "this key is there twice", "first in line 1")


@pytest.mark.parametrize("key", ["no", "1", "2027-01-01", "~"])
def test_a_key_that_yaml_does_not_take_for_text_is_found(key: str) -> None:
    (problem,) = read_yaml(f"x:\n  {key}: 1\n").problems
    assert (problem.line, problem.hint) == (2, "put it in quotes")


def test_a_key_without_a_value_is_found() -> None:
    (problem,) = read_yaml("a:\nb: 1\n").problems
    assert (problem.message, problem.at) == ("has no value", ("a",))


def test_aliases_stand_for_what_they_name() -> None:
    assert value_of("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_a_billion_laughs_end_early() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(SourceError, match="too many values"):
        read_yaml("\n".join(lines))


def test_a_chain_of_aliases_is_as_deep_as_what_it_stands_for() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(SourceError, match="nested too deeply"):
        read_yaml("\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_ends_early(opening: str) -> None:
    with pytest.raises(SourceError, match="nested too deeply"):
        read_yaml(opening * 50_000)


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: *nobody", "a: [1", "a: 'x", "a: b: c", "\ta: 1", "? [a]\n: b", "@"])
def test_broken_yaml_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_yaml(text)
    assert caught.value.line >= 1


def test_a_second_document_is_refused() -> None:
    with pytest.raises(SourceError, match="second YAML document"):
        read_yaml("a: 1\n---\nb: 2\n")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [x]", "!secret x", "!!int '1'"])
def test_tags_construct_nothing_and_are_found(tag: str) -> None:
    assert [p.message for p in read_yaml(f"a: {tag}").problems] == ["YAML tags are not used in policies"]


def test_text_that_is_not_utf_8_is_refused_with_its_place() -> None:
    with pytest.raises(SourceError, match="not UTF-8") as caught:
        decode(b"a: 1\nb: \xff\n")
    assert (caught.value.line, caught.value.column) == (2, 4)


def test_a_control_character_is_refused_with_its_place() -> None:
    with pytest.raises(SourceError, match="control character") as caught:
        decode(b"a: 1\nb: x\x00y\n")
    assert (caught.value.line, caught.value.column) == (2, 5)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(SourceError, match="larger than 1 MiB"):
        decode(b"#" * (MAX_BYTES + 1))


@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"#\n ,?0.", max_size=80))
@settings(max_examples=200)
def test_any_text_is_read_or_refused_with_our_own_error(text: str) -> None:
    try:
        document = read_yaml(decode(text.encode("utf-8", "replace")))
    except SourceError:
        return
    if document.root is not None:
        document.root.plain()
