"""JSON to message, exactly: Go's protojson, step by step, with its words and positions.

This is the definition of what a body means. ``codec`` has a faster way for bodies without surprises and comes here
with all others, so everything that is refused is refused here.
"""

from __future__ import annotations

import re
from json import decoder
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from footlights.gateway.decode.jsontext import MAX_DEPTH, first_value, skip_space, too_deep
from footlights.gateway.decode.names import descriptor_of, names, own_name
from footlights.gateway.decode.tokens import NUMBER, RANGES, SIGNED32, Token, read_bytes, read_float, read_integer
from footlights.gateway.encode.wellknown import SPECIAL
from footlights.gateway.errors import Refusal, go_quote

if TYPE_CHECKING:
    from google.protobuf.message import Message

_scanstring = decoder.scanstring  # type: ignore[attr-defined]  # undocumented, there since 2.6
_F = FieldDescriptor
KIND: Final[dict[int, str]] = {
    _F.TYPE_BOOL: "bool", _F.TYPE_ENUM: "enum", _F.TYPE_INT32: "int32", _F.TYPE_SINT32: "sint32",
    _F.TYPE_UINT32: "uint32", _F.TYPE_INT64: "int64", _F.TYPE_SINT64: "sint64", _F.TYPE_UINT64: "uint64",
    _F.TYPE_SFIXED32: "sfixed32", _F.TYPE_FIXED32: "fixed32", _F.TYPE_FLOAT: "float", _F.TYPE_SFIXED64: "sfixed64",
    _F.TYPE_FIXED64: "fixed64", _F.TYPE_DOUBLE: "double", _F.TYPE_STRING: "string", _F.TYPE_BYTES: "bytes",
    _F.TYPE_MESSAGE: "message", _F.TYPE_GROUP: "group",
}  # fmt: skip
_GAP: Final = re.compile(r"[ \t\n\r,:]*")
_WORD: Final = re.compile(r"true|false|null")


class BodyError(ValueError):
    """A JSON value that is not the message.

    Attributes:
        reference: protojson's words, with line and column.
        plain: ours: the field, the value, what is allowed.
        field: dotted path of the field at fault.
    """

    def __init__(self, reference: str, plain: str, field: str) -> None:
        super().__init__(reference)
        self.reference, self.plain, self.field = reference, plain, field


def read(text: str, message: Message, *, ignore_unknown: bool) -> None:
    """Fill ``message`` from ``text``, one JSON value whose syntax has been checked.

    Raises:
        BodyError: the value is not that message.
    """
    Reader(text, ignore_unknown).message(message)


def read_text(message: Message, text: str, *, ignore_unknown: bool) -> None:
    """Fill ``message`` from ``text``, which must be one JSON value and nothing else.

    Raises:
        BodyError: the text is no JSON, or the value is not that message.
    """
    try:
        found = first_value(text)
    except Refusal as error:
        raise BodyError(f"proto: syntax error (line 1:1): {error.message}", error.plain, "") from None
    if found is None:
        name = message.DESCRIPTOR.full_name
        raise BodyError(f"proto: (line 1:1): invalid {name}: ", "wants a JSON value, not nothing", "")
    if skip_space(text, found[1]) != len(text):
        raise BodyError("proto: syntax error (line 1:1): trailing data", "more follows the JSON value", "")
    read(text[found[0] : found[1]], message, ignore_unknown=ignore_unknown)


