"""JSON text before it is a message: where a value ends, and what is wrong with one that does not parse.

Bodies are read one value at a time, because the reference reads the first value of a body and leaves the rest.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from footlights.gateway.errors import INVALID_ARGUMENT, Refusal, go_quote

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_LITERAL: Final = {"t": "true", "f": "false", "n": "null"}
MAX_DEPTH: Final = 100
"""Objects and arrays inside one another; protobuf itself refuses deeper messages."""


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError("Expecting value", name, -1)


def _nothing(_: object) -> None:
    """Values are not wanted here, only their ends."""


_SCANNER: Final = json.JSONDecoder(
    parse_int=_nothing, parse_float=_nothing, parse_constant=_no_constant, object_pairs_hook=_nothing
)


def decode_utf8(data: bytes) -> str:
    """The text of a body.

    Raises:
        Refusal: INVALID_ARGUMENT when it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _refusal(
            "proto: syntax error (line 1:1): invalid UTF-8", f"the body is not UTF-8 at byte {error.start}"
        ) from None


def first_value(text: str, start: int = 0) -> tuple[int, int] | None:
    """Where the first JSON value in ``text[start:]`` begins and ends; None if there is only blank.

    Raises:
        Refusal: INVALID_ARGUMENT in the words of Go's encoding/json.
    """
    begin = skip_space(text, start)
    if begin == len(text):
        return None
    try:
        _, end = _SCANNER.raw_decode(text, begin)
    except json.JSONDecodeError as found:
        error = found
        if error.msg.startswith("Illegal trailing comma"):
            # Python points at the comma from 3.13 on, and before that at what follows it, as Go does.
            error = json.JSONDecodeError(error.msg, text, skip_space(text, error.pos + 1))
        message = _message(text, error, begin)
        place = f"line {error.lineno} column {error.colno}" if error.pos >= 0 else "a number"
        raise _refusal(message, f"the body is not JSON: {message} ({place})") from None
    except RecursionError:
        raise too_deep() from None
    return begin, end


def skip_space(text: str, start: int) -> int:
    """The index of the first character that is not JSON white space."""
    found = _SPACE.match(text, start)
    assert found is not None
    return found.end()


def too_deep() -> Refusal:
    """The refusal of a value with too many levels."""
    return _refusal("proto: exceeded maximum recursion depth", f"the body has more than {MAX_DEPTH} levels")


def _refusal(message: str, plain: str) -> Refusal:
    return Refusal(INVALID_ARGUMENT, message, plain=plain, reason="INVALID_JSON")


def _message(text: str, error: json.JSONDecodeError, begin: int) -> str:
    at, kind = error.pos, error.msg
    if at < 0:
        at = next(
            (m.start() for m in re.finditer(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', text[begin:]) if m.group(1)), 0
        )
        at += begin
    if at >= len(text) or kind.startswith("Unterminated string"):
        return "unexpected EOF"
    if kind.startswith("Invalid \\") and at + 1 < len(text):
        at += 1
    char = text[at]
    if kind == "Expecting value" and char in _LITERAL:
        word = _LITERAL[char]
        for index, wanted in enumerate(word):
            if at + index >= len(text):
                return "unexpected EOF"
            if text[at + index] != wanted:
                return f"invalid character {_char(text[at + index])} in literal {word} (expecting {_char(wanted)})"
    where = {
        "Expecting value": "looking for beginning of value",
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
        "Illegal trailing comma before end of object": "looking for beginning of object key string",
        "Illegal trailing comma before end of array": "looking for beginning of value",
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": _inside(text, begin, at),
        "Invalid control character at": "in string literal",
    }.get(kind, "in string escape code" if kind.startswith("Invalid \\") else "looking for beginning of value")
    return f"invalid character {_char(char)} {where}"


def _inside(text: str, begin: int, at: int) -> str:
    """What a missing comma follows: the innermost open bracket decides."""
    open_brackets: list[str] = []
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text[begin:at]):
        bracket = found.group()
        if bracket in "{[":
            open_brackets.append(bracket)
        elif bracket in "}]" and open_brackets:
            open_brackets.pop()
    return "after object key:value pair" if open_brackets[-1:] == ["{"] else "after array element"


def _char(char: str) -> str:
    if char == "'":
        return r"'\''"
    return "'\"'" if char == '"' else "'" + go_quote(char)[1:-1] + "'"
