"""The reference application: a USD stage, rendered, streamed over WebRTC and driven by mouse and keyboard.

What it owns
    One process is one session: it opens one stage, listens on exactly the three ports that it was given and
    ends when told. It keeps the launch contract and knows nothing else of Footlights, so that it is also a
    template for people who bring their own renderer.

How a picture travels
    `stage` (usd-core -> numpy) -> `renderer` (panda3d) in the render thread -> `encoder` in its own thread,
    once per codec in use -> `broadcast` on the event loop -> one packet track a viewer (`whep`) -> the one UDP
    socket (`mediaport`). Input comes back on a data channel, is checked in `controls` and applied by the render
    thread between two frames.

Invariants
    * The render thread owns the stage, the camera and everything of panda3d; others only post to it.
    * Nothing is rendered while nobody watches, except for the first frame, which proves readiness.
    * Every viewer starts with a key frame, and no frame is encoded twice for the same codec.
    * All viewers share one UDP port, which is bound once, for the life of the process.
    * Input that is not understood is counted and ignored.

`main` imports nothing heavy: the HTTP port answers before numpy, usd-core or panda3d are loaded.
"""

from __future__ import annotations
