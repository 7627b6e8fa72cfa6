"""Which EGL device is a session's GPU (`render.egl`)."""

from __future__ import annotations

import ctypes
import uuid
from typing import Any

from footlights.viewer.render import egl

HELD = uuid.UUID("11111111-2222-3333-4444-555555555555")
OTHER = uuid.UUID("99999999-2222-3333-4444-555555555555")


class StandIn:
    """EGL with devices that have UUIDs; None is one that has none."""

    def __init__(self, devices: list[uuid.UUID | None], *, extended: bool = True) -> None:
        def listed(most: int, devices_out: Any, count_out: Any) -> int:
            for k in range(min(most, len(devices))):
                devices_out[k] = k + 1
            count_out[0] = len(devices)
            return 1

        def asked(device: int, name: int, most: int, value_out: int, size_out: Any) -> int:
            known = devices[device - 1]
            if known is None or name != 0x335C or most < 16:
                return 0
            ctypes.memmove(value_out, known.bytes, 16)
            size_out[0] = 16
            return 1

        self._kept = egl.QUERY_DEVICES(listed), egl.QUERY_DEVICE_BINARY(asked)

        def lookup(name: bytes) -> int | None:
            if not extended and name == b"eglQueryDeviceBinaryEXT":
                return None
            return ctypes.cast(self._kept[name != b"eglQueryDevicesEXT"], ctypes.c_void_p).value

        self.eglGetProcAddress = lookup


def test_the_device_is_found_by_its_uuid() -> None:
    """Wherever it is among the devices, one without a UUID among them."""
    assert egl.index_of(StandIn([OTHER, None, HELD]), HELD.bytes) == 2
    assert egl.index_of(StandIn([HELD]), HELD.bytes) == 0


def test_what_is_not_there_is_not_guessed() -> None:
    """Another GPU, an EGL that cannot say, a name that is none: the choice is left to EGL."""
    assert egl.index_of(StandIn([OTHER]), HELD.bytes) is None
    assert egl.index_of(StandIn([HELD], extended=False), HELD.bytes) is None
    assert egl.device_index("CPU-0") is None
    assert egl.device_index("") is None
