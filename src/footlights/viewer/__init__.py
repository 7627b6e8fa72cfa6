"""The reference application: a USD stage, rendered, streamed over WebRTC and driven by mouse and keyboard.

What it is
    One process serves one session: it opens one stage, listens on the three ports that it is given and ends on
    SIGTERM. It keeps the launch contract and knows nothing else of Footlights, so that it is also a template for
    people who bring their own renderer. It logs to stdout as such an application would; the agent collects that.

Rooms
    `scene` reads a stage (usd-core) into plain numpy arrays; `render` draws them (panda3d) in the render thread;
    `stream` encodes pictures and sends them to viewers (PyAV, aiortc); `stages` holds the sample stages.
    `application` starts and stops everything; `health` is the HTTP port; `controls` turns input into camera moves.
    `access` refuses requests of who lacks the launch's secret.

How a picture travels
    `scene.stage` -> `render.renderer` in the render thread -> `stream.encoder` in its own thread, once per codec in
    use -> `stream.broadcast` on the event loop -> one packet track per viewer (`stream.peer`) -> the one UDP socket
    (`stream.media_port`). Input returns on a data channel, is checked in `controls` and applied by the render thread
    between two frames.

Invariants
    * The render thread owns the stage, the camera and everything of panda3d; other threads only post to it.
    * Nothing is rendered without viewers, except for the first frame, which proves readiness.
    * Every viewer starts with a key frame, and no frame is encoded twice for the same codec.
    * All viewers share one UDP port, which is bound once, for the life of the process.
    * Invalid input is counted and ignored.

`main` imports nothing heavy: the HTTP port answers before numpy, usd-core or panda3d are loaded.
"""
