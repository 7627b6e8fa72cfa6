"""Options of ``server`` and ``agent``: made from the records they fill, so that the two never differ.

A field is an option, its docstring the help, ``FOOTLIGHTS_<FIELD>`` its variable. ``x_s: float`` is ``--x DURATION``,
``tuple[str, ...]`` and mappings are repeated options.
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
    "token": "The node's token, role NODE. A file is better: other users of this machine may see it.",
    "node": "The node's name.",
    "first_port": "The first port that launches may use.",
    "last_port": "The last one.",
    "slots_per_device": "In how many equal shares each device is offered.",
    "launchers": "A launcher that may be used: process, container or fake; repeat.",
    "labels": "A label of the node; repeat.",
    "tls": "Use TLS.",
    "device_interval_s": "How often the devices are read.",
    "device_timeout_s": "How long a driver may take to answer.",
}


def parameters(record: type, defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """One keyword parameter, annotated for typer, for every field of a frozen dataclass."""
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
    """The record that the options give.

    Raises:
        InvalidArgument: a value will not do; it names the option.
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
    """Turn the field that an ``InvalidArgument`` names into its option."""
    try:
        yield
    except InvalidArgument as problem:
        raise InvalidArgument(flag(problem.field), problem.problem, reason=problem.reason) from None


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"FOOTLIGHTS_{name.removesuffix('_s').upper()}"


def flag(name: str) -> str:
    """The option of a field."""
    return "--" + name.removesuffix("_s").replace("_", "-") if name.isidentifier() else name


def register(app: typer.Typer, name: str, run: Callable[..., None], own: list[inspect.Parameter]) -> None:
    """Make ``run`` a command that takes these parameters."""

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
        return Annotated[bool, typer.Option(flag(name), **options)], default
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
    """The docstring under each field; empty where the source is not at hand."""
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
