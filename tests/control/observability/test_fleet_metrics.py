"""Fleet metrics: what is counted, also of devices whose reading does not parse.

Which figures `metrics` and `process_metrics` export is held against the dashboard in tests/deploy/test_figures.
"""

from __future__ import annotations

from footlights.control.observability import fleet_metrics
from footlights.store.schema import DEVICE
from tests.control.harness import Control, gpu


async def test_a_reading_that_does_not_parse_hides_no_other(plane: Control) -> None:
    """Its slots count under no kind."""
    await plane.agent("node-a", gpu("GPU-0"))
    await plane.agent("node-b", gpu("GPU-1", slots=2))
    await plane.store.write(
        lambda tx: tx.changed(DEVICE.update().where(DEVICE.c.node == "node-a").values(reading=b"\xff\xff"))
    )

    counts = await plane.store.read(lambda tx: fleet_metrics.fleet(tx, unwell={"node-b"}))

    assert counts.slots == {
        ("KIND_UNSPECIFIED", "leased"): 0,
        ("KIND_UNSPECIFIED", "free"): 1,
        ("GPU", "leased"): 0,
        ("GPU", "free"): 2,
    }
    assert counts.nodes == {"READY": 1, "UNWELL": 1}
