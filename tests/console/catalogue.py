"""What the stand-in server has: applications, versions, profiles, and a fleet with every kind of trouble."""

from __future__ import annotations

import zlib
from typing import Any

Json = dict[str, Any]
GIB = 1 << 30


def _application(name: str, title: str, description: str, releases: dict[str, str], *tags: str) -> Json:
    times = {"created_time": "2026-11-01T08:00:00Z"}
    labels = {"display_name": title, "description": description, "tags": list(tags), "releases": releases}
    return {"application": name} | labels | times


APPLICATIONS: list[Json] = [
    _application(
        "usd-viewer",
        "USD Viewer",
        "Opens a USD stage and streams it: the reference application.",
        {"default": "1.4.0", "next": "1.5.0-rc.1"},
        "usd",
        "reference",
    ),
    _application("kit-explorer", "Kit Explorer", "USD Explorer on Kit 108.", {"default": "108.0.1"}, "kit"),
    _application("crasher", "Crasher", "Fails after its process is up.", {"default": "1.0.0"}),
    _application("huge", "Huge", "Needs more memory than there is.", {"default": "1.0.0"}),
    _application("slow", "Slow", "Takes its time to start.", {"default": "1.0.0"}),
]


def _argument(name: str, kind: str, description: str, **members: Any) -> Json:
    return {"name": name, "type": kind, "description": description, "required": False, "allowed_values": []} | members


ARGUMENTS: list[Json] = [
    _argument("quality", "STRING", "How it is drawn.", allowed_values=["fast", "fine"], default_value="fast"),
    _argument("speed", "NUMBER", "How fast it turns.", minimum=0, maximum=10, default_value=1),
    _argument("grid", "BOOLEAN", "Whether a grid is drawn.", default_value=False),
]


def _version(application: str, version: str, description: str, arguments: list[Json]) -> Json:
    viewer = ["footlights-viewer", "--stage", "{usd_stage_uri}", "--signal-port", "{signal_port}", "--grid", "{grid}"]
    limits = {"start_timeout": "900s", "idle_timeout": "900s", "max_duration": "28800s", "queue_timeout": "1800s"}
    return {
        "application": application,
        "version": version,
        "created_time": "2026-11-20T09:30:00Z",
        "description": description,
        "command": viewer,
        "environment": {"PYTHONUNBUFFERED": "1"},
        "container": None,
        "fake": None,
        "arguments": arguments,
        "default_usd_stage_uri": "/srv/stages/theatre.usda",
        "allowed_stage_roots": ["/srv/stages", "https://assets.example.com/"],
        "needs": {"slots": 1, "min_memory_bytes": str(2 * GIB), "gpu": False, "graphics": True, "node_labels": {}},
        "limits": limits,
        "signaling": {"websocket_path": "/sign_in"} if application == "kit-explorer" else {"whep_path": "/whep"},
    }


VERSIONS: dict[str, list[Json]] = {
    "usd-viewer": [
        _version("usd-viewer", "1.5.0-rc.1", "Draws curves.", ARGUMENTS),
        _version("usd-viewer", "1.4.0", "Reads instances and subsets.", ARGUMENTS),
        _version("usd-viewer", "1.3.2", "", []),
    ],
    "kit-explorer": [_version("kit-explorer", "108.0.1", "Kit 108.0.", [])],
    "crasher": [_version("crasher", "1.0.0", "", [])],
    "huge": [_version("huge", "1.0.0", "", [])],
    "slow": [_version("slow", "1.0.0", "", [])],
}

PROFILES: list[Json] = [
    {"profile": "large", "display_name": "Large", "description": "A whole GPU with 40 GiB.", "matches": []},
]


POOLS: list[Json] = [
    {
        "pool": "viewer-goal",
        "application": "usd-viewer",
        "resolved_version": "1.4.2",
        "wait_goal": "5s",
        "wanted_count": 3,
        "ready_count": 1,
        "starting_count": 0,
        "status_message": "No slot is free for another one: NO_SLOT: 4 devices.",
    },
    {
        "pool": "other",
        "application": "kit",
        "size": 2,
        "wanted_count": 2,
        "ready_count": 2,
        "starting_count": 0,
    },
]


def fleet(nodes: int) -> list[Json]:
    """Nodes by name: the first three have GPUs and their troubles, the rest repeats them."""
    makers = [_busy, _troubled, _laptop, _far]
    return [makers[number % len(makers)](f"stage-{_letters(number)}") for number in range(nodes)]


