"""Which of EGL's devices is a GPU that is known by its UUID.

EGL numbers GPUs in its own way and ignores CUDA's variables; with several GPUs the first is seldom the one that a
session holds. It is asked by EGL_EXT_device_enumeration and EGL_EXT_device_persistent_id.
"""

from __future__ import annotations

import ctypes
import uuid
from typing import Any, Final

_DEVICE_UUID_EXT: Final = 0x335C
_MOST: Final = 64
_NUMBER: Final = ctypes.POINTER(ctypes.c_int)

QUERY_DEVICES: Final = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), _NUMBER)
QUERY_DEVICE_BINARY: Final = ctypes.CFUNCTYPE(
    ctypes.c_uint, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, _NUMBER
)


def device_index(name: str) -> int | None:
    """Return the index of `GPU-<uuid>` among EGL's devices; None where it is not there, or EGL is not."""
    try:
        wanted = uuid.UUID(name.removeprefix("GPU-")).bytes
    except ValueError:
        return None
    try:
        return index_of(ctypes.CDLL("libEGL.so.1"), wanted)
    except OSError:
        return None


def index_of(egl: Any, wanted: bytes) -> int | None:
    """Return which device of a loaded EGL has these 16 bytes as its UUID."""
    lookup = egl.eglGetProcAddress
    lookup.restype, lookup.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    addresses = [lookup(function) for function in (b"eglQueryDevicesEXT", b"eglQueryDeviceBinaryEXT")]
    if not all(addresses):
        return None
    listed, asked = QUERY_DEVICES(addresses[0]), QUERY_DEVICE_BINARY(addresses[1])
    devices, count = (ctypes.c_void_p * _MOST)(), ctypes.c_int(0)
    if not listed(_MOST, devices, ctypes.byref(count)):
        return None
    for index in range(min(count.value, _MOST)):
        found, size = ctypes.create_string_buffer(16), ctypes.c_int(0)
        answered = asked(devices[index], _DEVICE_UUID_EXT, 16, found, ctypes.byref(size))
        if answered and size.value == len(wanted) and found.raw == wanted:
            return index
    return None
