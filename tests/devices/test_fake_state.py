"""A simulated machine from a file; also the tests of ``records``, which reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from footlights.devices.driver import RemappedRows
from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import GIB, FakeGpu, FakeInstance, FakeProcess, FakeState, parse
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceHealth, ProcessKind


def test_parses_every_member() -> None:
    """Plain data gives exactly the state it names."""
    given = {
        "driver_version": "1",
        "driver_error": None,
        "gpus": [
            {
                "uuid": "GPU-a",
                "name": "NVIDIA H100",
                "memory_total_bytes": "79.5GiB",
                "memory_used_bytes": 5,
                "encoder_capacity": None,
                "processes": [{"pid": 4, "kind": "GRAPHICS", "used_memory_bytes": "1GiB", "name": "Xorg"}],
                "remapped_rows": {"correctable": 1, "uncorrectable": 2, "pending": True, "failed": False},
                "errors": {"nvmlDeviceGetName": "UNKNOWN"},
                "xids": [79],
                "mig": [{"uuid": "MIG-a", "profile": "1g.10gb"}],
            }
        ],
    }
    gpu = FakeGpu(
        uuid="GPU-a",
        name="NVIDIA H100",
        memory_total_bytes=int(79.5 * GIB),
        memory_used_bytes=5,
        encoder_capacity=None,
        processes=(FakeProcess(4, ProcessKind.GRAPHICS, GIB, "Xorg"),),
        remapped_rows=RemappedRows(1, 2, True, False),
        errors={"nvmlDeviceGetName": "UNKNOWN"},
        xids=(79,),
        mig=(FakeInstance("MIG-a"),),
    )
    assert parse(given) == FakeState(gpus=(gpu,), driver_version="1")


def test_counts_make_stable_uuids_of_each_machine() -> None:
    """One file gives every simulated machine the same GPUs with uuids of its own, the same after a restart."""
    given = {"gpus": [{"count": 3, "name": "NVIDIA L4"}, {"count": 2}]}
    first, again, other = (parse(given, machine=name) for name in ("node-1", "node-1", "node-2"))
    assert first == again
    uuids = {gpu.uuid for gpu in (*first.gpus, *other.gpus)}
    assert len(uuids) == 10
    assert [gpu.name for gpu in other.gpus] == ["NVIDIA L4"] * 3 + ["NVIDIA L40S"] * 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "state: []"),
        ({"gpu": []}, "state.gpu: unknown; one of gpus"),
        ({"gpus": {}}, "gpus: {}; expected a list"),
        ({"gpus": [{"nme": "x"}]}, "gpus[0].nme: unknown; one of uuid, name"),
        ({"gpus": [{"count": 0}]}, "gpus[0].count: must be at least 1, and 1 with a uuid (got 0)"),
        ({"gpus": [{"count": 2, "uuid": "GPU-a"}]}, "gpus[0].count: must be at least 1, and 1 with a uuid (got 2)"),
        ({"gpus": [{"uuid": "GPU-a"}, {"uuid": "GPU-a"}]}, "GPU-a is there twice"),
        ({"gpus": [{"memory_total_bytes": "48GB"}]}, "gpus[0].memory_total_bytes: '48GB' is not a size; give bytes"),
        ({"gpus": [{"memory_used_bytes": None}]}, "gpus[0].memory_used_bytes: None; expected int"),
        ({"gpus": [{"lost": 1}]}, "gpus[0].lost: 1; expected bool"),
        ({"gpus": [{"processes": [{"kind": "COMPUTE"}]}]}, "gpus[0].processes[0]"),
        ({"gpus": [{"processes": [{"pid": 1, "kind": "X"}]}]}, "gpus[0].processes[0].kind: 'X'; one of COMPUTE"),
        ({"gpus": [{"mig": [{"profile": "1g.10gb"}]}]}, "gpus[0].mig[0]"),
    ],
)
def test_says_what_is_wrong(given: Any, words: str) -> None:
    """A bad state is refused with the member, the value and what is allowed."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the words are compared below, literally
        parse(given)
    assert words in str(refused.value)


def replace(path: Path, text: str) -> None:
    """Write as an editor does; a changed size would do too, but not every edit changes it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A GPU taken out of the file of a running machine is lost; a file that is broken for a while changes nothing."""
    path = tmp_path / "gpus.yaml"
    replace(path, "gpus: [{uuid: GPU-a}, {uuid: GPU-b}]")
    devices = FakeDevices(path)
    assert [(d.uuid, d.kind) for d in devices.read().devices] == [
        ("GPU-a", DeviceKind.FAKE),
        ("GPU-b", DeviceKind.FAKE),
    ]
    replace(path, "gpus: [{uuid: GPU-a}, {uuid: ")
    broken = devices.read()
    assert [d.health for d in broken.devices] == [DeviceHealth.OK, DeviceHealth.OK]
    assert any(str(path) in note for note in broken.notes)
    path.unlink()
    assert [d.health for d in devices.read().devices] == [DeviceHealth.OK, DeviceHealth.OK]
    replace(path, json.dumps({"gpus": [{"uuid": "GPU-a"}]}))
    mended = devices.read()
    assert [(d.uuid, d.health) for d in mended.devices] == [("GPU-a", DeviceHealth.OK), ("GPU-b", DeviceHealth.LOST)]
    assert mended.notes == ()


def test_a_file_that_is_bad_at_first(tmp_path: Path) -> None:
    """What is wrong with the first file is an error that names the file."""
    path = tmp_path / "gpus.yaml"
    with pytest.raises(OSError, match=r"gpus\.yaml"):
        FakeDevices(path)
    for text in ("gpus: 1", "gpus: ["):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"gpus\.yaml"):
            FakeDevices(path)
