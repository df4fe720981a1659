"""The file that says with which keys the load test asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.loadtest.keys import read_keys
from backend.traffic.read import TrafficError


def test_a_key_is_written_or_a_reference_and_may_name_its_model(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text('acme: fs-1\nglobex: {key: "${GLOBEX_KEY}", model: globex_v1}\n')
    found = read_keys(path, {"GLOBEX_KEY": "fs-2"})
    assert [(name, one.key, one.model) for name, one in found.items()] == [
        ("acme", "fs-1", None),
        ("globex", "fs-2", "globex_v1"),
    ]
    assert "fs-1" not in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("acme: {keyy: fs-secret}\n", "did you mean key?"),
        ("acme: 5\n", "acme"),
        ("acme: fs-1\nglobex: ${NOT_SET}\n", "keys.yaml:2:1: error: globex: refers to NOT_SET, which is not set"),
        ("- fs-secret\n", "has to be a mapping"),
        ("acme: 'fs-\u00e9secret'\n", "printable ASCII"),
    ],
)
def test_what_is_wrong_is_named_and_no_key_repeated(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(TrafficError) as caught:
        read_keys(path, {})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
