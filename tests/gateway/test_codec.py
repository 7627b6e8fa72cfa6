"""JSON and messages: writer and exact reader against json_format, the fast reader against the exact one."""

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

from footlights.gateway.decode.codec import fill
from footlights.gateway.decode.jsontext import first_value
from footlights.gateway.decode.names import json_name, proto_name
from footlights.gateway.decode.reader import BodyError, read, read_text
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.encode.writer import WriteError, Writer
from footlights.gateway.errors import Refusal
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
@settings(max_examples=300)
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
@settings(max_examples=300)
def test_reader_inverts_writer(found: Any) -> None:
    """
    What the writer prints the reader reads back, exactly, and so does the fast one where it takes it.
    """
    try:
        text = WRITER.write(found)
    except WriteError:
        return
    exact, fast = message("Everything")(), message("Everything")()
    read(text, exact, ignore_unknown=False)
    is_fast = fill(text, fast)
    if not found.HasField("any_value"):
        # Printed as null like every unset message, and null is a Value.
        exact.ClearField("any_value")
        fast.ClearField("any_value")

    assert same(exact, found)
    assert not is_fast or same(fast, found)


def same(one: Any, other: Any) -> bool:
    """Equal messages, with NaN equal to itself; a bare Value cannot be told from null."""
    return bool(
        one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
        or str(one) == str(other)
    )


@given(BODIES, st.booleans())
@example({"thing": {"size": "3"}}, False)
@example({"newName": "a", "renamed": "b"}, False)
@example({"pickA": "a", "pickB": 1}, False)
@settings(max_examples=1000)
def test_fast_reader_equals_exact_reader(body: Any, lax: bool) -> None:
    """
    Where the fast reader takes a body, the exact one takes it and reads the same.
    """
    text = json.dumps(body)
    fast, exact = message("Everything")(), message("Everything")()
    if not fill(text, fast):
        assert fast == message("Everything")()
        return
    read(text, exact, ignore_unknown=lax)

    assert same(fast, exact)


@given(BODIES)
@settings(max_examples=1000)
def test_reader_against_json_format(body: Any) -> None:
    """
    What both readers take they read alike.

    json_format is laxer in places (it takes unpadded rubbish as bytes, one field in two spellings), so only the other
    direction is a claim: nothing that it refuses is taken, but for what Go takes as well.
    """
    text = json.dumps(body)
    ours, theirs = message("Everything")(), message("Everything")()
    try:
        read(text, ours, ignore_unknown=False)
    except BodyError:
        return
    try:
        json_format.Parse(text, theirs, descriptor_pool=POOL)
    except json_format.ParseError:
        # Go reads 3.4028235e38-sized floats, 1e2 in strings, and integers written as 3.0.
        assert FRACTION.search(text)
        return

    # json_format rounds integers that are written with an exponent; Go and we do not.
    assert same(ours, theirs) or FRACTION.search(text)


@given(st.text(alphabet='{}[]":,0123456789.eE+-truefalsn \\u\n\ta', max_size=30))
@settings(max_examples=500)
def test_any_text(text: str) -> None:
    """
    Whatever text comes, it has a first value, or none, or is refused with 400; and json agrees on whether it does.
    """
    try:
        place = first_value(text)
    except Refusal:
        with pytest.raises(ValueError, match="char"):
            json.loads(text)
        return
    if place is not None:
        found = message("Everything")()
        try:
            read(text[slice(*place)], found, ignore_unknown=True)
        except (BodyError, Refusal):
            return


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "unexpected EOF"),
        ('{"a"', "unexpected EOF"),
        ('{"a', "unexpected EOF"),
        ("tru", "unexpected EOF"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{x", "invalid character 'x' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a":1\n, \n}', "invalid character '}' looking for beginning of object key string"),
        ('"a\nb"', "invalid character '\\n' in string literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ("\ufeff{}", "invalid character '\ufeff' looking for beginning of value"),
    ],
)
def test_syntax_errors(text: str, said: str) -> None:
    """
    Broken JSON is refused in the words of Go's encoding/json.
    """
    with pytest.raises(Refusal) as caught:
        first_value(text)

    if "\ufeff" not in text:
        assert caught.value.message == said


def test_place_of_a_syntax_error() -> None:
    """
    The place is that of the wrong character, with every version of Python.
    """
    with pytest.raises(Refusal) as caught:
        first_value('{"a":1\n, \n }')

    assert caught.value.plain.endswith("(line 3 column 2)")


@pytest.mark.parametrize(
    ("text", "reference", "plain"),
    [
        ('{"nope":1}', 'proto: (line 1:2): unknown field "nope"', "nope: there is no such member"),
        (
            '{\n "num32": "x"}',
            'proto: (line 2:11): invalid value for int32 field num32: "x"',
            "num32: wants an integer",
        ),
        ('{"thing":{"kind":"BIG"}}', 'invalid value for enum field kind: "BIG"', "KIND_SMALL"),
        ('{"tags":["a",1]}', "invalid value for string field tags: 1", "tags[1]: wants a string, not 1"),
        ('{"things":[{"size":{}}]}', "invalid value for int32 field size: {", "things[0].size: wants an integer"),
        ('{"num32":1,"num32":2}', 'duplicate field "num32"', "num32: the member is given twice"),
        ('{"pickA":"a","pickB":1}', "oneof gatewaytest.v1.Everything.choice is already set", "only one of"),
        ('{"labels":[]}', "unexpected token [", "labels: wants an object"),
        ('{"byNum":{"x":"y"}}', 'invalid value for int32 key: "x"', "byNum.x: the key wants an integer"),
        ('{"labels":{"a":"b","a":"c"}}', 'duplicate map key "a"', "the key is given twice"),
        ('{"at":"x"}', 'invalid google.protobuf.Timestamp value "x"', "RFC 3339"),
        ('{"ttl":3}', "unexpected token 3", "a number of seconds"),
        ('{"updateMask":"a_b"}', 'contains invalid path: "a_b"', "lowerCamelCase"),
        ('{"any":{"value":1}}', 'missing "@type" field', "@type"),
        ("[]", "syntax error (line 1:1): unexpected token [", "the body: wants an object, not an array"),
        ('{"name":"\\ud800"}', "invalid escape code", "surrogate"),
    ],
)
def test_reader_words(text: str, reference: str, plain: str) -> None:
    """
    A refusal has protojson's words and place, and ours with the field, the value and what would do.
    """
    with pytest.raises(BodyError) as caught:
        read(text, message("Everything")(), ignore_unknown=False)

    assert reference in caught.value.reference
    assert plain in caught.value.plain


def test_depth() -> None:
    """
    Nesting is bounded, for both readers, and refused with 400.
    """
    text = '{"nested":' * 150 + "{}" + "}" * 150
    found = message("Thing")()

    assert not fill(text, found)
    with pytest.raises(Refusal, match="recursion"):
        read(text, found, ignore_unknown=False)
    with pytest.raises(Refusal):
        first_value("[" * 100_000)


@pytest.mark.parametrize("text", ["", " ", "{} x", "nope"])
def test_read_text_takes_one_value(text: str) -> None:
    """
    Text that must be one value is refused where it is none, or more.
    """
    with pytest.raises(BodyError):
        read_text(message("Everything")(), text, ignore_unknown=True)


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
@settings(max_examples=300)
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
    with pytest.raises(Refusal) as caught:
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
