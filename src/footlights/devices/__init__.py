"""What a node can run sessions on: NVIDIA GPUs and MIG instances, software renderers, and simulated GPUs.

What is in here
    ``kinds`` says which kinds of devices there are and what each is like. ``detect`` chooses the source: ``nvml``,
    ``software`` or ``fake``. ``reading`` is what can be known of a device; pure judgements on a reading are its
    ``health`` (with ``xids``), who else is on it (``foreign``) and whether a session may start (``admission``).
    ``records`` makes dataclasses of plain data.

How a reading comes about
    Driver (``nvml`` | ``fake``) ── answers, or why not ──> ``answers`` ──> health ──> DeviceReading
    ``tracker`` remembers what it saw, so that a GPU which disappears is reported LOST instead of forgotten.

What must hold
    * ``None`` means that the driver does not say. It is never turned into zero, nor into a guess.
    * A device is keyed by its UUID. An index is for display.
    * One failing GPU, or one call the driver does not know, costs that GPU's value or health and nothing else.
    * The fake and NVML share everything above the driver and take the same settings, so one test suite holds for both.
    * Only ``nvml`` imports ``pynvml``; of the rest of Footlights only errors and ``protocol`` are imported.
"""
