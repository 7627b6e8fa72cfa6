"""Kit's recipes by `footlights apps test`, as an operator tries them, with the stand-in for Kit on a stand-in GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from footlights import recipes
from footlights.devices.fake_state import FakeGpu, FakeState
from tests.control.harness import Control
from tests.devices.standin import Standin, build

STANDIN_KIT = Path(__file__).parents[1] / "launch" / "standin_kit.py"
GOOD = {"PASS", "SKIP", "WARN"}


@pytest.mark.parametrize(("recipe", "generation"), [("kit-106", "106"), ("kit-107", "107"), ("kit-108-110", "108")])
def test_a_recipe_keeps_the_contract(recipe: str, generation: str, tmp_path: Path) -> None:
    """It starts on its GPU, offers a picture, listens on its ports alone, ends in order, and leaves nothing."""
    kit = tmp_path / "kit-app" / "kit" / "kit"
    kit.parent.mkdir(parents=True)
    kit.write_text(f"#!{sys.executable} -IS\n{STANDIN_KIT.read_text()}")
    kit.chmod(0o755)
    stages = tmp_path / "stages"
    stages.mkdir()
    (stages / "a b.usd").touch()
    machine = Standin(build(), tmp_path / "gpus.state")
    machine.set(FakeState(gpus=(FakeGpu(uuid="GPU-00000000-0000-0000-0000-000000000001"),)))
    file = tmp_path / "recipe.yaml"
    shipped = (Path(recipes.__file__).parent / f"{recipe}.yaml").read_text()
    # The stand-in asks its environment what it is.
    own = f"environment: &environment\n      STANDIN_KIT: '{generation}'\n"
    file.write_text(shipped.replace("environment: &environment\n", own))
    variables = {"KIT_ROOT": str(tmp_path / "kit-app"), "STAGE_ROOT": str(stages)}
    options = [option for name, value in variables.items() for option in ("--set", f"{name}={value}")]
    options += ["--stage", str(stages / "a b.usd"), "--settle", "200ms", "--devices", "nvml", "-o", "json"]

    done = subprocess.run(
        [sys.executable, "-m", "footlights", "apps", "test", str(file), *options],
        env={**os.environ, **machine.environment, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.stdout, done.stderr
    found = {line["check"]: line for line in json.loads(done.stdout)}
    assert done.returncode == 0, json.dumps(found, indent=1)
    assert {line["verdict"] for line in found.values()} <= GOOD
    for check in ("RECIPE", "COLD_START", "STAGE_OPENED", "PORTS", "SECRET", "STOP", "PROCESS_TREE", "LEFT_OVER"):
        assert found[check]["verdict"] == "PASS", found[check]


@pytest.mark.parametrize("recipe", [*recipes.names(), *recipes.RENAMED])
async def test_a_recipe_is_registered(recipe: str, plane: Control) -> None:
    """As it is shipped, and a second time without a change."""
    loaded = recipes.load(recipe, {"ACCEPT_EULA": "Y"})

    first = await plane.call("ApplicationService.ApplyApplication", loaded)
    again = await plane.call("ApplicationService.ApplyApplication", loaded)

    assert first.application.application == recipe
    assert sorted(first.created_versions) == sorted(version.version for version in loaded.versions)
    assert not again.created_versions
