"""docs/api-versions.md has the tables that follow from the protos, and what they need is in the protos."""

from __future__ import annotations

from datetime import date

import pytest
from footlights.http.v1 import annotations_pb2 as rest
from google.protobuf.descriptor import FileDescriptor

from tests.contract import descriptors, golden, tables


def test_an_extension_number_is_used_once() -> None:
    """Whatever it extends, so that the registry has one line for each; all are ours."""
    numbers = [extension.number for file in descriptors.files() for extension in file.extensions_by_name.values()]

    assert len(numbers) == len(set(numbers))
    assert all(50701 <= number <= 50799 for number in numbers)


@pytest.mark.parametrize("name", list(tables.deprecated()))
def test_what_is_deprecated_says_what_to_use(name: str) -> None:
    """At the beginning of its comment: `Use limits.`"""
    assert tables.instead(descriptors.comments()[name])


@pytest.mark.parametrize("file", descriptors.files(), ids=lambda file: file.name)
def test_a_deprecated_path_is_one_of_the_rpc_and_goes_on_for_a_year(file: FileDescriptor) -> None:
    """A path that is misspelt in the option would not be deprecated; the dates are real ones."""
    dates = file.GetOptions().Extensions[rest.deprecation]
    found = [
        (path, method)
        for service in file.services_by_name.values()
        for method in service.methods
        for path in method.GetOptions().Extensions[rest.deprecated_paths]
    ]

    for path, method in found:
        assert path in [bound for _, bound, _, _ in golden.bindings(method)], path
        assert not all(old for *_, old in golden.bindings(method)), path
    if found:
        assert (date.fromisoformat(dates.sunset) - date.fromisoformat(dates.since)).days >= 365


def test_a_table_is_replaced_where_it_stands() -> None:
    """The text around it stays, and filling it twice changes nothing."""
    document = "a\n" + "".join(
        f"<!-- {name}: written by make contract -->\nold\n<!-- end -->\nb\n"
        for name in ("extensions", "calls", "members")
    )

    once = tables.fill(document)

    assert once.startswith(
        "a\n<!-- extensions: written by make contract -->\n| number | option | of |\n|---|---|---|\n"
    )
    assert "old" not in once
    assert once.count("<!-- end -->\nb\n") == 3
    assert tables.fill(once) == once
