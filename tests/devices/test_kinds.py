"""The registry of device kinds: it has every kind of the protocol, and says what each is like."""

from __future__ import annotations

from footlights.v1.node_pb2 import Device

from footlights.devices.kinds import DeviceKind, traits_of_kind


def test_the_kinds_are_the_protocols() -> None:
    """Every kind can be told to the control plane, and every kind of the protocol is known here."""
    assert {kind.value for kind in DeviceKind} == set(Device.Kind.keys()) - {"KIND_UNSPECIFIED"}
    assert all(kind.traits for kind in DeviceKind)


def test_what_tells_them_apart() -> None:
    """GPUs are narrowed by their UUIDs, a software renderer is no hardware, a fake is simulated."""
    assert traits_of_kind("GPU").variables == traits_of_kind("MIG").variables != ()
    assert not traits_of_kind("SOFTWARE").hardware
    assert traits_of_kind("FAKE").simulated
    assert traits_of_kind("of a later release").hardware
