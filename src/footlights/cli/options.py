"""The options of ``server`` and ``agent``, generated from the settings records that they fill.

Each field becomes an option; its docstring is the help text and ``FOOTLIGHTS_<FIELD>`` its environment variable.
``x_s: float`` becomes ``--x DURATION``; ``tuple[str, ...]`` and mappings become repeatable options.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from footlights.cli.calls import pairs
from footlights.cli.durations import duration, show_duration
from footlights.errors import InvalidArgument

_Record = TypeVar("_Record")

_HELP_OF_UNDOCUMENTED: Final = {
    "token": "The node's token, role NODE. Prefer a file: other users of this machine may see arguments.",
    "node": "The node's name.",
    "first_port": "First port of the range for launches.",
    "last_port": "Last port of the range.",
    "slots_per_device": "Number of equal shares that each device is divided into.",
    "labels": "A label of the node; repeatable.",
    "tls": "Use TLS.",
    "device_interval_s": "Interval between readings of the devices.",
    "device_timeout_s": "Time limit for an answer of the driver.",
}


def parameters(record: type, defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """Return one keyword parameter, annotated for typer, for every field of a frozen dataclass."""
    hints = typing.get_type_hints(record)
    docs = _docstrings(record)
    found = []
    for field in dataclasses.fields(record):
        annotation, default = _option(
            field.name, hints[field.name], _default(field, defaults), docs.get(field.name, "")
        )
        found.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        )
    return found


def fill(record: Callable[..., _Record], given: Mapping[str, Any]) -> _Record:
    """Return the record for the given options.

    Raises:
        InvalidArgument: a value is invalid; the error names the option.
    """
    hints = typing.get_type_hints(record)
    values = {
        name: _value(name, hints[name], value)
        for name, value in given.items()
        if value is not None  # not given: the record has the default
    }
    with naming_options():
        return record(**values)


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """Replace the field that an ``InvalidArgument`` names by its option."""
    try:
        yield
    except InvalidArgument as problem:
        raise problem.renamed(flag) from None


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return f"FOOTLIGHTS_{name.removesuffix('_s').upper()}"


def flag(name: str) -> str:
    """Return the option of a field."""
    return "--" + name.removesuffix("_s").replace("_", "-") if name.isidentifier() else name


def register(app: typer.Typer, name: str, run: Callable[..., None], own: list[inspect.Parameter]) -> None:
    """Register ``run`` as a command with these parameters."""

    def body(**given: Any) -> None:
        run(**given)

    body.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]  # what inspect looks for
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    body.__doc__ = run.__doc__
    app.command(name)(body)


def _default(field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> Any:
    if field.name in defaults:
        return defaults[field.name]
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else ...


def _option(name: str, hint: Any, default: Any, doc: str) -> tuple[Any, Any]:
    help_text = " ".join((doc or _HELP_OF_UNDOCUMENTED.get(name, "")).replace("``", "").split())
    options: dict[str, Any] = {"envvar": variable(name), "help": help_text}
    if hint is float and name.endswith("_s"):
        text = Annotated[float, typer.Option(flag(name), parser=duration, metavar="DURATION", **options)]
        return text, show_duration(default)
    if hint is bool:
        spelling = f"{flag(name)}/--no-{flag(name).removeprefix('--')}" if default is True else flag(name)
        return Annotated[bool, typer.Option(spelling, **options)], default
    if typing.get_origin(hint) in (tuple, Mapping):
        item = "K=V" if typing.get_origin(hint) is Mapping else "TEXT"
        shown = ", ".join(default) if default else ""
        options["help"] += f" [default: {shown}]" if shown else ""
        return Annotated[list[str] | None, typer.Option(flag(name), metavar=item, show_default=False, **options)], None
    metavar = "FILE" if _is_path(hint) and name.endswith(("file", "cert", "key")) else "DIR" if _is_path(hint) else None
    return Annotated[hint, typer.Option(flag(name), metavar=metavar, **options)], default


def _is_path(hint: Any) -> bool:
    return hint is Path or (isinstance(hint, types.UnionType) and Path in typing.get_args(hint))


def _value(name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is Mapping:
        return pairs(flag(name).removeprefix("--"), value)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def _docstrings(record: type) -> dict[str, str]:
    """Return the docstring under each field; empty if the source is not available."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(record)))
    except (OSError, TypeError):
        return {}
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[statement.target.id] = text.value
    return found
