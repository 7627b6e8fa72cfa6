"""Who parses a session's text once more, after it has its place in a command or variable; and what may pass. Pure.

There is no shell between a version and its program. Yet an image's own entry point may be a shell's script that parses
its arguments again; Kit resolves ``${name}`` and ``$env{NAME}`` in its settings, takes lists and objects in their JSON
form, and splits what ``--exec`` and ``NVDA_KIT_ARGS`` hold at blanks. `program_text` refuses a version that mixes such
text with its own. Whether one text means anything to its reader is seen of the text alone, when a session gives it, and
again on the node.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from footlights.errors import InvalidArgument, Reason
from footlights.launch.recipe.template import TemplateError, parse
from footlights.launch.recipe.whole_command import foreign_reader, whole_command
from footlights.v1.application_pb2 import Argument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from footlights.v1.application_pb2 import Version

STAGE_NAME: Final = "usd_stage_uri"
KIT_SETTING: Final = "--/"
"""How Kit's settings begin on its command line, and no other program's options."""
EXEC: Final = "--exec"
SPLIT_VARIABLE: Final = re.compile(
    r"\w*(ARGS|ARGUMENTS|ARGV|OPTS|OPTIONS|FLAGS|PARAMS|PARAMETERS|CMDLINE|CMD|COMMAND)|NVDA_KIT_\w+", re.IGNORECASE
)
"""Variables that programs split at blanks, or put on a command line."""
_INERT = re.compile(r"(?!-)[\w%+,\-./:=@]*")
_KIT_VALUE = re.compile(r"""(?!\s*[\[{("'])[^$\x00-\x1f\x7f]*""")


def free_names(version: Version) -> frozenset[str]:
    """Return the placeholders whose text a session chooses freely: no numbers, and none of a version's own values."""
    limited = {each.name for each in version.arguments if each.type != Argument.STRING or each.allowed_values}
    return frozenset({STAGE_NAME, *(each.name for each in version.arguments)}) - limited


def check(version: Version, name: str, text: str) -> None:
    """Check the text that a session gives for a placeholder. Raises InvalidArgument ``TEXT_UNSAFE``."""
    if why := _problem(version, name, text):
        # What follows the address of a stage may be a signature.
        plain, question, _ = text.partition("?") if name == STAGE_NAME else (text, "", "")
        shown = repr(f"{plain[:200]}…" if len(plain) > 200 else f"{plain}{question and '?[redacted]'}")
        raise InvalidArgument(f"application_arguments.{name}", f"{shown}: {why}.", reason=Reason.TEXT_UNSAFE)


def _problem(version: Version, name: str, text: str) -> str:
    if name not in free_names(version):
        return ""
    for reader in _shells(version, name):
        if _INERT.fullmatch(text) is None:
            return f"{reader} may parse it once more: give letters, digits and %+,-./:=@_ only, and no '-' first"
    if _KIT_VALUE.fullmatch(text) is None and any(
        name in names and token.startswith(KIT_SETTING) for token, names in _tokens(version)
    ):
        return "Kit would read a part of it as a variable or a list: give it without '$', and no bracket or quote first"
    return ""


def _shells(version: Version, name: str) -> Iterator[str]:
    """Yield what may split the placeholder's text into words, or run a part of it."""
    foreign = foreign_reader(version)
    before = ""
    for token, names in _tokens(version):
        if name in names:
            if foreign:
                yield foreign
            if EXEC in (before, token.partition("=")[0]):
                yield f"what {EXEC} runs"
        before = token
    for variable, text in sorted(version.environment.items()):
        if name in _names(text):
            if foreign:
                yield foreign
            if SPLIT_VARIABLE.fullmatch(variable):
                yield f"what splits {variable}"


def _tokens(version: Version) -> list[tuple[str, frozenset[str]]]:
    return [(token.text, _names(token.text)) for token in whole_command(version)]


def _names(text: str) -> frozenset[str]:
    if "{" not in text:
        return frozenset()
    try:
        return parse(text).names
    except TemplateError:
        return frozenset()


def given_texts(version: Version, values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the texts among converted values that a session has chosen: not what is the version's own default."""
    for argument in version.arguments:
        value = values.get(argument.name)
        own = argument.default_value.string_value if argument.HasField("default_value") else None
        if isinstance(value, str) and value != own:
            yield argument.name, value
