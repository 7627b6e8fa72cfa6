"""JSON and messages: the writer and the message reader against json_format.

Covers `json_text`, `json_scalars`, `message_reader`, `mask`, `well_known`, `names`, `splitter`, `writer` and
`scalar_text`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor as _F
from google.protobuf.descriptor_pool import DescriptorPool
from hypothesis import example, given, settings
from hypothesis import strategies as st

from footlights.gateway.decode.json_scalars import MemberError
from footlights.gateway.decode.json_text import parse_first
from footlights.gateway.decode.message_reader import LENIENT, STRICT
from footlights.gateway.decode.names import json_name, proto_name
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.encode.writer import WriteError, Writer
from footlights.gateway.errors import GatewayError
from tests.conformance.echo import message, service
from tests.gateway.messages import BODIES, messages

POOL = service().file.pool
WRITER = Writer(pools=[POOL])
FRACTION = re.compile(r"[0-9](?:\.[0-9]|e)")


def by_json_format(found: Any, *, proto_names: bool = False) -> Any:
    """What json_format prints, as a value."""
    text = json_format.MessageToJson(
        found, always_print_fields_with_no_presence=True, descriptor_pool=POOL, preserving_proto_field_name=proto_names
    )
    return json.loads(text)


def without_nulls(value: Any) -> Any:
    """json_format prints unset messages not at all, the reference prints null; inside Struct null is a value."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def as_float32(value: Any) -> Any:
    """Numbers as 32-bit floats, in which two shortest spellings of one number are the same."""
    if isinstance(value, dict):
        return {key: as_float32(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_float32(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3.4e38:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


@given(messages(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_writer_equals_json_format(found: Any, proto_names: bool) -> None:
    """
    The writer prints what json_format prints, and null for unset messages besides.
    """
    spell = proto_name if proto_names else json_name
    try:
        wanted = by_json_format(found, proto_names=proto_names)
    except json_format.SerializeToJsonError:
        with pytest.raises(WriteError):
            Writer(spell=spell, pools=[POOL]).write(found)
        return

    got = json.loads(Writer(spell=spell, pools=[POOL]).write(found))

    assert as_float32(without_nulls(got)) == as_float32(without_nulls(wanted))


@given(messages())
@settings(max_examples=300, deadline=None)
def test_reader_inverts_writer(found: Any) -> None:
    """
    What the writer prints the reader reads back.
    """
    try:
        text = WRITER.write(found)
    except WriteError:
        return
    got = message("Everything")()
    STRICT.read_text(text, got)
    if not found.HasField("any_value"):
        # Printed as null like every unset message, and null is a Value.
        got.ClearField("any_value")

    assert same(got, found)


def same(one: Any, other: Any) -> bool:
    """Equal messages, with NaN equal to itself; a bare Value cannot be told from null."""
    return bool(
        one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
        or str(one) == str(other)
    )


@given(BODIES)
@example({"thing": {"size": "3"}})
@example({"newName": "a", "renamed": "b"})
@example({"pickA": "a", "pickB": 1})
@settings(max_examples=1000, deadline=None)
def test_reader_against_json_format(body: Any) -> None:
    """
    What both readers take they read alike.

    json_format is laxer in places (it takes unpadded rubbish as bytes, one field in two spellings), so only the other
    direction is a claim: nothing that it refuses is taken, except what Go takes as well.
    """
    text = json.dumps(body)
    ours, theirs = message("Everything")(), message("Everything")()
    try:
        STRICT.read_text(text, ours)
    except MemberError:
        return
    try:
        json_format.Parse(text, theirs, descriptor_pool=POOL)
    except json_format.ParseError:
        # Go reads 3.4028235e38-sized floats, 1e2 in strings, and integers written as 3.0.
        assert FRACTION.search(text)
        return

    # json_format rounds integers that are written with an exponent; Go and we do not.
    assert same(ours, theirs) or FRACTION.search(text)


@given(BODIES)
@settings(max_examples=500, deadline=None)
def test_lenient_reader_takes_what_the_strict_one_takes(body: Any) -> None:
    """
    Ignoring unknown members changes nothing about a body that has none.
    """
    strict, lenient = message("Everything")(), message("Everything")()
    try:
        STRICT.read_text(json.dumps(body), strict)
    except MemberError:
        return
    LENIENT.read_text(json.dumps(body), lenient)

    assert same(strict, lenient)


@given(st.text(alphabet='{}[]":,0123456789.eE+-truefalsn \\u\n\ta', max_size=30))
@settings(max_examples=500, deadline=None)
def test_any_text(text: str) -> None:
    """
    Any text has a first value, or none, or is refused with 400; and json agrees on whether it does.
    """
    try:
        parsed = parse_first(text)
    except GatewayError:
        with pytest.raises(ValueError, match=r"char|surrogates"):
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        return
    if parsed is not None:
        try:
            LENIENT.read(parsed[0], message("Everything")())
        except (MemberError, GatewayError):
            return


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "ends in the middle"),
        ('{"a"', "ends in the middle"),
        ("x", '"x" is not expected here (line 1, column 1)'),
        ('{"a":1\n "b"}', "(line 2, column 2)"),
        ('{"a":1\n, \n }', "line 3, column 2"),
        ('{"a":[1, ]}', '"]" is not expected here (line 1, column 10)'),
        ("[1,,]", "(line 1, column 4)"),
        ('"a\nb"', "line 1"),
        ("[NaN]", 'write it as a string, "NaN"'),
        ("\ufeff{}", "\\ufeff"),
        ('"\\ud800"', "half of a surrogate pair (line 1, column 2)"),
        ('["\\\\ud800", "\\ude00\\ud83d"]', "\\ude00 is half of a surrogate pair"),
    ],
)
def test_syntax_errors(text: str, said: str) -> None:
    """
    Broken JSON is refused with what is wrong and where.
    """
    with pytest.raises(GatewayError) as caught:
        parse_first(text)

    assert said in caught.value.message
    assert caught.value.http_status == 400


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\\\ud800"', '{} "\\ud800"'])
def test_surrogate_pairs(text: str) -> None:
    """
    A whole pair, an escaped backslash before ``ud800``, and whatever follows the first value are no surrogate errors.
    """
    assert parse_first(text) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"nope":1}', "nope: is not a known member"),
        ('{"num32": "x"}', 'num32: must be an integer from -2147483648 to 2147483647 (got "x")'),
        ('{"num32": true}', "(got true)"),
        ('{"thing":{"kind":"BIG"}}', "thing.kind: must be one of KIND_UNSPECIFIED, KIND_SMALL"),
        ('{"tags":["a",1]}', "tags[1]: must be a string (got 1)"),
        ('{"things":[{"size":{}}]}', "things[0].size: must be an integer"),
        ('{"num32":1,"num32":2}', "num32: is given twice"),
        ('{"newName":"a","renamed":null}', "renamed: is given twice"),
        ('{"pickA":"a","pickB":1}', "pickB: cannot be given together with another of pick_a, pick_b"),
        ('{"labels":[]}', "labels: must be an object (got an array)"),
        ('{"byNum":{"x":"y"}}', "byNum.x: must be a key that is an integer"),
        ('{"byNum":{"1":"y","+1":"z"}}', "byNum.+1: is given twice"),
        ('{"labels":{"a":"b","a":"c"}}', "labels.a: is given twice"),
        ('{"structValue":{"a":1,"a":2}}', "structValue.a: is given twice"),
        ('{"at":"x"}', "at: must be an RFC 3339 time"),
        ('{"at":"0000-01-01T00:00:00Z"}', "at: must be an RFC 3339 time"),
        ('{"ttl":3}', "ttl: must be a number of seconds"),
        ('{"updateMask":"a_b"}', "updateMask: must hold lowerCamelCase paths"),
        ('{"any":{"value":1}}', '"@type"'),
        ('{"any":{"@type":"a","@type":"b"}}', "any.@type: is given twice"),
        ('{"any":{"@type":"x/nope.Nope"}}', "any.@type: must be a known type"),
        ('{"any":{"@type":"x/google.protobuf.Duration"}}', 'any: must have a member "value"'),
        ('{"any":{"@type":"x/gatewaytest.v1.Thing","name":"a","name":"b"}}', "any.name: is given twice"),
        ("[]", ": must be an object (got an array)"),
    ],
)
def test_mismatches(text: str, said: str) -> None:
    """
    A refusal has the path of the member, the value and what would do.
    """
    with pytest.raises(MemberError) as caught:
        STRICT.read_text(text, message("Everything")())

    assert said in f"{caught.value.field}: {caught.value.problem}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"num64":1e2}', {"num64": 100}),
        ('{"num64":"1e2"}', {"num64": 100}),
        ('{"num64":9007199254740993.0}', {"num64": 9007199254740993}),
        ('{"num64":"-9223372036854775808"}', {"num64": -(2**63)}),
        ('{"unum64":18446744073709551615}', {"unum64": 2**64 - 1}),
        ('{"num32":-0}', {}),
        ('{"num32":0e99999}', {}),
        ('{"doubleNum":"1e3"}', {"double_num": 1000.0}),
        ('{"floatNum":3.4028235e38}', {"float_num": 3.4028234663852886e38}),
        ('{"data":"-_8"}', {"data": b"\xfb\xff"}),
        ('{"data":"+/8="}', {"data": b"\xfb\xff"}),
        ('{"name":"a\\u0000b"}', {"name": "a\0b"}),
        ('{"name":null,"tags":null,"thing":null}', {}),
        ('{"pickA":null,"pickB":1}', {"pick_b": 1}),
        ('{"kind":1}', {"kind": 1}),
        ('{"kind":77}', {"kind": 77}),
        ('{"updateMask":" name,thing.createTime "}', None),
    ],
)
def test_odd_spellings(text: str, wanted: dict[str, Any] | None) -> None:
    """
    Spellings that protojson takes are taken, and mean what they mean there.
    """
    got = message("Everything")()
    STRICT.read_text(text, got)

    if wanted is None:
        assert list(got.update_mask.paths) == ["name", "thing.create_time"]
    else:
        assert got == message("Everything")(**wanted)


