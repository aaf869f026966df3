"""Writes requirements/*.txt: every package that an installation takes, with its hashes. `make lock` runs it.

One file for each extra of sttd, with what sttd itself depends on; for each dependency group; and for building. All
agree on versions. They hold for Linux and Python 3.11 to 3.14, and markers say what differs. Afterwards it is tried
whether x86-64 and aarch64 have wheels of what users install, on each Python. Needs uv.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

PROJECT = Path("pyproject.toml")
FOLDER = Path("requirements")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
SOURCE_ONLY = ("srt", "argparse-manpage")
"""Packages without wheels, which are plain Python: anybody can build them."""
OLDEST_TESTED = "lowest"
"""The set with the lowest versions that pyproject.toml allows, of what it names; for Python 3.11."""


class Refused(Exception):
    """What uv says where it cannot do what it was asked for."""


def main() -> None:
    """Write all files, then look for wheels."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))
    extras = list(project["project"]["optional-dependencies"])
    groups = list(project["dependency-groups"])
    with tempfile.TemporaryDirectory() as scratch:
        building = Path(scratch, "build.in")
        building.write_text("\n".join(project["build-system"]["requires"]), "utf-8")
        everything = Path(scratch, "everything.txt")
        all_groups = [argument for group in groups for argument in ("--group", group)]
        compiled(everything, str(building), str(PROJECT), "--all-extras", *all_groups)
        pinned = ("--constraint", str(everything))
        for old in FOLDER.glob("*.txt"):
            old.unlink()
        compiled(FOLDER / "build.txt", str(building), *pinned)
        for extra in extras:
            compiled(FOLDER / f"{extra}.txt", str(PROJECT), "--extra", extra, *pinned)
        for group in groups:
            compiled(FOLDER / f"{group}.txt", "--group", group, *pinned)
        lowest = Path(scratch, "lowest.txt")
        as_low = ("--all-extras", "--resolution", "lowest-direct", "--only-binary", "av")
        compiled(lowest, str(building), str(PROJECT), *as_low, universal=False)
        bounds = Path(scratch, "bounds.txt")
        bounds.write_text("\n".join(named(lowest, project)), "utf-8")
        wanted = (str(building), str(PROJECT), "--all-extras", "--group", "test", "--constraint", str(bounds))
        compiled(FOLDER / f"{OLDEST_TESTED}.txt", *wanted, universal=False)
        missing = [
            f"Python {python}, {platform}: {said}"
            for python in PYTHONS
            for platform in PLATFORMS
            if (said := without_wheels(python, platform, ("build", *extras, "test"), Path(scratch)))
        ]
    if missing:
        sys.exit("\n".join(missing))


def compiled(target: Path, *arguments: str, universal: bool = True) -> None:
    """Let uv resolve what the arguments ask for."""
    common = ["--quiet", "--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock"]
    common += ["--python-version", PYTHONS[0], "--upgrade", *(["--universal"] if universal else [])]
    run("pip", "compile", *common, "--output-file", str(target), *arguments)


def named(pins: Path, project: dict[str, Any]) -> list[str]:
    """The pins of what pyproject.toml names itself."""
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *chain(*extras)]
    names = {re.split("[^a-z0-9-]", requirement.lower())[0] for requirement in wanted}
    lines = (line.split(" ")[0] for line in pins.read_text("utf-8").splitlines())
    return [line for line in lines if line.partition("==")[0] in names]


def without_wheels(python: str, platform: str, names: tuple[str, ...], scratch: Path) -> str:
    """What uv says where it cannot install these sets without compiling."""
    files = [argument for name in names for argument in ("--requirements", str(FOLDER / f"{name}.txt"))]
    source = [argument for name in SOURCE_ONLY for argument in ("--no-binary", name)]
    where = ["--python-version", python, "--python-platform", platform, "--target", str(scratch / "target")]
    try:
        run(
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--no-deps",
            "--require-hashes",
            *where,
            *files,
            "--only-binary",
            ":all:",
            *source,
        )
    except Refused as refused:
        return str(refused)
    return ""


def run(*arguments: str) -> None:
    """Run uv, which reads certificates and nothing else of pip's settings."""
    environment = {"SSL_CERT_FILE": os.environ.get("PIP_CERT", ""), **os.environ}
    environment = {name: value for name, value in environment.items() if value}
    done = subprocess.run(["uv", *arguments], env=environment, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Refused(done.stderr)


if __name__ == "__main__":
    main()
