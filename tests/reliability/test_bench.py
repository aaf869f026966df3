"""`sttd bench`, as somebody runs it who wants to know what the machine can do."""

from __future__ import annotations

import json
import time
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_command_line import sttd

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.reliability


@pytest.mark.timeout(300)
def test_a_model_is_measured_and_the_settings_are_usable(models: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = sttd("bench", "tiny.en", "--json", models=models)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (size,) = found["models"]
    print(f"sttd bench tiny.en: {time.monotonic() - begun:.0f} s, {size}")
    assert size["times_as_fast"] > 1
    assert size["streams"] >= 1
    assert 0.5 < size["latency_s"]["1"] < 1
    assert 100 < size["memory_mb"] < 1000
    assert found["settings"]["model"] == "tiny.en"
    file = tmp_path / "sttd.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in found["settings"].items()]  # dotted keys are TOML too
    file.write_text("\n".join(lines))
    assert tomllib.loads(file.read_text())["limits"]["connections"] >= 8
    assert sttd("check-config", "--config", str(file), models=models).returncode == 0
