"""What the fuzzers found worth keeping (tests/fuzz), through each parser once more."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_saved_inputs(name: str) -> None:
    saved = sorted((CORPUS / name).iterdir())
    assert saved
    for file in saved:
        try:
            TARGETS[name](file.read_bytes())
        except Exception as error:
            error.add_note(str(file))
            raise
