"""Opens in Omniverse Kit the stage whose address is secret: ``kit … --exec kit_stage.py``.

Kit takes settings from its command line and its .kit file, and none from the environment. A presigned address on a
command line is read by whoever lists processes. So it is in the session file alone; this program, which Kit runs once
it is up, opens it; and `/app/auto_load_usd` has the address with its query redacted, which opens nothing.

It runs in Kit's own interpreter, and knows nothing of Footlights but the launch contract.
"""

import json
import os


def secret_stage() -> str:
    """Return the session's stage where its address has a query; empty where the command line has all of it."""
    name = os.environ.get("FOOTLIGHTS_SESSION_FILE", "")
    if not name:
        return ""
    with open(name, encoding="utf-8") as file:
        stage = json.load(file).get("usd_stage_uri", "")
    return stage if isinstance(stage, str) and "?" in stage else ""


def main() -> None:
    """Open it, if there is one."""
    stage = secret_stage()
    if not stage:
        return
    import omni.usd  # type: ignore[import-not-found]  # Kit's own

    omni.usd.get_context().open_stage(stage)


if __name__ == "__main__":
    main()
