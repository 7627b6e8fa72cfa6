"""Reasons of errors: every place that raises one agrees with what the enum ErrorReason declares."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from footlights.v1 import error_reason_pb2

from footlights import errors
from footlights.errors import BY_CODE, InvalidArgument, LocalReason, NotFound, Reason, Violation, Violations
from footlights.gateway.errors import REASONS as GATEWAY_REASONS
from footlights.http.status import HTTP_STATUS
from footlights.status import CODE_NAMES
from tests.sources import parsed

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "footlights"
CODES = {name: number for number, name in CODE_NAMES.items()}
CLASSES: dict[str, type[errors.Error]] = {
    cls.__name__: cls for cls in (errors.Error, InvalidArgument, *BY_CODE.values())
}
DECLARED: dict[str, Any] = {
    value.name: value.GetOptions().Extensions[error_reason_pb2.reason_info]
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values
    if value.number
}
PASSED_ON: Final = {
    "errors.py": "joins and renames what was raised elsewhere",
    "status.py": "makes errors of what came over the wire",
}
"""Modules with errors whose reason is not written there, and why."""

OWN_STATUS: Final = {405, 408, 413, 414, 415, 426, 431, 502}
"""HTTP statuses that no code has."""

NOTHING_LOOKED_UP: Final = {"PATH_NOT_FOUND", "RESOURCE_NOT_FOUND"}
"""Reasons with NOT_FOUND that have no ResourceInfo."""


_OF_LISTENER: Final = {"HEAD_TOO_LARGE", "HEAD_TOO_SLOW", "NOT_HTTP", "TOO_MANY_CONNECTIONS"}
"""Reasons of ``http/server.py``, which like the gateway knows nothing of Footlights."""


PARAMETER: Final = "a parameter"


class Site(NamedTuple):
    """A place that makes an error."""

    where: str
    cls: str
    call: ast.Call
    parameters: frozenset[str]
    """Those of the functions around it that are annotated as a ``Reason``."""

    def keyword(self, name: str) -> ast.expr | None:
        return next((each.value for each in self.call.keywords if each.arg == name), None)


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {file.relative_to(SRC).as_posix(): parsed(file) for file in sorted(SRC.rglob("*.py"))}


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def sites(classes: set[str]) -> Iterator[Site]:
    for path, tree in trees().items():
        yield from within(tree, path, frozenset(), classes)


def within(node: ast.AST, path: str, parameters: frozenset[str], classes: set[str]) -> Iterator[Site]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        annotated = (each for each in given if each.annotation is not None)
        parameters |= {each.arg for each in annotated if "Reason" in ast.unparse(each.annotation or each)}
    if isinstance(node, ast.Call) and name_of(node.func) in classes:
        yield Site(f"{path}:{node.lineno}", name_of(node.func), node, parameters)
    for child in ast.iter_child_nodes(node):
        yield from within(child, path, parameters, classes)


def reason_of(site: Site) -> str | None:
    """Return the reason that a place gives, its class's default, or None where it is not written there.

    A parameter is its caller's choice, of which mypy sees to it that it is in the enum.
    """
    value = site.keyword("reason")
    if value is None:
        return str(CLASSES[site.cls].default_reason)
    if isinstance(value, ast.Name):
        constants = {
            name_of(target): each.value
            for each in trees()[site.where.partition(":")[0]].body
            if isinstance(each, ast.Assign)
            for target in each.targets
        }
        value = constants.get(value.id, value)
    if isinstance(value, ast.Name) and value.id in site.parameters:
        return PARAMETER
    is_reason = isinstance(value, ast.Attribute) and name_of(value.value) in ("Reason", "LocalReason")
    return name_of(value) if is_reason else None


def keys_of(site: Site) -> set[str] | None:
    """Return the metadata keys that a place gives, or None where they are not written there."""
    value, given = site.keyword("metadata"), {"field"} if site.cls == "InvalidArgument" else set[str]()
    if value is None:
        return given
    if not isinstance(value, ast.Dict) or not all(isinstance(key, ast.Constant) for key in value.keys):
        return None
    return given | {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}


def test_every_error_has_a_declared_reason_with_its_code_and_its_keys() -> None:
    """Read from the source: the class's code and the metadata keys are those of the enum, wherever one is raised."""
    wrong = []
    for site in sites(set(CLASSES)):
        reason, keys, path = reason_of(site), keys_of(site), site.where.partition(":")[0]
        if reason == PARAMETER or reason in LocalReason.__members__ or (path in PASSED_ON and None in (reason, keys)):
            continue
        if reason is None or keys is None:
            wrong.append(f"{site.where}: reason and metadata must be written where the error is made")
        elif reason not in DECLARED:
            wrong.append(f"{site.where}: {reason} is not in error_reason.proto")
        elif CODE_NAMES[CLASSES[site.cls].code] != DECLARED[reason].code:
            wrong.append(f"{site.where}: {reason} is declared with {DECLARED[reason].code}, not with {site.cls}")
        elif keys != set(DECLARED[reason].metadata_keys):
            wrong.append(
                f"{site.where}: {reason} has {sorted(keys)}, declared {sorted(DECLARED[reason].metadata_keys)}"
            )

    assert not wrong, "\n" + "\n".join(wrong)


