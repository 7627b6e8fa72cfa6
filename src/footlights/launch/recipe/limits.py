"""The limits of a version, a profile and a session: checks, and which of them apply. Pure.

A limit of a session replaces the profile's, that of a profile the version's, that of a version the default, one by one;
so does the word that there is none (``unlimited``). Limits that apply have each limit set or named in ``unlimited``.
None of them is more than the installation's cap; ``capped`` names those that would have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from footlights.errors import InvalidArgument, Reason, Violations
from footlights.launch.recipe.checks import MAX_DURATION_S
from footlights.lifecycle import TimeLimits
from footlights.protocol.durations import parse_duration
from footlights.protocol.times import duration, seconds
from footlights.v1.application_pb2 import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from footlights.agent.v1 import recipe_pb2

MAX_GRACE_S: Final = 3600
_LEAST_S: Final = 0.001

NAMES: Final = tuple(field.name for field in Limits.DESCRIPTOR.fields if field.message_type is not None)
ALWAYS: Final = ("start_timeout", "stop_grace_period")
"""Limits that every session has: without them a launch could hold its slots without an end."""

MAY_BE_UNLIMITED: Final = tuple(name for name in NAMES if name not in ALWAYS)

DEFAULTS_S: Final[Mapping[str, float]] = MappingProxyType(
    {"start_timeout": 900.0, "stop_grace_period": 10.0, "queue_timeout": 1800.0}
)
"""Limits that neither version nor profile sets, in seconds (a cold shader cache takes 15 minutes)."""


def limit_s(limits: Limits | recipe_pb2.Limits, name: str) -> float | None:
    """Return a limit in seconds; None where there is none."""
    return seconds(getattr(limits, name)) if limits.HasField(name) else None  # type: ignore[arg-type]


def time_limits(applied: Limits | recipe_pb2.Limits) -> TimeLimits:
    """Return the limits of a ready session as the lifecycle takes them."""
    return TimeLimits(
        never_connected_s=limit_s(applied, "never_connected_timeout"),
        idle_s=limit_s(applied, "idle_timeout"),
        max_s=limit_s(applied, "max_duration"),
        unresponsive_s=limit_s(applied, "unresponsive_timeout"),
        reconnect_s=limit_s(applied, "reconnect_timeout"),
    )


def check(field: str, limits: Limits, *, reason: Reason | None = None) -> None:
    """Check limits as they are given.

    Args:
        field: Their path in the request.
        limits: The limits.
        reason: The reason of everything that is wrong; None: each has its own.

    Raises:
        InvalidArgument: With all that is wrong.
    """
    violations = Violations()
    for name in NAMES:
        most = MAX_GRACE_S if name == "stop_grace_period" else MAX_DURATION_S
        value = limit_s(limits, name)
        if value is not None and not _LEAST_S <= value <= most:
            bound = f"more than 0s (got {value:g}s)" if value < 1 else f"at most {most}s (got {value:.0f}s)"
            with violations:
                raise _refused(_path(field, name), f"must be {bound}.", reason or Reason.OUT_OF_RANGE)
    for name in limits.unlimited:
        if name not in MAY_BE_UNLIMITED:
            text = f"{name!r} cannot be unlimited; choose from {', '.join(MAY_BE_UNLIMITED)}."
            with violations:
                raise _refused(
                    _path(field, "unlimited"), text, reason or Reason.NOT_ALLOWED, {} if reason else {"value": name}
                )
        elif limit_s(limits, name) is not None:
            text = "is set, and named in unlimited. Give one of them."
            with violations:
                raise _refused(_path(field, name), text, reason or Reason.VALUE_CONFLICT)
    violations.refuse()


def override(limits: Limits, by: Limits) -> None:
    """Replace each limit that ``by`` sets or names as unlimited; the others stay."""
    for name in NAMES:
        if (name in by.unlimited or by.HasField(name)) and name in limits.capped:  # type: ignore[arg-type]
            limits.capped.remove(name)
        if name in by.unlimited:
            limits.ClearField(name)  # type: ignore[arg-type]
            _name_unlimited(limits, name, unlimited=True)
        elif by.HasField(name):  # type: ignore[arg-type]
            getattr(limits, name).CopyFrom(getattr(by, name))
            _name_unlimited(limits, name, unlimited=False)


@dataclass(frozen=True, slots=True)
class InstallationLimits:
    """What an operator sets for all sessions: limits where version and profile set none, and the most there may be."""

    defaults_s: Mapping[str, float] = field(default_factory=lambda: DEFAULTS_S)
    caps_s: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, defaults: Iterable[str], caps: Iterable[str]) -> InstallationLimits:
        """Read settings, each ``NAME=DURATION``. Raises InvalidArgument: names the setting, the value and the fix."""
        set_s, caps_s = _parse("limit_defaults", defaults), _parse("limit_caps", caps)
        for name, cap_s in caps_s.items():
            if set_s.get(name, 0.0) > cap_s:
                text = f"{name}={set_s[name]:g}s is more than the {cap_s:g}s of --limit-caps. Give at most that."
                raise InvalidArgument("limit_defaults", text)
        return cls({**DEFAULTS_S, **set_s}, caps_s)

    def complete(self, limits: Limits) -> None:
        """Fill in the defaults, apply the caps, and name what is unlimited: what is left are limits that apply."""
        for name, default_s in self.defaults_s.items():
            if not limits.HasField(name) and name not in limits.unlimited:  # type: ignore[arg-type]
                getattr(limits, name).CopyFrom(duration(default_s))
        capped = [name for name, cap_s in self.caps_s.items() if not _is_within(limits, name, cap_s)]
        for name in capped:
            getattr(limits, name).CopyFrom(duration(self.caps_s[name]))
        limits.capped[:] = sorted(capped)
        limits.unlimited[:] = [name for name in MAY_BE_UNLIMITED if not limits.HasField(name)]  # type: ignore[arg-type]


def _parse(setting: str, texts: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in (part.strip() for given in texts for part in given.split(",") if part.strip()):
        name, _, span = text.partition("=")
        if name not in NAMES:
            raise InvalidArgument(setting, f"unknown limit {name!r} in {text!r}; choose from {', '.join(NAMES)}.")
        most = MAX_GRACE_S if name == "stop_grace_period" else MAX_DURATION_S
        try:
            value = parse_duration(span)
        except ValueError as error:
            raise InvalidArgument(setting, f"{text!r}: {error}") from None
        if not _LEAST_S <= value <= most:
            raise InvalidArgument(setting, f"{text!r}: must be more than 0s and at most {most}s.")
        found[name] = value
    return found


def _is_within(limits: Limits, name: str, cap_s: float) -> bool:
    value = limit_s(limits, name)
    return value is not None and value <= cap_s


def narrow(limits: Limits, asked: Limits, *, within: Limits | None = None, field: str = "") -> None:
    """Change limits that apply to what a session asks for.

    Args:
        limits: The limits that are changed.
        asked: What is asked for; a limit that it does not mention stays.
        within: What is allowed at most; the limits themselves where it is not given.
        field: The path of ``asked`` in the request.

    Raises:
        InvalidArgument: A limit is out of bounds, or more than is allowed.
    """
    check(field, asked)
    for name in NAMES:
        allowed, value = limit_s(within or limits, name), limit_s(asked, name)
        unlimited = name in asked.unlimited
        if allowed is None or not (unlimited or (value is not None and value > allowed)):
            continue
        shown = "unlimited" if unlimited else f"{value:g}s"
        who = "installation" if name in (within or limits).capped else "version or profile"
        raise InvalidArgument(
            _path(field, name),
            f"{shown} is more than the {allowed:g}s that the {who} allows. Give at most that.",
            reason=Reason.ABOVE_LIMIT,
            metadata={"limit": name, "value": shown, "allowed": f"{allowed:g}s"},
        )
    override(limits, asked)


def _refused(field: str, problem: str, reason: Reason, metadata: Mapping[str, str] | None = None) -> InvalidArgument:
    return InvalidArgument(field, problem, reason=reason, metadata=metadata)


def _path(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _name_unlimited(limits: Limits, name: str, *, unlimited: bool) -> None:
    others = [known for known in limits.unlimited if known != name]
    limits.unlimited[:] = [*others, name] if unlimited else others
