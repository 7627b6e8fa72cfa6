"""Statuses as the JSON of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.rpc import code_pb2

from footlights.gateway.encode.writer import WriteError, Writer

if TYPE_CHECKING:
    from google.rpc import status_pb2

_NO_JSON: Final = b'{"code":13,"message":"the error has no JSON"}'


class StatusWriter:
    """Prints statuses.

    Args:
        writer: Prints the message.
        with_name: Add the member ``status`` with the name of the code, as Google's APIs do.
    """

    def __init__(self, writer: Writer, *, with_name: bool) -> None:
        self._writer, self._with_name = writer, with_name

    def write(self, status: status_pb2.Status) -> tuple[bytes, bool]:
        """Return a status as JSON, and whether that was possible."""
        try:
            text = self._writer.write(status)
        except WriteError:
            return _NO_JSON, False
        if self._with_name:
            # The code is the first member, whatever it is.
            code, _, rest = text.partition(",")
            text = f'{code},"status":"{_name(status.code)}",{rest}'
        return text.encode("utf-8", "surrogatepass"), True


def _name(code: int) -> str:
    found = code_pb2.Code.DESCRIPTOR.values_by_number.get(code)
    return "UNKNOWN" if found is None else found.name
