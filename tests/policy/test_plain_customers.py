"""A customer that is plain throughout is read quickly, and is what the model makes of it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy.models import ApiKeyEntry, CustomerFile
from gateway.policy.plain_customer import PlainCustomer, plain_from_json, plain_from_values, written
from gateway.policy.policy_set import dumped

HEX = "0123456789abcdef" * 4
DAY = dt.date(2027, 1, 1)
WORDS = st.sampled_from(
    ["acme", "a.b", "A-1_x", "-a", ".a", "..", "a..b", "/a", "a/b", "a b", "", " ", "é", "a\n", "a\"b", "a\\b",
     "x" * 100, "x" * 101, "a:b", "a./b", "a/", "x" * 256, "x" * 257, "\x7f", "\u2028", "１", "ａ", None, 5,
     True, 1.0, ["acme"], {"acme": 1}]
)  # fmt: skip
DIGESTS = st.sampled_from(
    [f"sha256:{HEX}", HEX, f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"sha256:{HEX}\n", f"sha256:{HEX}0", "sha256:",
     "", None,     f"sha256:{HEX[::-1]}", f" sha256:{HEX}"]
)  # fmt: skip
DAYS = st.sampled_from(
    [DAY, "2027-01-01", "2027-1-1", "20270101", "2027-02-30", "2027-01-01T00:00:00", "0001-01-01", "0000-01-01",
     "9999-12-31",     "+2027-01-01", "2027-01-01Z", "2027-W01-1", 1_800_000_000, None, "", dt.datetime(2027, 1, 1)]
)  # fmt: skip
KEYS = st.one_of(
    DIGESTS,
    st.fixed_dictionaries({"sha256": DIGESTS}, optional={"name": WORDS, "expires": DAYS}),
    st.fixed_dictionaries({"name": WORDS}),
    st.just({"sha256": f"sha256:{HEX}", "x": 1}),
)
VALUES = st.fixed_dictionaries(
    {"customer": WORDS, "api_keys": st.lists(KEYS, max_size=2), "adapters": st.lists(WORDS, max_size=2)},
    optional={
        "fleet": WORDS,
        "aliases": st.one_of(
            st.dictionaries(st.sampled_from(["a", "a.b", "", "b c"]), WORDS, max_size=2),
            st.just({"a": {"acme": 95, "b": 5}}),
            st.none(),
        ),
        "priority": st.just("high"),
        "x": st.just(1),
    },
)
PLAIN: dict[str, Any] = {
    "customer": "acme",
    "fleet": "main",
    "api_keys": [f"sha256:{HEX}", {"sha256": f"sha256:{HEX[::-1]}", "name": "ci", "expires": DAY}],
    "adapters": ["acme_v1"],
    "aliases": {"acme": "acme_v1"},
}


def is_the_same(plain: PlainCustomer, customer: CustomerFile) -> None:
    assert (plain.customer, plain.fleet, plain.adapters) == (customer.customer, customer.fleet, customer.adapters)
    assert list(plain.aliases.items()) == list(customer.aliases.items())
    assert plain.digests == customer.digests == [key.sha256 for key in customer.keys]
    for one, other in zip(plain.api_keys, customer.api_keys, strict=True):
        assert isinstance(one, str) == isinstance(other, str)
        if not isinstance(one, str):
            assert isinstance(other, ApiKeyEntry)
            assert (one.name, one.expires) == (other.name, other.expires)
            assert type(one.expires) is type(other.expires)
    assert not customer.model_fields_set & {"priority"}


@given(VALUES)
@example(PLAIN)
@example({**PLAIN, "aliases": {}, "api_keys": [], "adapters": []})
def test_what_is_read_as_plain_is_what_the_model_reads(values: dict[str, Any]) -> None:
    if (plain := plain_from_values(values)) is not None:
        customer = CustomerFile.model_validate(values)
        is_the_same(plain, customer)
        assert written(plain) == dumped(customer)
    raw = json.dumps(values, default=str).encode()
    if (plain := plain_from_json(raw)) is not None:
        is_the_same(plain, CustomerFile.model_validate_json(raw))


def test_the_prefix_of_a_digest_may_be_left_out() -> None:
    values = {**PLAIN, "api_keys": [HEX, {"sha256": HEX[::-1], "name": "ci", "expires": DAY}]}
    assert plain_from_values(values) == plain_from_values(PLAIN)


def test_what_is_usual_is_plain() -> None:
    plain = plain_from_values(PLAIN)
    assert plain is not None
    assert plain_from_json(written(plain)) == plain
    assert plain_from_json(dumped(CustomerFile.model_validate(PLAIN))) == plain


@pytest.mark.parametrize(
    "raw",
    [
        '{"customer":"a","customer":"b","api_keys":[],"adapters":[]}',
        '{"customer":"a","api_keys":[],"adapters":[],"aliases":{"x":"y","x":"z"}}',
        '{"customer":"a","api_keys":[],"adapters":["\\u0061"]}',
        f'{{"customer":"a","api_keys":[{{"sha256":"sha256:{HEX}","sha256":"sha256:{HEX[::-1]}"}}],"adapters":[]}}',
        ' {"customer" : "a", "adapters" : [ ] , "api_keys" : [ ] } ',
    ],
)
def test_json_that_no_release_writes_is_read_as_the_model_reads_it(raw: str) -> None:
    plain = plain_from_json(raw.encode())
    assert plain is not None
    is_the_same(plain, CustomerFile.model_validate_json(raw))
