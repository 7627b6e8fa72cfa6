"""Text to fields, as Go's strconv, time and base64 read it: `parameters`, `query`, `text_scalars` and `times`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.gateway import times
from footlights.gateway.decode.names import descriptor_of
from footlights.gateway.decode.parameters import set_parameters, set_path
from footlights.gateway.decode.query import parse_query
from footlights.gateway.decode.text_scalars import decode_base64, parse_bytes, parse_float, parse_int
from footlights.gateway.errors import GatewayError, Malformed
from tests.conformance.echo import message

FIELDS = [field.name for field in descriptor_of(message("Everything")()).fields]


def outcome(call: Callable[[], object]) -> int | None:
    """The HTTP status that a call refuses with, or None."""
    try:
        call()
    except GatewayError as refusal:
        return refusal.http_status
    return None


def wanted(call: Any, *arguments: Any, **named: Any) -> str:
    """What a parser wants instead of a text that it refuses."""
    with pytest.raises(Malformed) as caught:
        call(*arguments, **named)
    return caught.value.wanted


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("-1", -1), ("+7", 7), ("007", 7), ("2147483647", 2**31 - 1)])
def test_int(text: str, value: int) -> None:
    """
    Integers are decimal, with a sign and leading zeros if need be.
    """
    assert parse_int(text, 32, signed=True, base0=False) == value


@pytest.mark.parametrize("text", ["", " 1", "1 ", "0x10", "1_0", "1.0", "1e3", "٣", "--1", "+", "1\n"])
def test_no_int(text: str) -> None:
    """
    Nothing else is one.
    """
    assert "an integer" in wanted(parse_int, text, 32, signed=True, base0=False)


@pytest.mark.parametrize(
    ("text", "value"), [("0x10", 16), ("010", 8), ("0o10", 8), ("0b11", 3), ("1_0", 10), ("-0X1f", -31), ("0_7", 7)]
)
def test_base0(text: str, value: int) -> None:
    """
    In a path an integer may have a base prefix.
    """
    assert parse_int(text, 32, signed=True, base0=True) == value


@pytest.mark.parametrize("text", ["0x", "08", "1__0", "_1", "1_", "0x_", "0b2"])
def test_no_base0(text: str) -> None:
    """
    But it must be one.
    """
    assert "an integer" in wanted(parse_int, text, 32, signed=True, base0=True)


@pytest.mark.parametrize(("text", "bits", "signed"), [("2147483648", 32, True), ("-1" + "0" * 500, 64, True),
                                                     ("4294967296", 32, False)])  # fmt: skip
def test_int_range(text: str, bits: int, signed: bool) -> None:
    """
    What does not fit is out of range, however long it is.
    """
    assert "an integer from" in wanted(parse_int, text, bits, signed=signed, base0=False)


def test_unsigned_has_no_sign() -> None:
    """
    An unsigned integer has no sign.
    """
    assert wanted(parse_int, "-1", 32, signed=False, base0=False) == "an integer from 0 to 4294967295"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("inf", math.inf), ("-Infinity", -math.inf),
     ("0x1p-2", 0.25),
     ("1_0.5", 10.5), ("+1", 1.0)],
)  # fmt: skip
def test_float(text: str, value: float) -> None:
    """
    Floats are Go's, hexadecimal ones and underscores included.
    """
    assert parse_float(text, 64) == value


@pytest.mark.parametrize("text", ["", " 1", "1 ", "0x1", "1__0", "_1", "e3", "nanx", "1e", "٣", "+-1", "infi"])
def test_no_float(text: str) -> None:
    """
    Nothing else is one.
    """
    assert wanted(parse_float, text, 64) == "a number"


def test_nan() -> None:
    """
    NaN is a float in any case.
    """
    assert math.isnan(parse_float("nAn", 64))


@pytest.mark.parametrize(("text", "bits"), [("1e40", 32), ("1e400", 64), ("-1e400", 64)])
def test_float_range(text: str, bits: int) -> None:
    """
    An overflow is out of range.
    """
    assert wanted(parse_float, text, bits) == f"a number that fits {bits} bits"


@given(st.binary(max_size=30), st.booleans())
def test_base64_inverse(data: bytes, url: bool) -> None:
    """
    What is encoded with padding comes back, standard or URL-safe.
    """
    import base64

    encoded = (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()

    assert parse_bytes(encoded) == data
    assert decode_base64(encoded.rstrip("="), url=url, padded=False) == data


@pytest.mark.parametrize("text", ["YWJjZA", "-_8", "YW!j", "YWJj=", "Y===", "YQ=", "YQ==x", "+_8=", "é==="])
def test_no_base64(text: str) -> None:
    """
    What is no padded base64 of one alphabet is refused.
    """
    assert wanted(parse_bytes, text) == "base64 with its padding"


@pytest.mark.parametrize("text", ["Y\nQ=\r\n=", "YR=="])
def test_base64_leniences(text: str) -> None:
    """
    Line ends are skipped and trailing bits not checked, as Go does.
    """
    assert parse_bytes(text) == b"a"


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("1h2m", 3720 * 10**9), ("500ms", 5 * 10**8), (".5s", 5 * 10**8), ("-1.5h", -5400 * 10**9),
     ("1µs", 1000),
     ("+1ns", 1)],
)  # fmt: skip
def test_go_duration(text: str, nanos: int) -> None:
    """
    Durations in queries are Go's.
    """
    assert times.parse_go_duration(text) == nanos


@pytest.mark.parametrize(
    "text", ["", "3", "1d", "s", "1e3s", "9999999h", "+", "-", ".s", "1.5.5s", "--1s", "1h2", "1µ"]
)
def test_no_go_duration(text: str) -> None:
    """
    Nothing else is one, and none is longer than 64 bits of nanoseconds.
    """
    assert wanted(times.parse_go_duration, text) == times.A_GO_DURATION


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2020-1-1T00:00:00Z",
        "2020-13-01T00:00:00Z",
        "2020-02-30T00:00:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:00:60Z",
        "2020-01-01t00:00:00Z",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00:00Zx",
        "2020-01-01T00:00:00+25:00",
    ],
)
def test_no_time(text: str) -> None:
    """
    What is no RFC 3339 time is refused.
    """
    assert wanted(times.parse_time, text) == times.A_TIME


@given(st.integers(times.MIN_SECONDS, times.MAX_SECONDS), st.integers(0, 10**9 - 1))
def test_time_inverse(seconds: int, nanos: int) -> None:
    """
    A printed time is read back.
    """
    text = times.print_time(seconds, nanos)

    assert text is not None
    assert times.parse_json_time(text) == (seconds, nanos)
    assert times.parse_time(text) == (seconds, nanos)


@given(st.integers(-(10**11), 10**11), st.integers(0, 10**9 - 1))
def test_duration_inverse(seconds: int, nanos: int) -> None:
    """
    A printed duration is read back.
    """
    nanos = -nanos if seconds < 0 else nanos
    text = times.print_duration(seconds, nanos)

    assert text is not None
    assert times.parse_json_duration(text) == (seconds, nanos)


KEYS = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from(["thing.size", "thing.nested.kind", "labels[a]", "byNum[1]", "things[0].name", "wrapInt.value",
                     "a[b]",
                     "structValue.fields[a]", "name.", ".", "", "[", "]", "[]", "thing[", "pickC.name"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["1", "-1", "true", "KIND_SMALL", "{", "[]", "1h", "null", "a,b"]),
)


@given(st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=4), st.booleans())
def test_parameters_fuzzed(parameters: dict[str, list[str]], strict: bool) -> None:
    """
    For any parameters, the request is filled or refused with 400, and it can be serialised.
    """
    request = message("Everything")()

    assert outcome(lambda: set_parameters(request, parameters, skip=["parent"], strict=strict)) in (None, 400)
    request.SerializeToString()


@given(st.sampled_from([name for name in FIELDS if name not in ("thing", "pick_c", "any", "struct_value", "any_value",
                                                               "labels", "by_num", "things")]),
       st.text(st.characters(exclude_categories=["Cs"]), max_size=12))  # fmt: skip
def test_path_fuzzed(field: str, text: str) -> None:
    """
    For any text of a path variable, the field is set or refused with 400.
    """
    request = message("Everything")()

    assert outcome(lambda: set_path(request, field, text)) in (None, 400)
    request.SerializeToString()


@given(st.binary(max_size=40))
def test_query_fuzzed(raw: bytes) -> None:
    """
    For any bytes, a query parses or is refused with 400.
    """
    assert outcome(lambda: parse_query(raw)) in (None, 400)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"num32": ["abc"]}, ["num32", '"abc"', "integer"]),
        ({"colour": ["red"]}, ["colour", "num32"]),
        ({"kind": ["SMALL"]}, ["kind", '"SMALL"', "KIND_SMALL"]),
        ({"name": ["a", "b"]}, ["name", "2 times"]),
        ({"flag": ["on"]}, ["flag", '"on"', "true or false"]),
        ({"at": ["yesterday"]}, ["at", '"yesterday"', "RFC 3339"]),
        ({"parent": ["x"]}, ["parent", "already given"]),
        ({"thing.sise": ["1"]}, ["thing.sise", "size"]),
    ],
)
def test_strict_words(parameters: dict[str, list[str]], named: list[str]) -> None:
    """
    In strict mode a refusal names the parameter, the value and what would do.
    """
    with pytest.raises(GatewayError) as caught:
        set_parameters(message("Everything")(), parameters, skip=["parent"], strict=True)

    assert all(word in caught.value.message for word in named), caught.value.message
    assert caught.value.field == next(iter(parameters))