def test_negative_zero() -> None:
    """
    -0 keeps its sign in a double, whatever its spelling.
    """
    for spelling in ("-0", "-0.0", '"-0"', "-0e5"):
        got = message("Everything")()
        STRICT.read_text(f'{{"doubleNum":{spelling},"structValue":{{"a":-0}}}}', got)
        assert math.copysign(1, got.double_num) == -1
        assert math.copysign(1, got.struct_value.fields["a"].number_value) == -1


@pytest.mark.parametrize(
    "text",
    [
        '{"nope":1,"nope":2}',
        '{"nope":{"a":1,"a":' + "9" * 5000 + "}}",
        '{"nope":1e999999}',
        '{"kind":"NOPE","kinds":["NOPE"]}',
        '{"any":{"nope":1}}',
        '{"any":{"@type":"x/gatewaytest.v1.Thing","nope":1,"nope":2}}',
    ],
)
def test_lenient_reader_skips_the_unknown(text: str) -> None:
    """
    Where unknown members are ignored, nothing about them is looked at.
    """
    got = message("Everything")()
    LENIENT.read_text(text, got)

    got.ClearField("any")
    assert got == message("Everything")()
    with pytest.raises(MemberError):
        STRICT.read_text(text, message("Everything")())


def test_depth() -> None:
    """
    Nesting is bounded by what protobuf parses, and refused with 400 beyond it.
    """
    text = '{"nested":' * 99 + "{}" + "}" * 99
    got = message("Thing")()
    STRICT.read_text(text, got)
    with pytest.raises(GatewayError, match="levels"):
        STRICT.read_text(f'{{"nested":{text}}}', message("Thing")())

    assert message("Thing").FromString(got.SerializeToString()) == got
    with pytest.raises(GatewayError):
        parse_first("[" * 100_000)


