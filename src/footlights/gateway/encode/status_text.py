"""Statuses as the JSON of an error."""

from __future__ import annotations

import json
from typing import Final, Protocol

from google.rpc import code_pb2, error_details_pb2, status_pb2

from footlights.gateway.encode.writer import WriteError, Writer

_INTERNAL: Final = 13


class ErrorWriter(Protocol):
    """Prints statuses in one dialect."""

    def write(self, status: status_pb2.Status, request_id: str) -> tuple[bytes, bool]:
        """Return a status as JSON, and whether that was possible."""

    def http_status(self, wanted: int) -> int:
        """Return the HTTP status of an error for which google.rpc's is ``wanted``."""


class DetailWriter:
    """Prints statuses as FastAPI does: ``{"detail": message}``, and 422 for what is wrong with a request."""

    def write(self, status: status_pb2.Status, _request_id: str) -> tuple[bytes, bool]:
        """See `ErrorWriter`."""
        return json.dumps({"detail": status.message}, ensure_ascii=False).encode("utf-8", "replace"), True

    def http_status(self, wanted: int) -> int:
        """See `ErrorWriter`."""
        return 422 if wanted == 400 else wanted


class StatusWriter:
    """Prints statuses as google.rpc's JSON.

    Args:
        writer: Prints the message.
        with_name: Add the member ``status`` with the name of the code, as Google's APIs do.
        domain: Add an ErrorInfo of this domain to a status that has none; empty adds none.
    """

    def __init__(self, writer: Writer, *, with_name: bool, domain: str = "") -> None:
        self._writer, self._with_name, self._domain = writer, with_name, domain

    def write(self, status: status_pb2.Status, request_id: str) -> tuple[bytes, bool]:
        """See `ErrorWriter`."""
        try:
            return self._text(status, request_id), True
        except WriteError:
            return self._text(status_pb2.Status(code=_INTERNAL, message="the error has no JSON"), request_id), False

    def http_status(self, wanted: int) -> int:
        """See `ErrorWriter`."""
        return wanted

    def _text(self, status: status_pb2.Status, request_id: str) -> bytes:
        text = self._writer.write(self._with_info(status, request_id) if self._domain else status)
        if self._with_name:
            # The code is the first member, whatever it is.
            code, _, rest = text.partition(",")
            text = f'{code},"status":"{_name(status.code)}",{rest}'
        return text.encode("utf-8", "surrogatepass")

    def _with_info(self, status: status_pb2.Status, request_id: str) -> status_pb2.Status:
        """Return a status with an ErrorInfo that says no more than its code, where its maker gave it none."""
        if any(detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in status.details):
            return status
        found = status_pb2.Status()
        found.CopyFrom(status)
        metadata = {"request_id": request_id} if status.code == _INTERNAL else {}
        info = error_details_pb2.ErrorInfo(reason=_name(status.code), domain=self._domain, metadata=metadata)
        found.details.add().Pack(info)
        return found


def _name(code: int) -> str:
    found = code_pb2.Code.DESCRIPTOR.values_by_number.get(code)
    return "UNKNOWN" if found is None else found.name
