"""Are a version's declared arguments well formed? Pure; part of `recipe.validate`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import re2
from google.protobuf import json_format

from footlights.errors import InvalidArgument, Violations
from footlights.launch.recipe.arguments import PUBLISHED, convert_value
from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.template import BUILT_IN, NAME
from footlights.v1.application_pb2 import Argument

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ARGUMENTS = 128
MAX_PATTERN_CHARACTERS = 512
MAX_TEXT_CHARACTERS = 65536


def validate(arguments: Sequence[Argument]) -> None:
    """Check the declarations of a version. Raises InvalidArgument with all that is wrong."""
    if len(arguments) > MAX_ARGUMENTS:
        raise refuse("version.arguments", f"it declares {len(arguments)}: at most {MAX_ARGUMENTS} are allowed.")
    seen: set[str] = set()
    violations = Violations()
    for number, argument in enumerate(arguments):
        field = f"version.arguments[{number}]"
        with violations:
            _name(argument, field, seen)
        with violations:
            if argument.type not in (Argument.STRING, Argument.INTEGER, Argument.NUMBER, Argument.BOOLEAN):
                raise refuse(f"{field}.type", "it is not given: choose STRING, INTEGER, NUMBER or BOOLEAN.")
            _number_bounds(argument, field)
            _text_bounds(argument, field)
            _default(argument, field)
    violations.refuse()


def usable_in_template(argument: Argument, field: str, *, environment: bool) -> None:
    """Check that a command, or a variable of the environment, may hold the argument's value. Raises InvalidArgument."""
    name = argument.name
    if argument.secret and not environment:
        text = (
            f"it uses {{{name}}}, which is a secret: process lists show commands. Use it in the environment, or read "
        )
        raise refuse(field, f"{text}it from the file that FOOTLIGHTS_SESSION_FILE names.")
    if argument.secret:
        return  # without a value, its variable is not set
    if not argument.required and not argument.HasField("default_value"):
        text = f"it uses {{{name}}}, which may be without a value: give it a default_value or make it required."
        raise refuse(field, text)


def _name(argument: Argument, field: str, seen: set[str]) -> None:
    name = argument.name
    if NAME.fullmatch(name) is None:
        raise refuse(f"{field}.name", f"{name!r} is not a name: use a-z, 0-9 and '_', a letter first.")
    if name in BUILT_IN or name in PUBLISHED:
        raise refuse(f"{field}.name", f"{name!r} is taken by Footlights: every version has it. Choose another.")
    if name in seen:
        raise refuse(f"{field}.name", f"{name!r} is declared twice: remove one of them.")
    seen.add(name)


def _number_bounds(argument: Argument, field: str) -> None:
    numeric = argument.type in (Argument.INTEGER, Argument.NUMBER)
    for name in ("minimum", "maximum"):
        if argument.HasField(name):
            bound = getattr(argument, name)
            if not numeric:
                raise refuse(f"{field}.{name}", f"{bound:g} bounds no number: it is for INTEGER and NUMBER only.")
            if not math.isfinite(bound):
                raise refuse(f"{field}.{name}", f"{bound} is not finite: leave it out for no bound.")
    if argument.HasField("minimum") and argument.HasField("maximum") and argument.minimum > argument.maximum:
        text = f"{argument.minimum:g} is above the maximum {argument.maximum:g}: exchange them."
        raise refuse(f"{field}.minimum", text)


def _text_bounds(argument: Argument, field: str) -> None:
    if argument.type != Argument.STRING:
        for name in ("allowed_values", "pattern", "max_length"):
            if getattr(argument, name):
                raise refuse(f"{field}.{name}", "it is for the type STRING only: remove it.")
        return
    if not 0 <= argument.max_length <= MAX_TEXT_CHARACTERS:
        most = MAX_TEXT_CHARACTERS
        raise refuse(f"{field}.max_length", f"{argument.max_length} is not between 0 and {most}: give a length.")
    if argument.pattern:
        _pattern(argument.pattern, f"{field}.pattern")


def _pattern(pattern: str, field: str) -> None:
    """Compile it with RE2, whose matching is linear in the text: a session's text can never stall a server."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise refuse(field, f"it is {len(pattern)} characters long: at most {MAX_PATTERN_CHARACTERS} are allowed.")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        text = f"{pattern!r} is not a regular expression of RE2, which has no look-around and no references: {why}."
        raise refuse(field, text) from None


def _default(argument: Argument, field: str) -> None:
    if not argument.HasField("default_value"):
        return
    if argument.secret:
        raise refuse(f"{field}.default_value", "a secret has none: recipes are shown. Make it required instead.")
    value = json_format.MessageToDict(argument.default_value)
    try:
        convert_value(argument, value, field=f"{field}.default_value")
    except InvalidArgument as error:
        raise refuse(error.field, error.problem) from None