@pytest.mark.parametrize("member", ["structValue", "anyValue"])
@pytest.mark.parametrize("pair", ['{"a":|}', "[|]"])
def test_struct_depth(member: str, pair: str) -> None:
    """
    A Struct as deep as the reader takes is one that protobuf parses.
    """
    opening, closing = pair.split("|")
    taken = 0
    for count in range(1, 60):
        text = f'{{"{member}":' + '{"x":' + opening * count + "1" + closing * count + "}}"
        got = message("Everything")()
        try:
            STRICT.read_text(text, got)
        except GatewayError:
            break
        assert message("Everything").FromString(got.SerializeToString()) == got
        taken = count

    assert 25 < taken < 59


@pytest.mark.parametrize("text", ["", " ", "{} x"])
def test_read_text_takes_one_value(text: str) -> None:
    """
    Text that must be one value is refused where it is none, or more.
    """
    with pytest.raises(MemberError):
        LENIENT.read_text(text, message("Everything")())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "-0"), (1.5, "1.5"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1e-6, "0.000001"),
     (1e-7, "1e-7"), (1.5e300, "1.5e+300"), (math.inf, '"Infinity"'), (math.nan, '"NaN"')],
)  # fmt: skip
def test_doubles(value: float, text: str) -> None:
    """
    Doubles are printed as ECMAScript prints them.
    """
    assert f'"doubleNum":{text},' in WRITER.write(message("Everything")(double_num=value))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from(["\n", " ", "\r\n\t"]), st.integers(1, 7), st.booleans())
