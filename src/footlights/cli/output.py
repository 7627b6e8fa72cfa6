"""The output of a command on stdout: a table for people, or JSON, YAML or names for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import typer

from footlights.protocol.output import visible

if TYPE_CHECKING:
    from google.protobuf.message import Message

_WIDTH: Final = 10_000
"""Tables are never cut to the terminal's width: cut text cannot be copied."""

_OBEYED: Final = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal may obey that JSON and YAML do not escape."""

_COLOUR: Final = re.compile("\x1b\\[[0-9;:]*m")

_STYLES: Final = {
    **dict.fromkeys(("READY", "ACTIVE", "OK", "FITS"), "green"),
    **dict.fromkeys(
        ("PENDING", "STARTING", "TERMINATING", "DRAINING", "CORDONED", "DEGRADED", "UNREACHABLE"), "yellow"
    ),
    **dict.fromkeys(("FAILED", "UNHEALTHY", "LOST", "UNWELL"), "red"),
    **dict.fromkeys(("TERMINATED", "DRAINED"), "dim"),
}


class Output(StrEnum):
    """The output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def emit(
    output: Output, message: Message, names: Iterable[str], table: Iterable[str], *, dry_run: bool = False
) -> None:
    """Print an answer; that of a dry run after the word that it is one."""
    if dry_run:
        typer.echo("Dry run: nothing was changed. Otherwise:", err=output is not Output.TABLE)
    if output is Output.JSON:
        typer.echo(_json(message, indent=2))
    elif output is Output.YAML:
        typer.echo(_yaml(plain(message)), nl=False)
    else:
        for line in map(visible, names) if output is Output.NAME else table:
            typer.echo(line)


def emit_line(output: Output, message: Message, name: str, line: str, *, raw: bool = False) -> None:
    """Print one item of a stream: one line each, also as JSON (NDJSON); YAML as documents.

    ``raw``: the text is that of ``application_output``.
    """
    if output is Output.JSON:
        typer.echo(_json(message, separators=(",", ":")))
    elif output is Output.YAML:
        typer.echo("---")
        emit(output, message, (), ())
    else:
        text = name if output is Output.NAME else line
        typer.echo(text if raw else visible(text))
    sys.stdout.flush()


def application_output(line: str) -> str:
    """Return a line of an application's output as it is, but for a terminal with nothing of it obeyed but colours."""
    if not sys.stdout.isatty():
        return line
    texts, colours = _COLOUR.split(line.rstrip("\r")), _COLOUR.findall(line)
    shown = "".join(visible(text) + colour for text, colour in zip(texts, [*colours, ""], strict=True))
    return f"{shown}\x1b[0m" if colours else shown


def plain(message: Message) -> Any:
    """Return a message as JSON values, with the API's member names and every member that is set."""
    from google.protobuf import json_format

    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _json(message: Message, **form: Any) -> str:
    """Return a message as JSON that people can read and no terminal obeys."""
    text = json.dumps(plain(message), ensure_ascii=False, **form)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _yaml(values: Any) -> str:
    """Return the same as YAML."""
    import yaml

    text = str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return yaml.safe_dump(values, sort_keys=False) if _OBEYED.search(text) else text


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str = "") -> list[str]:
    """Return aligned columns under headers; without rows ``empty`` is printed on stderr."""
    if not rows:
        if empty:
            typer.echo(empty, err=True)
        return []
    return _render(headers, rows)


def details(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return two columns, label and value; pairs without a value are omitted."""
    return _render((), [(label, value) for label, value in pairs if value])


def _render(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    grid = Table(box=None, show_header=bool(headers), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers or [""] * max(map(len, rows), default=0):
        grid.add_column(header, no_wrap=True)
    for row in rows:
        grid.add_row(*(Text.assemble((visible(" ".join(cell.split())), _STYLES.get(cell, ""))) for cell in row))
    console = Console(
        file=StringIO(), width=_WIDTH, force_terminal=coloured, color_system="standard" if coloured else None
    )
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]
