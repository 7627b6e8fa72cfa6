"""Who is tested with whom, one release apart: the content of `docs/skew.md`. ``python -m tests.skew.matrix`` writes it.

A row names the test that shows its result. Every test of this folder has a row (`test_matrix`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "skew.md"

_HEAD: Final = """\
# Releases side by side

<!-- Written by python -m tests.skew.matrix from tests/skew/matrix.py: change it there. -->

An upgrade runs two releases at once: servers on one database, agents that are not upgraded yet, clients that nobody
asked. Each works with the release before and the one after. "This" is the release of this document, "before" the one
before it; its code comes from git, and both run as real processes. "Later" is a release that does not exist yet: its
part is taken by values that nobody knows, one in each enum of the API, as text in rows and as numbers in messages.
"""

_FOOT: Final = """\
What is not known is shown, not guessed: an enum is unspecified over the API, with its text in `unknown_values` of a
session, and its number in the SDK and the command line. A living session with a state, a condition or an intent of a
later release belongs to the server that wrote it: others neither place, end nor change it, refuse calls that would
(`SESSION_OF_LATER_RELEASE`), and log `session_of_later_release` once.

Releases that are two or more apart are not tested, and nothing is promised of them.
"""


@dataclass(frozen=True, slots=True)
class SkewRow:
    """One direction that is tested."""

    who: str
    whom: str
    what: str
    result: str
    test: str
    """The path of the test's file below `tests/` and its name, joined by `::`."""


_ROWS, _ANSWERS = "skew/test_invented_rows.py", "skew/test_invented_answers.py"
_RELEASES, _ASSIGNMENTS = "skew/test_releases.py", "skew/test_invented_assignments.py"

