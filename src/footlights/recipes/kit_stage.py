"""Opens a session's stage in Omniverse Kit: ``kit … --exec kit_stage.py``.

`/app/auto_load_usd` is read by applications that are made like USD Viewer alone, and puts the stage's address on a
command line, where it is parsed again and read by anyone who lists processes. This program takes it from the session
file, waits until the application is up, and opens it, in any application of Kit. Where it cannot be opened Kit ends,
and its last line says why: a session with an empty scene tells its user nothing.

It runs in Kit's own interpreter, and knows nothing of Footlights but the launch contract. In containers it is
``/run/footlights/kit_stage.py``.
"""

import asyncio
import json
import os

FRAMES = 10
"""An application makes its own empty stage in its first frames: ours comes after it."""


def session_stage() -> str:
    """Return the session's stage; empty where it has none."""
    name = os.environ.get("FOOTLIGHTS_SESSION_FILE", "")
    if not name:
        return ""
    with open(name, encoding="utf-8") as file:
        stage = json.load(file).get("usd_stage_uri", "")
    return stage if isinstance(stage, str) else ""


async def open_stage(stage: str) -> None:
    """Open it once the application is up; end Kit where that is not possible."""
    import omni.kit.app  # type: ignore[import-not-found]  # Kit's own
    import omni.usd  # type: ignore[import-not-found]

    app, context = omni.kit.app.get_app(), omni.usd.get_context()
    while not app.is_app_ready():
        await app.next_update_async()
    for _ in range(FRAMES):
        await app.next_update_async()
    shown = stage.partition("?")[0]
    try:
        opened, why = await context.open_stage_async(stage)
    except Exception as error:  # whatever an extension raises, the user is told
        opened, why = False, f"{type(error).__name__}: {error}"
    if opened:
        print(f"Opened the stage {shown}.", flush=True)
        return
    # The query may be a signature, which is in no output.
    text = f"Kit did not open {shown}: {why}".replace(stage, shown)
    query = stage.partition("?")[2]
    if query and query in text:
        text = f"Kit did not open {shown}."
    print("FOOTLIGHTS_FAILURE: " + json.dumps({"reason": "STAGE_NOT_OPENED", "message": text}), flush=True)
    app.post_quit(1)


def main() -> None:
    """Open the session's stage, if it has one."""
    stage = session_stage()
    if stage:
        # Kit runs this before its first frame, and its own event loop afterwards.
        asyncio.ensure_future(open_stage(stage))  # noqa: RUF006  # Kit's loop keeps it for as long as it waits


if __name__ == "__main__":
    main()
