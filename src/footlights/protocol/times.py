"""Times and durations: Python's types to protobuf's `Timestamp` and `Duration`, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime) -> Timestamp:
    """Return an aware moment as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def moment(message: Timestamp) -> datetime:
    """Return a timestamp as an aware moment in UTC, to the microsecond."""
    return message.ToDatetime(UTC)


def unix_seconds(message: Timestamp) -> float:
    """Return a timestamp as seconds since 1970."""
    return _to_float(message)


def duration(seconds: float) -> Duration:
    """Return a number of seconds as a message, to the microsecond."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def seconds(message: Duration) -> float:
    """Return a duration in seconds."""
    return _to_float(message)


def _to_float(message: Timestamp | Duration) -> float:
    # Whole numbers are divided to the nearest float there is; a sum of floats is rounded twice.
    return (message.seconds * 1_000_000_000 + message.nanos) / 1_000_000_000
