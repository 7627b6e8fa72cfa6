"""JSON text to Python values, with all that the field decoders need to be exact.

The standard library's scanner does the work; three things of a text would be lost in its values and are kept. A
number that a Python number does not hold exactly stays text (``NumberText``), an object with a member given twice is a
``RepeatedMembers``, and half of a surrogate pair in an escape is refused here, because the value could not be encoded.

Only the first value of a text is read: grpc-gateway leaves the rest of a body alone, and strict mode asks where the
value ended.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NoReturn

from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_TRAILING_COMMA: Final = re.compile(r",[ \t\n\r]*[}\]]")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_MAX_DIGITS: Final = 400
"""Longer integers fit no field, and Python refuses to convert the very long ones."""
MAX_DEPTH: Final = 100
"""Messages inside one another; protobuf itself parses no deeper ones."""


class NumberText(str):
    """A JSON number that is kept as it was written: with a fraction or exponent, ``-0``, or very long."""

    __slots__ = ()


class RepeatedMembers(dict[str, Any]):
    """A JSON object in which ``names`` are given more than once."""

    def __init__(self, members: Mapping[str, object], names: frozenset[str]) -> None:
        super().__init__(members)
        self.names = names


class _NotFinite(ValueError):
    """``NaN`` or ``Infinity`` outside a string."""


def _integer(text: str) -> int | NumberText:
    return int(text) if text != "-0" and len(text) <= _MAX_DIGITS else NumberText(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counted = Counter(name for name, _ in pairs)
    return RepeatedMembers(found, frozenset(name for name, count in counted.items() if count > 1))


def _constant(name: str) -> NoReturn:
    raise _NotFinite(name)


_scan: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=NumberText, parse_constant=_constant
).scan_once  # type: ignore[attr-defined]  # the standard library has it


def decode_utf8(data: bytes) -> str:
    """The text of a body.

    Raises:
        GatewayError: INVALID_ARGUMENT when it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: byte {error.start + 1} is wrong.") from None


def parse_first(text: str) -> tuple[Any, int] | None:
    """The first JSON value in a text, and the index behind it; None if the text is blank.

    Raises:
        GatewayError: INVALID_ARGUMENT when the text does not begin with a JSON value.
    """
    start = 0 if text[:1] == "{" else _skip_space(text, 0)
    if start == len(text):
        return None
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise _syntax_error(text, stop.value) from None
    except json.JSONDecodeError as error:
        raise _syntax_error(text, _behind_trailing_comma(text, error.pos)) from None
    except _NotFinite as error:
        raise _invalid(f'the body is not JSON: {error} is not a number; write it as a string, "{error}".') from None
    except RecursionError:
        raise too_deep() from None
    if "\\u" in text and _SURROGATE.search(text, start, end):
        _check_surrogates(text, start, end)
    return value, end


def has_more(text: str, end: int) -> bool:
    """Whether anything but white space follows the value that ends at ``end``."""
    return end < len(text) and _skip_space(text, end) < len(text)


def too_deep() -> GatewayError:
    """The error for a value with too many levels."""
    return _invalid(f"the body must have at most {MAX_DEPTH} levels of messages.")


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    assert found is not None, "the pattern matches the empty text"
    return found.end()


def _check_surrogates(text: str, start: int, end: int) -> None:
    for found in _ESCAPE.finditer(text, start, end):
        if found["half"]:
            raise _invalid(
                f"the body is not JSON: {found['half']} is half of a surrogate pair{_place(text, found.start())}."
            )


def _behind_trailing_comma(text: str, at: int) -> int:
    """Return where a comma before a closing bracket is noticed: behind it. Python 3.13 and later point at the comma."""
    found = _TRAILING_COMMA.match(text, at)
    if found is None or text[:at].rstrip(" \t\n\r")[-1:] in ("", ",", ":", "[", "{"):
        return at
    return found.end() - 1


def _syntax_error(text: str, at: int) -> GatewayError:
    if at >= len(text):
        return _invalid(f"the body is not JSON: it ends in the middle of a value{_place(text, len(text))}.")
    return _invalid(f"the body is not JSON: {quoted(text[at])} is not expected here{_place(text, at)}.")


def _place(text: str, at: int) -> str:
    return f" (line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)})"


def _invalid(message: str) -> GatewayError:
    return GatewayError(INVALID_ARGUMENT, message, reason="INVALID_JSON")