def _letters(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{number:04d}"


def _device(node: str, index: int, name: str, gib: int, **members: Any) -> Json:
    free = int(gib * GIB * 0.92)
    figures = {"memory_total_bytes": str(gib * GIB), "memory_free_bytes": str(free), "utilization_percent": 0}
    device: Json = {
        "uuid": f"GPU-{zlib.crc32(f'{node}/{index}'.encode()):08x}-7d1c-4f0a-9b2e-{index:012x}",
        "kind": "GPU",
        "name": name,
        "index": index,
        "encoder_sessions": 0,
        "graphics": True,
        "encoder": True,
        "health": "OK",
        "health_reasons": [],
        "parent_uuid": "",
        "mig_profile": "",
        "pci_bus_id": f"0000:{0x17 + index * 16:02X}:00.0",
        "slots": 1,
        "slots_leased": 0,
        "foreign_processes": [],
        "processes_known": True,
        "note": "",
        "sessions": [],
    }
    return device | figures | members


def _node(name: str, devices: list[Json], **members: Any) -> Json:
    facts = {
        "hostname": name,
        "os": "Ubuntu 24.04",
        "agent_version": "0.1.0",
        "driver_version": "580.95.05",
        "public_address": "203.0.113.10",
        "launchers": ["process", "container"],
        "labels": {"zone": "a", "rack": "7"},
        "notes": [],
        "port_blocks": 100,
    }
    node: Json = {
        "node": name,
        "state": "READY",
        "devices": devices,
        "connected_time": "2026-11-22T20:00:00Z",
        "last_seen_time": "2026-11-23T02:00:00Z",
        "drain_time": None,
        "session_count": sum(device["slots_leased"] for device in devices),
        "epoch": "4",
    }
    return node | members | {"facts": facts | members.get("facts", {})}


def _busy(name: str) -> Json:
    taken = {"memory_free_bytes": str(19 * GIB), "utilization_percent": 64, "slots_leased": 1, "encoder_sessions": 1}
    session = {"sessions": ["0198a7c2-0001-7abc-9def-0000c0ffee01"]}
    return _node(
        name,
        [
            _device(name, 0, "NVIDIA L40S", 48, slots=4, **(taken | session)),
            _device(name, 1, "NVIDIA L40S", 48, slots=4, **(taken | {"slots_leased": 4, "encoder_sessions": 4})),
            _device(name, 2, "NVIDIA L40S", 48, slots=4),
            _device(name, 3, "NVIDIA L40S", 48, slots=4),
        ],
    )


def _troubled(name: str) -> Json:
    foreign = [{"pid": 48121, "name": "python3 train.py", "used_memory_bytes": str(31 * GIB)}]
    lost = [{"reason": "GPU_IS_LOST", "message": "The GPU has fallen off the bus; reboot the machine."}]
    ecc = [{"reason": "ECC_CORRECTED_HIGH", "message": "1,204 corrected memory errors since the driver was loaded."}]
    mig = {"kind": "MIG", "mig_profile": "1g.10gb", "graphics": False, "encoder": False, "pci_bus_id": ""}
    return _node(
        name,
        [
            _device(name, 0, "NVIDIA RTX 6000 Ada", 48, health="DEGRADED", health_reasons=ecc, slots_leased=1),
            _device(name, 1, "NVIDIA RTX 6000 Ada", 48, foreign_processes=foreign, memory_free_bytes=str(16 * GIB)),
            _device(name, 2, "NVIDIA RTX 6000 Ada", 48, health="LOST", health_reasons=lost),
            _device(name, 3, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10, **mig),
        ],
        state="CORDONED",
    )


def _laptop(name: str) -> Json:
    software = {"kind": "SOFTWARE", "pci_bus_id": "", "encoder": False, "processes_known": False}
    devices = [_device(name, index, "Software renderer", 0, **software) for index in range(2)]
    for device in devices:
        del device["memory_total_bytes"], device["memory_free_bytes"], device["utilization_percent"]
        device["uuid"] = f"software-{device['index']}"
    facts = {"notes": ["No NVIDIA driver: software devices"], "driver_version": "", "launchers": ["process"]}
    return _node(name, devices, facts=facts)


def _far(name: str) -> Json:
    return _node(name, [_device(name, 0, "NVIDIA A10", 24, slots_leased=1)], state="UNREACHABLE")
