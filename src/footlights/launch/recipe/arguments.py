"""A session's arguments: from JSON to the types that its version declares, the secret ones apart. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

import re2
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from footlights.errors import InvalidArgument, Reason, Violations
from footlights.launch.recipe import nucleus, read_again
from footlights.launch.recipe.template import parse
from footlights.protocol.bounds import bound
from footlights.v1.application_pb2 import Argument, Version

FIELD = "application_arguments"
STAGE, NUCLEUS = "usd_stage_uri", "nucleus_connection_config"
PUBLISHED = (STAGE, NUCLEUS)
"""The two keys that the published API has for every application."""
DEFAULT_MAX_LENGTH = 1024
MAX_SECRET_BYTES = 64 << 10
MAX_ARGUMENT_BYTES = 128 << 10
"""Of all plain values together: they are in every list of sessions."""
MAX_SECRETS_BYTES = bound("Assignment", "secrets").size
"""Of all secrets together, as JSON: a node is sent them in one message."""
MAX_VARIABLE_BYTES = 16 << 10
"""Of a secret in the environment: all variables and the command line together have 2 MiB at most, of the kernel's."""
MAX_INTEGER = 2**53 - 1
"""The greatest whole number that a JSON number keeps exactly."""

Scalar = str | int | float | bool


def convert_arguments(
    version: Version, arguments: Mapping[str, object] | Struct
) -> tuple[dict[str, Scalar], dict[str, object]]:
    """Convert what a session gives to what its version declares; again gives the same.

    Raises InvalidArgument with all that is wrong.

    Returns the plain values (with their defaults, and ``usd_stage_uri`` where it was given), and the secrets, which go
    into the session file and nowhere else, and into no message.
    """
    given = json_format.MessageToDict(arguments) if isinstance(arguments, Struct) else dict(arguments)
    declared = {argument.name: argument for argument in version.arguments}
    if given.get(nucleus.USER) is None and given.get(nucleus.PASSWORD) is None:
        given |= nucleus.account(version, given.get(NUCLEUS))
    violations = Violations()
    for name in given:
        if name not in declared and name not in PUBLISHED:
            known = ", ".join(sorted({*declared, *PUBLISHED}))
            text = f"this version declares no such argument: the known ones are {known}."
            with violations:
                raise InvalidArgument(
                    f"{FIELD}.{name}", text, reason=Reason.ARGUMENT_UNKNOWN, metadata={"argument": name}
                )
    values: dict[str, Scalar] = {}
    secrets: dict[str, object] = {}
    variables = secrets_in_environment(version)
    for name, argument in declared.items():
        value = given.get(name)
        if value is None and argument.HasField("default_value"):
            value = json_format.MessageToDict(argument.default_value)
        with violations:
            if value is not None:
                converted = convert_value(argument, value, field=f"{FIELD}.{name}")
                if name in variables:
                    _check_variable(converted, f"{FIELD}.{name}")
                (secrets if argument.secret else values)[name] = converted
            elif argument.required:
                text = "it is required and has no default: give it."
                raise InvalidArgument(f"{FIELD}.{name}", text, reason=Reason.ARGUMENT_REQUIRED)
    for name, text in read_again.given_texts(version, values):
        with violations:
            read_again.check(version, name, text)
    with violations:
        if given.get(STAGE) is not None:
            values[STAGE] = _stage(given[STAGE])
    with violations:
        size = sum(len(name) + len(json.dumps(value, ensure_ascii=False).encode()) for name, value in values.items())
        if size > MAX_ARGUMENT_BYTES:
            text = f"they are {size} bytes of JSON: at most {MAX_ARGUMENT_BYTES} are allowed."
            raise InvalidArgument(FIELD, text, reason=Reason.ARGUMENT_INVALID)
    with violations:
        if connections := _nucleus(given.get(NUCLEUS)):
            secrets[NUCLEUS] = connections
    with violations:
        check_secrets(secrets)
    violations.refuse()
    return values, secrets


def check_secrets(secrets: Mapping[str, object]) -> None:
    """Check that a node can be sent all secrets of a session. Raises InvalidArgument."""
    if (size := len(json.dumps(secrets))) > MAX_SECRETS_BYTES:
        text = f"its secrets are {size} bytes of JSON: at most {MAX_SECRETS_BYTES} are allowed."
        raise InvalidArgument(FIELD, text, reason=Reason.ARGUMENT_INVALID)