class Reader:
    def __init__(self, text: str, ignore_unknown: bool) -> None:
        self._text, self.at, self.lax = text, 0, ignore_unknown
        self.path: list[str] = []
        self._depth = 0

    # Tokens

    def peek(self) -> str:
        found = _GAP.match(self._text, self.at)
        assert found is not None
        self.at = found.end()
        return self._text[self.at : self.at + 1]

    def next(self) -> Token:
        char, at = self.peek(), self.at
        if char == '"':
            value, end = _scanstring(self._text, at + 1, True)
            raw = self._text[at:end]
            self.at = end
            if "\\u" in raw or "\\U" in raw:
                self._check_surrogates(at, raw, value)
            return Token(at, raw, value)
        if char in "{}[]":
            self.at = at + len(char)
            return Token(at, char, None)
        found = NUMBER.match(self._text, at) or _WORD.match(self._text, at)
        assert found is not None, "the syntax has been checked"
        self.at = found.end()
        return Token(at, found.group(), found.group() == "true")

    def _check_surrogates(self, at: int, raw: str, value: str) -> None:
        try:
            value.encode()
        except UnicodeEncodeError:
            code = re.search(r"\\u[dD][89a-fA-F]..", raw)
            shown = code.group() if code else raw
            raise self.error(at, f"invalid escape code {go_quote(shown)} in string", f"a string has half of a "
                              f"surrogate pair, {shown}", syntax=True) from None  # fmt: skip

    def skip(self) -> None:
        depth = 0
        while True:
            token = self.next()
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.raw, 0)
            if depth == 0:
                return

    # Errors

    def error(self, at: int, message: str, plain: str, *, syntax: bool = False) -> BodyError:
        before = self._text[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        head = "proto: syntax error (line" if syntax else "proto: (line"
        field = ".".join(self.path).replace(".[", "[")
        plain = f"{field}: {plain}" if field else f"the body: {plain}"
        return BodyError(f"{head} {line}:{column}): {message}", plain, field)

    def unexpected(self, token: Token, wanted: str) -> BodyError:
        return self.error(token.at, f"unexpected token {token.raw}", f"wants {wanted}, not {token.shown}", syntax=True)

    def _invalid(self, token: Token, field: FieldDescriptor) -> BodyError:
        return self.error(
            token.at,
            f"invalid value for {KIND[field.type]} field {field.json_name}: {token.raw}",
            f"wants {wanted(field)}, not {token.shown}",
        )

    # Messages

    def message(self, message: Message) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise too_deep()
        special = SPECIAL.get(message.DESCRIPTOR.full_name)
        if special is not None:
            special(self, message)
        else:
            token = self.next()
            if token.raw != "{":
                raise self.unexpected(token, "an object")
            self.members(message, in_any=False)
        self._depth -= 1

    def members(self, message: Message, *, in_any: bool) -> None:
        descriptor = descriptor_of(message)
        known = names(descriptor)
        seen: set[int] = set()
        seen_oneofs: dict[str, str] = {}
        while (token := self.next()).raw != "}":
            name = str(token.value)
            if in_any and name == "@type":
                self.skip()
                continue
            field = known.get(name)
            if field is None:
                if not self.lax:
                    allowed = ", ".join(sorted({own_name(f) for f in descriptor.fields})) or "none"
                    self.path.append(name)
                    raise self.error(
                        token.at, f"unknown field {token.raw}", f"there is no such member; known members: {allowed}"
                    )
                self.skip()
                continue
            self.path.append(name)
            if field.number in seen:
                raise self.error(token.at, f"duplicate field {token.raw}", "the member is given twice; give it once")
            seen.add(field.number)
            if self.peek() == "n" and not _takes_null(field):
                self.next()
            elif field.is_repeated:
                self._repeated(message, field)
            else:
                oneof = field.containing_oneof
                if oneof is not None:
                    if oneof.full_name in seen_oneofs:
                        raise self.error(
                            token.at,
                            f"error parsing {token.raw}, oneof {oneof.full_name} is already set",
                            f"only one of {', '.join(own_name(f) for f in oneof.fields)} may be given, and "
                            f"{seen_oneofs[oneof.full_name]} is given too",
                        )
                    seen_oneofs[oneof.full_name] = name
                self._singular(message, field)
            self.path.pop()

    def _singular(self, message: Message, field: FieldDescriptor) -> None:
        if field.message_type is not None:
            member = getattr(message, field.name)
            member.SetInParent()
            self.message(member)
            return
        value = self.scalar(field)
        if value is not None:
            setattr(message, field.name, value)

    def _repeated(self, message: Message, field: FieldDescriptor) -> None:
        container = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self.map(container, field.message_type)
        else:
            self.list(container, field)

    def list(self, container: Any, field: FieldDescriptor) -> None:
        token = self.next()
        if token.raw != "[":
            raise self.unexpected(token, "an array")
        while self.peek() != "]":
            self.path.append(f"[{len(container)}]")
            if field.message_type is not None:
                self.message(container.add())
            elif (value := self.scalar(field)) is not None:
                container.append(value)
            self.path.pop()
        self.next()

    def map(self, container: Any, entry: Descriptor) -> None:
        token = self.next()
        if token.raw != "{":
            raise self.unexpected(token, "an object")
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        while (token := self.next()).raw != "}":
            self.path.append(str(token.value))
            key = self._map_key(token, key_field)
            if key in container:
                raise self.error(token.at, f"duplicate map key {token.raw}", "the key is given twice; give it once")
            if value_field.message_type is not None:
                self.message(container[key])
            elif (value := self.scalar(value_field)) is not None:
                container[key] = value
            self.path.pop()

    def _map_key(self, token: Token, field: FieldDescriptor) -> object:
        name = str(token.value)
        if field.type == _F.TYPE_STRING:
            return name
        if field.type == _F.TYPE_BOOL:
            if name in ("true", "false"):
                return name == "true"
        elif re.fullmatch(r"[+-]?[0-9]{1,400}", name):
            low, high = RANGES[field.type]
            if low <= int(name) <= high and not (low == 0 and name[0] in "+-"):
                return int(name)
        raise self.error(
            token.at, f"invalid value for {KIND[field.type]} key: {token.raw}", f"the key wants {wanted(field)}"
        )

    def scalar(self, field: FieldDescriptor) -> object | None:
        """The value; None for an enum name that is unknown where unknown names are ignored."""
        token = self.next()
        value: object | None = None
        kind = field.type
        if kind == _F.TYPE_STRING:
            value = token.value if token.is_string else None
        elif kind == _F.TYPE_BOOL:
            value = token.value if token.raw in ("true", "false") else None
        elif kind in RANGES:
            value = read_integer(token, RANGES[kind])
        elif kind in (_F.TYPE_FLOAT, _F.TYPE_DOUBLE):
            value = read_float(token, single=kind == _F.TYPE_FLOAT)
        elif kind == _F.TYPE_BYTES:
            value = read_bytes(token)
        elif kind == _F.TYPE_ENUM:
            enum = field.enum_type
            assert enum is not None
            if token.is_string:
                found = enum.values_by_name.get(str(token.value))
                if found is None and self.lax:
                    return None
                value = None if found is None else found.number
            elif token.raw == "null" and _takes_null(field):
                value = 0
            else:
                value = read_integer(token, SIGNED32) if token.is_number else None
        if value is None:
            raise self._invalid(token, field)
        return value


def wanted(field: FieldDescriptor) -> str:
    """What a scalar field takes, as a noun phrase."""
    if field.type in RANGES:
        return f"an integer from {RANGES[field.type][0]} to {RANGES[field.type][1]}"
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    return {
        _F.TYPE_BOOL: "true or false",
        _F.TYPE_STRING: "a string",
        _F.TYPE_BYTES: "base64 in a string",
    }.get(field.type, "a number")


def _takes_null(field: FieldDescriptor) -> bool:
    if field.is_repeated:
        return False
    if field.enum_type is not None:
        return bool(field.enum_type.full_name == "google.protobuf.NullValue")
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