@settings(max_examples=300, deadline=None)
def test_splitter(values: list[Any], between: str, size: int, ascii_only: bool) -> None:
    """
    Values come out of a byte stream one by one, however it is cut into pieces.
    """
    data = between.join(json.dumps(value, ensure_ascii=ascii_only) for value in values).encode("utf-8", "replace")
    splitter = Splitter(1000)
    got: list[bytes] = []
    for start in range(0, len(data), size):
        got += splitter.feed(data[start : start + size])
    got += splitter.finish()

    assert [json.loads(value) for value in got] == [json.loads(json.dumps(value)) for value in values]


def test_splitter_bound() -> None:
    """
    A value larger than the limit is refused before it is whole.
    """
    splitter = Splitter(10)
    with pytest.raises(GatewayError) as caught:
        list(splitter.feed(b'"' + b"x" * 20))

    assert caught.value.http_status == 413


def test_awkward_names() -> None:
    """
    Fields that are Python keywords, and JSON names with braces, quotes and backslashes, are printed as they are.
    """
    file = descriptor_pb2.FileDescriptorProto(name="awkward.proto", package="awkward", syntax="proto3")
    made = file.message_type.add(name="Awkward")
    made.oneof_decl.add(name="choice")
    names = {"class": "{x}", "from": "it's", "a": 'a"b', "b": "a\\b{}", "c": "%s", "d": "ü\n"}
    for number, (name, spelt) in enumerate(names.items(), 1):
        made.field.add(name=name, number=number, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL, json_name=spelt)
    made.field.add(name="import", number=20, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL, oneof_index=0)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName("awkward.Awkward"))()
    for name in (*names, "import"):
        setattr(found, name, "v{}'\"\\%s")

    printed = json.loads(Writer(pools=[pool]).write(found))

    assert printed == dict.fromkeys((*names.values(), "import"), "v{}'\"\\%s")