ROWS: Final = (
    SkewRow(
        "SDK before",
        "server this",
        "every call that the SDK has, through a session's life",
        "works",
        f"{_RELEASES}::test_the_sdk_of_the_release_before_works_with_this_server",
    ),
    SkewRow(
        "SDK this",
        "server before",
        "every call that both have; one that the server lacks",
        "works; `SERVER_TOO_OLD` says what to do",
        f"{_RELEASES}::test_this_sdk_works_with_the_server_of_the_release_before",
    ),
    SkewRow(
        "command line before",
        "server this",
        "create, list, show, connect, extend, explain, terminate; nodes, apps, tokens",
        "works",
        f"{_RELEASES}::test_the_command_line_of_the_release_before_works_with_this_server",
    ),
    SkewRow(
        "command line this",
        "server before",
        "the same",
        "works",
        f"{_RELEASES}::test_this_command_line_works_with_the_server_of_the_release_before",
    ),
    SkewRow(
        "server before and this",
        "one database, agents before and this",
        "both at once: sessions created, placed, shown and ended through either; then the old server and agent go",
        "works",
        "system/test_upgrade.py::test_the_released_version_and_this_one_work_side_by_side",
    ),
    SkewRow(
        "server before",
        "database this",
        "a start after the migration",
        "refuses with the reason, and changes nothing",
        f"{_RELEASES}::test_the_release_before_refuses_a_database_that_this_one_has_migrated",
    ),
    SkewRow(
        "server before",
        "rows this",
        "limits that do not apply, as they are stored",
        "reads them as no limit; a queue timeout as one year",
        "control/services/test_create.py::test_limits_are_stored_as_a_replica_of_the_release_before_reads_them",
    ),
    SkewRow(
        "agent before",
        "server this",
        "structured mounts of a container",
        "gets them in the form that it knows",
        "control/services/test_create.py::test_structured_mounts_reach_agents_of_both_releases",
    ),
    SkewRow(
        "agent before",
        "server this",
        "a version with `container.entrypoint`, which it would not keep to",
        "waits for a node whose agent knows it; all other versions are placed",
        "control/services/test_create.py::test_an_entry_point_of_its_own_waits_for_an_agent_that_knows_it",
    ),
    SkewRow(
        "agent before",
        "server this",
        "a session whose server is not at its node's host",
        "its routes have two hosts, and `routes_message` says to install this release",
        "control/test_routes.py::test_where_it_cannot_the_reason_is_said",
    ),
    SkewRow(
        "agent this",
        "server before",
        "a version whose application takes a relay",
        "ready without one; nothing is asked that the server does not know",
        "agent/test_relays.py::test_a_control_plane_of_the_release_before_is_not_asked",
    ),
    SkewRow(
        "server this",
        "rows later",
        "an unknown value in each column of a session or launch: list, get, watch, place, drain, expire, terminate",
        "shown; the session is left alone, all others are handled",
        f"{_ROWS}::test_a_value_of_a_later_release_is_shown_and_its_session_left_alone",
    ),
    SkewRow(
        "server this",
        "rows later",
        "a session that waits",
        "not placed, no queue timeout; the next one gets the device",
        f"{_ROWS}::test_a_waiting_session_of_a_later_release_is_not_placed",
    ),
    SkewRow(
        "server this",
        "rows later",
        "an end reason, a stage of the timeline",
        "shown with their text; handled as any other",
        f"{_ROWS}::test_an_end_and_a_stage_of_a_later_release_are_shown_with_their_text",
    ),
    SkewRow(
        "server this",
        "rows later",
        "connecting to a session in an unknown state",
        "`SESSION_NOT_READY`",
        f"{_ROWS}::test_connecting_to_a_session_in_a_state_of_a_later_release_is_no_defect",
    ),
    SkewRow(
        "server this",
        "rows later",
        "a token's role",
        "listed; its holder is refused with `ROLE_UNKNOWN`",
        f"{_ROWS}::test_a_role_of_a_later_release_is_listed_and_refused",
    ),
    SkewRow(
        "server this",
        "rows later",
        "an unknown number in each enum of recipes and devices",
        "shown; a version with an unknown argument type is not started",
        f"{_ROWS}::test_a_number_of_a_later_release_in_a_stored_message_fails_nothing",
    ),
    SkewRow(
        "server this",
        "agent later",
        "a device at an unknown health",
        "not placed on, with the number as the reason",
        f"{_ROWS}::test_a_device_at_a_health_of_a_later_release_is_not_placed_on",
    ),
    SkewRow(
        "server this",
        "agent later",
        "a launch in an unknown state, in a hello and later",
        "skipped; the link holds",
        f"{_ROWS}::test_a_report_in_a_state_of_a_later_release_is_skipped",
    ),
    SkewRow(
        "agent this",
        "server later",
        "an assignment that wants something unknown",
        "what runs goes on; nothing is started",
        f"{_ASSIGNMENTS}::test_what_an_agent_does_not_know_to_do_changes_nothing",
    ),
    SkewRow(
        "agent this",
        "server later",
        "an unknown number in each enum of a recipe",
        "starts, or is reported as failed; the next one starts",
        f"{_ASSIGNMENTS}::test_a_recipe_with_an_unknown_value_runs_or_fails_alone",
    ),
    SkewRow(
        "SDK this",
        "server later",
        "an unknown number in each enum of each answer",
        "returned as it came",
        f"{_ANSWERS}::test_the_sdk_returns_a_value_that_it_does_not_know",
    ),
    SkewRow(
        "SDK this",
        "server later",
        "waiting through an unknown state",
        "goes on waiting",
        f"{_ANSWERS}::test_waiting_for_a_session_goes_on_through_states_that_are_not_known",
    ),
    SkewRow(
        "SDK this",
        "server later",
        "a session that ended in an unknown state",
        "has ended: its time says so",
        f"{_ANSWERS}::test_a_session_that_ended_in_a_state_that_is_not_known_has_ended",
    ),
    SkewRow(
        "command line this",
        "server later",
        "an unknown number in each enum of each answer, as a table and as JSON",
        "shown by its number",
        f"{_ANSWERS}::test_the_command_line_shows_a_value_that_it_does_not_know",
    ),
)


def page() -> str:
    """Return the page."""
    rows = [f"| {row.who} | {row.whom} | {row.what} | {row.result} | {_link(row.test)} |" for row in ROWS]
    table = "\n".join(["| who | with | what is tested | result | test |", "|---|---|---|---|---|", *rows])
    return f"{_HEAD}\n{table}\n\n{_FOOT}"


def _link(test: str) -> str:
    path, _, _ = test.partition("::")
    return f"[`{path}`](../tests/{path})"


if __name__ == "__main__":
    PAGE.write_text(page())
