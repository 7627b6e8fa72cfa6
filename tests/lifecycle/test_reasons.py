"""The table of what the reason of a launch's end means: complete, consistent, and the only one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from footlights.devices.reading import DeviceHealth
from footlights.lifecycle import (
    REASONS,
    EndReason,
    Fault,
    LaunchFacts,
    LaunchState,
    Retry,
    SessionState,
    derive_state,
    is_a_try,
    meaning,
)
from footlights.lifecycle.derivation import MAX_LAUNCHES
from footlights.lifecycle.reasons import AT_ONCE, COUNTED, DEVICE_HISTORY
from footlights.lifecycle.states import Intent
from tests.sources import parsed

SOURCES: Final = Path(__file__).parents[2] / "src" / "footlights"
SENDERS: Final = (
    "agent/launches",
    "agent/devices/admission.py",
    "agent/main.py",
    "launch",
    "devices",
    "simulate/launch.py",
)
"""The code that gives launches the reasons of their ends."""
CALLS: Final = ("LaunchError", "LaunchEnding", "DeviceRefusal", "LaunchReport", "_rejected", "_conclude", "_reject")
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]+")
_OTHER: Final = {"EXITED", "READY", "STARTING", "STOPPING", "REJECTED", "FAILED"}


def sent() -> dict[str, Path]:
    """Return every reason that the code of agents gives, and a module that does."""
    modules = [
        path
        for name in SENDERS
        for path in ([SOURCES / name] if name.endswith(".py") else (SOURCES / name).rglob("*.py"))
    ]
    found = {text: path for path in modules for text in _in(parsed(path))}
    found |= {health.value: SOURCES / "devices" for health in (DeviceHealth.LOST, DeviceHealth.UNHEALTHY)}
    return found


def _in(tree: ast.AST) -> Iterator[str]:
    """Find what is passed as a reason, assigned to one, or stands for one in a message of the shim."""
    for each in ast.walk(tree):
        match each:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CALLS:
                values = [*each.args, *(keyword.value for keyword in each.keywords if keyword.arg == "reason")]
            case ast.Assign(targets=[ast.Name(id="reason")]):
                values = [each.value]
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="reason"), *_])], value=ast.Tuple(elts=[first, *_])):
                values = [first]
            case ast.Dict():
                values = [
                    value
                    for key, value in zip(each.keys, each.values, strict=True)
                    if getattr(key, "value", "") == "reason"
                ]
            case ast.Return(value=ast.Tuple(elts=[first, *_])):
                values = [first]
            case ast.Tuple(elts=[ast.Constant(value=int()), second, _]):
                values = [second]  # an exit status, what it means, and a text
            case _:
                continue
        for value in values:
            for part in ast.walk(value) if isinstance(value, ast.IfExp) else [value]:
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and _REASON.fullmatch(part.value):
                    yield part.value


def test_every_reason_that_an_agent_can_send_is_in_the_table() -> None:
    """Whoever adds one says there whose fault it is, and what is done; and nothing stands there that no agent sends."""
    known = {reason: path for reason, path in sent().items() if reason not in _OTHER}

    assert {reason: str(path) for reason, path in known.items() if reason not in REASONS} == {}
    assert set(REASONS) - set(known) - {""} == set()


def test_whoever_decides_on_a_reason_reads_the_table() -> None:
    """No other module of the control plane knows the name of one: neither placing, nor the store, nor what is shown."""
    names = set(REASONS) - {"", "STOPPED", "LOST", "UNHEALTHY"}  # which say other things as well
    modules = [path for name in ("control", "store", "lifecycle") for path in (SOURCES / name).rglob("*.py")]
    named = {
        f"{path.relative_to(SOURCES)}: {each.value}"
        for path in modules
        if path.name not in ("reasons.py", "states.py")
        for each in ast.walk(parsed(path))
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value in names
    }

    assert named == set()


@pytest.mark.parametrize("reason", REASONS)
def test_what_a_reason_means_is_consistent(reason: str) -> None:
    """What is tried elsewhere is left alone at its first failure, and what is nobody's fault never is."""
    what = meaning(reason)

    assert what.says
    assert (what.retry is not Retry.ELSEWHERE) or what.back_off is AT_ONCE
    assert (what.retry is Retry.ELSEWHERE) <= (what.fault in (Fault.NODE, Fault.DEVICE, Fault.PLACE))
    assert (what.fault in (Fault.NOBODY, Fault.APPLICATION)) == (what.back_off is None)
    assert (reason in COUNTED) == (what.back_off is not None)
    assert what.given <= (what.fault in (Fault.PLACE, Fault.VERSION))
    assert (reason in DEVICE_HISTORY) <= (what.fault is Fault.DEVICE)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("state", [LaunchState.FAILED, LaunchState.REJECTED])
def test_a_session_is_placed_again_a_bounded_number_of_times_and_ends_with_a_reason(
    reason: str, state: LaunchState
) -> None:
    """Before the application ran it is the node's; each try counts, and the last one ends it."""
    facts, failures = LaunchFacts(state, reason=reason), 0
    while (derived := derive_state(Intent.RUN, None, facts, failures=failures)).state is SessionState.PENDING:
        if not is_a_try(facts):
            break
        failures += 1

    if derived.state is SessionState.PENDING:
        assert state is LaunchState.REJECTED
    else:
        assert failures == (MAX_LAUNCHES - 1 if is_a_try(facts) else 0)
        assert derived.end_reason is meaning(reason).end
        assert derived.message


def test_what_an_application_says_is_its_own() -> None:
    """It blames nobody, and ends the session."""
    derived = derive_state(Intent.RUN, None, LaunchFacts(LaunchState.FAILED, reason="NO_LICENSE", message="none left"))

    assert meaning("NO_LICENSE").fault is Fault.APPLICATION
    assert (derived.end_reason, derived.message) == (EndReason.LAUNCH_FAILED, "none left")