def secrets_in_environment(version: Version) -> frozenset[str]:
    """Return the names of the secrets that a version's environment has."""
    secret = {argument.name for argument in version.arguments if argument.secret}
    return (
        frozenset(name for text in version.environment.values() for name in parse(text).names & secret)
        if secret
        else frozenset()
    )


def _check_variable(value: Scalar, field: str) -> None:
    """Check that a secret may stand in a variable of the environment. Raises InvalidArgument, without it."""
    text = as_text(value)
    size = len(text.encode("utf-8", "surrogateescape"))
    problem = ""
    if re.search(r"[\0\r\n]", text):
        problem = "holds a NUL or a line break: remove it"
    elif size > MAX_VARIABLE_BYTES:
        problem = f"is {size} bytes: at most {MAX_VARIABLE_BYTES} are allowed"
    if problem:
        whole = f"the value (a secret), which is for a variable of the environment, {problem}."
        raise InvalidArgument(field, whole, reason=Reason.ARGUMENT_INVALID)


def convert_value(argument: Argument, value: object, *, field: str) -> Scalar:
    """Convert one JSON value to the argument's type and check it against its bounds. Raises InvalidArgument."""
    match argument.type:
        case Argument.STRING:
            return _string(argument, value, field)
        case Argument.INTEGER:
            number = _number(argument, value, field)
            if not number.is_integer() or abs(number) > MAX_INTEGER:
                raise _wrong(argument, field, value, "is not a whole number (up to 2^53 - 1)", "write one, such as 5")
            return int(number)
        case Argument.NUMBER:
            return _number(argument, value, field)
        case Argument.BOOLEAN:
            if not isinstance(value, bool):
                raise _wrong(argument, field, value, "is neither true nor false", "write true or false")
            return value
        case _:
            raise InvalidArgument(field, f"its version declares the unknown type {argument.type}.")


def as_text(value: Scalar) -> str:
    """Write a converted value as a command has it: ``5``, ``0.5``, ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _string(argument: Argument, value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(argument, field, value, "is not text", "write it in quotes")
    longest = argument.max_length or DEFAULT_MAX_LENGTH
    if len(value) > longest:
        raise _wrong(argument, field, value, f"is {len(value)} characters long", f"give at most {longest}")
    if argument.allowed_values and value not in argument.allowed_values:
        choices = ", ".join(repr(choice) for choice in argument.allowed_values)
        raise _wrong(argument, field, value, "is not allowed", f"choose one of {choices}")
    if re.search(r"[\0\r\n]", value) and not argument.secret:
        raise _wrong(argument, field, value, "holds a NUL or a line break", "remove it")
    if argument.pattern and re2.compile(argument.pattern).fullmatch(value) is None:
        raise _wrong(argument, field, value, f"does not match {argument.pattern!r}", "give a text that matches")
    return value


def _number(argument: Argument, value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(argument, field, value, "is not a number", "write it without quotes")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(argument, field, value, "is not finite", "give a number")
    if argument.HasField("minimum") and number < argument.minimum:
        raise _wrong(argument, field, value, "is too small", f"give at least {argument.minimum:g}")
    if argument.HasField("maximum") and number > argument.maximum:
        raise _wrong(argument, field, value, "is too large", f"give at most {argument.maximum:g}")
    return number


def _stage(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{FIELD}.{STAGE}", f"{value!r} is not text: give a path or a URL.")
    return value


def _nucleus(value: object) -> list[dict[str, object]]:
    """Check the published key whose shape was never published: a list of objects with any keys."""
    if value is None:
        return []
    field = f"{FIELD}.{NUCLEUS}"
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise InvalidArgument(field, "it is not a list of objects: write [] or [{...}].")
    items = [dict(item) for item in value]
    try:
        size = len(json.dumps(items))
    except (TypeError, ValueError, RecursionError):
        raise InvalidArgument(field, "it is not JSON.") from None
    if size > MAX_SECRET_BYTES:
        raise InvalidArgument(field, f"it is {size} bytes of JSON: at most {MAX_SECRET_BYTES} are allowed.")
    return items


def _wrong(argument: Argument, field: str, value: object, problem: str, fix: str) -> InvalidArgument:
    shown = "the value (a secret)" if argument.secret else _shown(value)
    return InvalidArgument(field, f"{shown} {problem}: {fix}.", reason=Reason.ARGUMENT_INVALID)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
