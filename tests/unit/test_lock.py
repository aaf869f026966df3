"""The lock says what pyproject.toml asks for; `make lock` makes it so again."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict

import pytest

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
ASKED = {
    "build": PROJECT["build-system"]["requires"],
    "lowest": [*PROJECT["project"]["dependencies"], *GROUPS["test"]],
    **{extra: [*PROJECT["project"]["dependencies"], *EXTRAS[extra]] for extra in EXTRAS if extra != "all"},
    **GROUPS,
}
FILES = sorted((ROOT / "requirements").glob("*.txt"))


def pins(name: str) -> list[tuple[str, str, str]]:
    """Package, version and marker of each line."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)(?: ; ([^\\\n]*))?", text, re.MULTILINE)


@pytest.mark.parametrize("name", ASKED)
def test_it_has_all_that_is_asked_for(name: str) -> None:
    wanted = {re.split(r"[^a-z0-9-]", requirement.lower())[0] for requirement in ASKED[name]}
    assert wanted <= {package for package, _version, _marker in pins(name)}


def test_every_pin_has_hashes() -> None:
    assert {path.stem for path in FILES} == {*ASKED, "all"}
    for path in FILES:
        blocks = re.split(r"\n(?=[a-z])", path.read_text())[1:]
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks)


def test_all_files_agree_but_that_of_the_lowest_versions() -> None:
    versions = defaultdict(set)
    for path in FILES:
        for package, version, marker in pins(path.stem) if path.stem != "lowest" else ():
            versions[package, re.sub(r"python_(full_)?version|\s", "", marker)].add(version)
    assert [found for found in versions.items() if len(found[1]) > 1] == []
