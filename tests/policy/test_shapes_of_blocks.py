"""Blocks of YAML that differ in words only are made of their shape, and are what they are when they are read."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.quick_source import QuickReader, read_quickly

HEX = "0123456789abcdef" * 4
WORDS = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "acme",
            "acme_v1",
            "a-b",
            "c-",
            "c--",
            "w0000001",
            "w0000000",
            "sha256",
            "x" * 64,
            "x" * 65,
            "x" * 200,
            "yes",
            "no",
            "on",
            "off",
            "true",
            "false",
            "null",
            "yes-men",
            "nullify",
            "y",
            "n",
            "No",
            "A",
            "1e5",
            "0x1f",
            "12",
            "010",
            "1:30",
            "2027-01-01",
            "_",
            "-",
            "---",
            "<<",
            "~",
            "",
            "é",
            "a b",
            "a: b",
            "a:b",
            "#a",
            "a#",
            "'a'",
            '"a"',
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            HEX,
            HEX[::-1],
            "f" * 64,
            "f" * 63,
            "f" * 65,
            "F" * 64,
            f"sha256:{HEX}",
            "e" + HEX[1:],
        ]
    ),
    st.from_regex(r"[a-z][a-z0-9_-]{0,70}", fullmatch=True),
    st.text("an01-_: ,", max_size=4),
)
"""What may be a word for the shape of a block, or nearly."""
ORDINARY = st.sampled_from(["acme", "globex", "a-b", HEX])
HOLE = "¤"
SHAPES = st.one_of(
    st.sampled_from(
        ["k: ¤\n", "k: [¤]\n", "k: [¤, ¤]\n", "k: {¤: ¤}\n", "k: {¤: ¤, ¤: 1}\n", "k: {¤: {¤: ¤}}\n",
         'k: "¤"\n', 'k:\n  - "¤"\n  - "sha256:¤"\n', 'k: {¤: "¤", b: ¤, c: 2027-01-01}\n', "k: '¤'\n",
         "k: ¤ # ¤\n", "k: ¤ ¤\n", "k: a ¤\n", "k: ¤, ¤\n", "k: >\n  a ¤\n  ¤\n", "k: |\n  [¤]\n", "k: |\n ¤\n",
         "k:\n  ¤: ¤\n  ¤: ¤\n", "k:\n- ¤\n- ¤: ¤\n  ¤: 1\n", "k:\n  - ¤: ¤\n    b: ¤\n", "k: ¤\n  ¤\n",
         "k: ¤\n  ¤: ¤\n", "k: [¤,\n ¤]\n", "k: {¤:\n ¤}\n", "k: {¤, ¤: ¤}\n", "k: ! ¤\n", "k: &x ¤\n", "k: *¤\n",
         "k: !¤ a\n", "? ¤\n: ¤\n", "k:\n  ? ¤\n  : ¤\n", "k: [¤: ¤]\n", 'k: "a\\\n  ¤"\n', 'k: "\\x4 ¤"\n',
         'k: "\\"¤"\n', 'k: "\\x¤"\n', 'k: a"¤"\n', "k: ¤¤\n", "k:¤\n", "k: [ ¤ ]\n", "k: { ¤ : ¤ }\n", "k: ¤ #\n",
         "k: ¤   \n", "k: ¤", "k: ¤:\n", "k: ¤: 1\n", "k: - ¤\n", "- ¤\n", "¤: ¤\n", "k: %¤\n", "k: @¤\n", "k: [¤",
         "k: {a: ¤}}\n", "k: 1 # {¤: ¤}, [¤]\n", f"k: {{{'a' * 950} ¤: 1}}\n", f"k: {{'{'a' * 1015}', ¤: 1}}\n",
         f"k: {{{'a' * 990}[¤, ¤, ¤]: 1}}\n", f"k:\n  {'b' * 1000} ¤: 1\n"]
    ),
    st.lists(
        st.sampled_from(["k", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ", ", '"', "'", "#", "|", ">", "\\",
                         "sha256:", HOLE, HOLE, HOLE, ": "]),
        min_size=1,
        max_size=14,
    ).map(lambda parts: f"k: {''.join(parts)}\n"),
)  # fmt: skip


@given(st.lists(SHAPES, min_size=1, max_size=3), st.data())
def test_blocks_that_differ_in_words_are_what_each_is_when_it_is_read_by_itself(
    shapes: list[str], data: st.DataObject
) -> None:
    reader = QuickReader()
    for file in range(6):
        blocks = []
        for number, shape in enumerate(shapes):
            first, *others = shape.split(HOLE)
            words = (data.draw(ORDINARY if file < 2 else WORDS) for _ in others)
            block = first + "".join(word + other for word, other in zip(words, others, strict=True))
            blocks.append(block.replace("k:", f"{'kl'[number % 2]}{'' if number < 2 else file}:", 1))
        text = "".join(blocks)
        assert repr(reader.read(text)) == repr(read_quickly(text)), text


@pytest.mark.parametrize(
    "word",
    [
        "yes",
        "null",
        "12",
        "010",
        "2027-01-01",
        "x" * 65,
        "Acme",
        "acme.v1",
        "é",
        "1e5",
        "~",
        "<<",
        "a b",
        HEX,
        "x" * 1030,
    ],
)
@pytest.mark.parametrize(
    "shape", ["k: {}\n", "k: [{}]\n", "k: {{{}: own}}\n", 'k: ["{}"]\n', 'k:\n- "sha256:{}" # {}\n']
)
def test_a_block_of_a_known_shape_is_read_right_whatever_is_in_the_place_of_its_word(shape: str, word: str) -> None:
    reader = QuickReader()
    for one in ("acme", "globex", "initech", HEX, HEX[::-1], "0" + HEX[1:], word, word + "x", "umbrella"):
        text = shape.format(one, one)
        assert repr(reader.read(text)) == repr(read_quickly(text))


def test_a_key_that_two_words_come_to_is_there_twice() -> None:
    reader = QuickReader()
    texts = [f"k: {{{one}: 1, {other}: 2}}\n" for one, other in ("ab", "cd", "ef", "gg", "hi")]
    assert [reader.read(text) is None for text in texts] == [False, False, False, True, False]


def test_blocks_that_differ_in_words_only_are_not_parsed_each(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = QuickReader()
    text = (
        'name: {0}\nkeys:\n  - "sha256:{1}"  # of {0}\n  - {{sha256: "{1}", name: {0}}}\naliases: {{{0}: [{0}_v1]}}\n'
    )
    for one in ("a", "b", "c"):
        reader.read(text.format(one, one * 64))
    expected = read_quickly(text.format("acme", HEX))
    monkeypatch.setattr(yaml, "CSafeLoader", None)
    assert reader.read(text.format("acme", HEX)) == expected
