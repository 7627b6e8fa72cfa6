"""Who calls, and under which request id: set by the interceptor, read by servicers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from footlights.auth.roles import Caller


@dataclass(frozen=True, slots=True)
class Call:
    """One call under way."""

    caller: Caller
    request_id: str
    idempotency_key: str = ""


_current: ContextVar[Call] = ContextVar("footlights_call")


def current() -> Call:
    """Return the call that this code runs for. Raises LookupError outside of one."""
    return _current.get()


def enter(call: Call) -> None:
    """Make ``call`` the current one for the rest of this task."""
    _current.set(call)
