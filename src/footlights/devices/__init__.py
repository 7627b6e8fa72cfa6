"""What a node can run sessions on: NVIDIA GPUs and MIG instances, software renderers, and simulated GPUs.

Owns: reading devices (``reading``), and the pure judgements on a reading: is it healthy (``health``), what
can it do (``capabilities``), who else is on it (``foreign``), may a session start on it now (``admission``).

How a reading comes about, one way::

    Driver (nvml | fake) ── answers, or why not ──> gather ──> Answers ──> health, capabilities ──>
                                                      DeviceReading └── TrackedDevices remembers what it saw,
                                                          so that a GPU which disappears is reported LOST
                                                          instead of forgotten

Invariants:

* ``None`` means that the driver does not say. It is never turned into zero, nor into a guess.
* A device is keyed by its UUID. An index is for display.
* One failing GPU, or one call the driver does not know, costs that GPU's value or health and nothing else.
* The fake and NVML share everything above the driver, and take the same knobs: ``fake.FakeState`` is also
  what the tests' stand-in for NVIDIA's library is set by, so that one suite holds for both.
* Only ``nvml`` imports ``pynvml``; nothing here imports the rest of Footlights.
"""

from __future__ import annotations
