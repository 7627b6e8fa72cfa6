"""GPUs picked with NVML, on the stand-in library: the real binding in a real agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from footlights.devices.fake_state import GIB, FakeGpu, FakeProcess, FakeState
from footlights.devices.foreign import pids_are_the_hosts
from footlights.devices.reading import ProcessKind
from tests.devices.standin import Standin, build
from tests.system.stack import Stack, until

ONE, TWO = "GPU-00000000-0000-0000-0000-000000000001", "GPU-00000000-0000-0000-0000-000000000002"


@pytest.fixture
def machine(tmp_path: Path) -> Standin:
    """A machine with two L40S."""
    machine = Standin(build(), tmp_path / "gpus.state")
    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE), FakeGpu(uuid=TWO))))
    return machine


async def start(stack: Stack, machine: Standin) -> None:
    await stack.start_agent("gpu-node", "--launchers", "fake", "--devices", "nvml", environment=machine.environment)
    version = {"version": "1.0.0", "fake": {}, "needs": {"gpu": True, "min_memory_bytes": str(16 * GIB)}}
    await stack.put("/applications/gpu", {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}})


async def devices(stack: Stack) -> dict[str, dict[str, Any]]:
    node = await stack.get("/nodes/gpu-node")
    return {device["uuid"]: device for device in node["devices"]}


async def test_the_api_shows_what_nvml_says(stack: Stack, machine: Standin) -> None:
    """Uuid, name, memory and health of every GPU are in the API, and the driver's version with them."""
    await start(stack, machine)

    found = await devices(stack)

    assert set(found) == {ONE, TWO}
    assert {device["name"] for device in found.values()} == {"NVIDIA L40S"}
    assert {device["kind"] for device in found.values()} == {"GPU"}
    assert {device["memory_total_bytes"] for device in found.values()} == {str(48 * GIB)}
    assert (await stack.get("/nodes/gpu-node"))["facts"]["driver_version"]


@pytest.mark.skipif(
    pids_are_the_hosts() is not True, reason="in a pid namespace of its own an agent cannot tell who is on a GPU"
)
async def test_a_gpu_in_use_by_somebody_else_is_not_taken(stack: Stack, machine: Standin) -> None:
    """A foreign compute process keeps sessions off its GPU; with both taken they wait, and the reason says why."""
    taken = FakeProcess(pid=1, used_memory_bytes=3 * GIB, name="python")
    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE, processes=(taken,)), FakeGpu(uuid=TWO))))
    await start(stack, machine)

    first = await stack.session_in((await stack.post("/stream", {"application": "gpu"}))["session_id"], "READY")
    second = (await stack.post("/stream", {"application": "gpu"}))["session_id"]

    assert first["device"] == TWO

    async def explained() -> Any:
        session = await stack.get(f"/stream/{second}")
        return session if any("FOREIGN_PROCESS" in reason for reason in session["queue"]["reasons"]) else None

    await until(explained, what="the queue says FOREIGN_PROCESS")
    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE), FakeGpu(uuid=TWO))))
    assert (await stack.session_in(second, "READY"))["device"] == ONE


async def test_a_desktop_is_not_foreign(stack: Stack, machine: Standin) -> None:
    """A small graphics process, such as an X server, does not keep sessions away."""
    desktop = FakeProcess(pid=1, kind=ProcessKind.GRAPHICS, used_memory_bytes=90 << 20, name="Xorg")
    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE, processes=(desktop,)),)))
    await start(stack, machine)

    session = await stack.session_in((await stack.post("/stream", {"application": "gpu"}))["session_id"], "READY")

    assert session["device"] == ONE


async def test_too_little_memory_waits_and_says_so(stack: Stack, machine: Standin) -> None:
    """A GPU with less free memory than the version needs is not taken; the explanation has both figures."""
    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE, memory_used_bytes=37 * GIB),)))
    await start(stack, machine)

    explained = await stack.post("/stream:explain", {"application": "gpu"})

    (verdict,) = explained["nodes"][0]["devices"]
    assert verdict["reason"] == "MEMORY"
    assert "11.0<16.0 GiB" in verdict["message"]


async def test_a_gpu_that_falls_off_the_bus_ends_its_session_only(stack: Stack, machine: Standin) -> None:
    """A lost GPU ends the session on it as GPU_LOST; the session on the other goes on; the API says which and why."""
    await start(stack, machine)
    ids = [(await stack.post("/stream", {"application": "gpu"}))["session_id"] for _ in range(2)]
    sessions = [await stack.session_in(session_id, "READY") for session_id in ids]
    on = {session["device"]: session["session_id"] for session in sessions}

    machine.set(FakeState(gpus=(FakeGpu(uuid=ONE, lost=True), FakeGpu(uuid=TWO))))
    ended = await stack.session_in(on[ONE], "FAILED")

    assert ended["end_reason"] == "GPU_LOST"
    assert (await stack.get(f"/stream/{on[TWO]}"))["state"] == "READY"
    found = await devices(stack)
    assert found[ONE]["health"] == "LOST"
    assert found[ONE]["health_reasons"]
    assert found[TWO]["health"] == "OK"
