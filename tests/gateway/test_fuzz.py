"""A few seconds of fuzzing led by coverage: the codec against ``json_format``, both ways, from recorded bodies."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from footlights.gateway.decode.json_scalars import MemberError
from footlights.gateway.decode.message_reader import LENIENT
from footlights.gateway.errors import GatewayError
from tests.conformance.echo import message
from tests.conformance.recording import cases

SECONDS = 4


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("way", ["from", "to"])
def test_codec_equals_json_format(way: str, tmp_path: Path) -> None:
    """
    No input that coverage leads to is read or printed differently.
    """
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, case in enumerate(cases()):
        made = message("Everything")()
        try:
            LENIENT.read_text(case.body, made)
        except (MemberError, GatewayError):
            continue
        data = case.body.encode() if way == "from" else made.SerializeToString()
        (corpus / str(index)).write_bytes(data)
    arguments = ["-m", "tests.gateway.fuzz_codec", way, f"-max_total_time={SECONDS}", "-timeout=5", "-seed=1"]
    ended = subprocess.run(
        [sys.executable, *arguments, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", ended.stderr)
    assert runs is not None
    assert int(runs.group(1)) > 500
