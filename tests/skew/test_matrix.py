"""The page of what is tested one release apart says what the tests are."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.skew.matrix import PAGE, ROWS, page
from tests.sources import parsed

TESTS = Path(__file__).parents[1]
ABOUT_ITSELF = {"skew/test_matrix.py"}


def names_in(path: Path) -> set[str]:
    """Return the names of the tests in a file."""
    return {
        node.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_the_page_is_written_from_the_list() -> None:
    """Write it with ``python -m tests.skew.matrix``."""
    assert PAGE.read_text() == page()


def test_each_row_is_a_test_and_each_test_a_row() -> None:
    """No result is claimed that nothing shows, and none is left out."""
    named = {row.test for row in ROWS}
    missing = {test for test in named if test.partition("::")[2] not in names_in(TESTS / test.partition("::")[0])}
    ours = {
        f"skew/{path.name}::{name}"
        for path in (TESTS / "skew").glob("test_*.py")
        if f"skew/{path.name}" not in ABOUT_ITSELF
        for name in names_in(path)
    }

    assert missing == set()
    assert ours - named == {"skew/test_invented_answers.py::test_every_call_that_answers_with_an_enum_is_covered"}