def test_every_declared_reason_is_raised_somewhere() -> None:
    """A reason that nothing raises is not documented."""
    written = {
        node.attr
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and name_of(node.value) == "Reason"
    }

    assert set(DECLARED) - written - set(GATEWAY_REASONS) == _OF_LISTENER
    assert set(DECLARED) == set(Reason.__members__)
    assert not set(DECLARED) & set(LocalReason.__members__)


def test_every_error_of_the_gateway_is_one_of_its_table_and_of_the_enum() -> None:
    """The gateway knows nothing of Footlights, so it has a table of its own."""
    declared = {
        name: (CODES[info.code], info.http_status, tuple(info.metadata_keys))
        for name, info in DECLARED.items()
        if name in GATEWAY_REASONS
    }
    wrong = []
    for site in sites({"GatewayError", "MemberError"}):
        value, status = site.keyword("reason"), site.keyword("http_status")
        if not isinstance(value, ast.Constant):
            continue
        reason, given = str(value.value), keys_of(site) or set()
        if reason not in GATEWAY_REASONS:
            wrong.append(f"{site.where}: {reason} is not in gateway.errors.REASONS")
        elif site.cls == "GatewayError":
            code, http_status, keys = GATEWAY_REASONS[reason]
            given |= {"field"} if site.keyword("field") is not None else set()
            if name_of(site.call.args[0]) != CODE_NAMES[code] or given != set(keys):
                wrong.append(f"{site.where}: {reason} has another code or other keys in REASONS: {code}, {keys}")
            if isinstance(status, ast.Constant) and status.value != http_status:
                wrong.append(f"{site.where}: {reason} has HTTP status {http_status} in REASONS")

    assert not wrong, "\n" + "\n".join(wrong)
    assert declared == GATEWAY_REASONS


def test_what_the_http_listener_refuses_is_declared() -> None:
    """Before there is a request: status, code and reason are the arguments of ``_refuse``."""
    made = {
        tuple(each.value for each in site.call.args[:3] if isinstance(each, ast.Constant))
        for site in sites({"_refuse"})
        if site.where.startswith("http/server.py")
    }

    assert len(made) == len(_OF_LISTENER)
    assert made == {(DECLARED[name].http_status, CODES[DECLARED[name].code], name) for name in _OF_LISTENER}


@pytest.mark.parametrize("reason", DECLARED)
def test_a_declaration_is_whole(reason: str) -> None:
    """A code of gRPC, the HTTP status that it has everywhere or one of its own, and a resource where one is missing."""
    info = DECLARED[reason]

    assert len(reason) <= 63
    assert info.http_status == HTTP_STATUS[CODES[info.code]] or info.http_status in OWN_STATUS
    assert bool(info.resource_type) == (info.code == "NOT_FOUND" and reason not in NOTHING_LOOKED_UP)
    assert bool(info.resource_type) == (info.resource_key in info.metadata_keys)
    assert "field" not in info.metadata_keys[1:]


def test_the_page_for_people_lists_every_reason() -> None:
    """`docs/errors.md`, written by scripts/generate, which `make check` runs with --check."""
    rows = [line.split(" | ")[0].removeprefix("| ") for line in (ROOT / "docs/errors.md").read_text().splitlines()]

    assert [row for row in rows if row in DECLARED] == list(DECLARED)


def test_a_text_is_no_reason() -> None:
    """mypy refuses it; without the comment below the check of types fails."""
    with pytest.raises(AttributeError):
        NotFound("gone", reason="SESSION_NOT_FOUND")  # type: ignore[arg-type]


def test_all_violations_of_several_checks_are_refused_at_once() -> None:
    """In order, the first of each field; reason and metadata are those of the first."""
    found = Violations()
    with found:
        raise InvalidArgument("limit", "must be at least 1 (got 0).", reason=Reason.OUT_OF_RANGE)
    with found:
        pass
    with found:
        raise InvalidArgument("kind", "unknown value 'x'.", reason=Reason.NOT_ALLOWED, metadata={"value": "x"})
    with found:
        raise InvalidArgument("limit", "must be even.")
    with pytest.raises(InvalidArgument) as caught:
        found.refuse()

    error = caught.value
    assert error.violations == (
        Violation("limit", "must be at least 1 (got 0).", "OUT_OF_RANGE"),
        Violation("kind", "unknown value 'x'.", "NOT_ALLOWED"),
    )
    assert (error.field, error.reason, error.metadata) == ("limit", "OUT_OF_RANGE", {"field": "limit"})
    assert str(error) == error.message == "limit: must be at least 1 (got 0). kind: unknown value 'x'."


def test_what_is_no_violation_passes() -> None:
    """And nothing is refused where nothing was found."""
    found = Violations()
    with pytest.raises(NotFound), found:
        raise NotFound("gone")

    found.refuse()


def test_violations_move_with_their_message() -> None:
    """Where a request has a resource in a member, each field is named from there."""
    both = InvalidArgument.joined([InvalidArgument("a", "is bad."), InvalidArgument("b", "is worse.")])

    moved = both.renamed(lambda field: f"things[0].{field}")

    assert [each.field for each in moved.violations] == ["things[0].a", "things[0].b"]
    assert moved.metadata == {"field": "things[0].a"}
    assert moved.message == "things[0].a: is bad. things[0].b: is worse."
