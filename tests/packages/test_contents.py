"""What `make release` has put into dist/: `make packages` builds it for this machine and looks inside."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

import sttd
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.packages
DIST = ROOT / "dist"
VERSION = sttd.__version__


LIBRARIES = {
    "ld-linux-aarch64.so.1": "libc6",
    "ld-linux-x86-64.so.2": "libc6",
    **{f"lib{name}": "libc6" for name in ("c.so.6", "dl.so.2", "m.so.6", "mvec.so.1", "pthread.so.0", "rt.so.1")},
    "libatomic.so.1": "libatomic1",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
}
"""Debian's package for each library of the system."""


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = DIST.glob(f"sttd-{VERSION}-*{platform.machine()}.whl")
    return found


@pytest.fixture(scope="module")
def deb() -> Path:
    arch = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    return DIST / f"sttd_{VERSION}_{arch}.deb"


@pytest.fixture(scope="module")
def names(deb: Path) -> list[str]:
    listed = subprocess.check_output(["dpkg-deb", "-c", str(deb)], text=True).splitlines()
    return [re.sub(r" (->|link to) .*", "", line.split(maxsplit=5)[5]).removeprefix(".") for line in listed]


def test_a_wheel_has_the_code_and_the_licence_and_nothing_else(wheel: Path) -> None:
    assert re.fullmatch(r"sttd-[\d.]+-cp311-abi3-manylinux_2_31_\w+\.whl", wheel.name)
    assert wheel.stat().st_size < 2**20
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
    assert {name.partition("/")[0] for name in names} == {"sttd", f"sttd-{VERSION}.dist-info"}
    assert f"sttd-{VERSION}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if re.search(r"\.(c|h|pyx|pxd|pyc)$|test", name)]
    python = {f"sttd/{path.relative_to(ROOT / 'src/sttd')}" for path in (ROOT / "src/sttd").rglob("*.py")}
    assert python <= set(names)
    assert {name for name in names if name.endswith(".so")} == {
        f"sttd/{name}.abi3.so" for name in ("_pcm", "_resampler", "_vad")
    }


def test_a_source_distribution_has_what_building_needs() -> None:
    with tarfile.open(DIST / f"sttd-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = [path for kind in ("pyx", "pxd", "h") for path in (ROOT / "src/sttd").glob(f"*.{kind}")]
    assert {str(path.relative_to(ROOT)) for path in native} | {"setup.py", "pyproject.toml", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".c", ".so")) or name.startswith("tests")]


def test_a_package_has_all_that_belongs_to_it(names: list[str]) -> None:
    for name in (
        "/etc/sttd/sttd.toml",
        "/etc/sttd/conf.d/",
        "/opt/sttd/bin/python3",
        "/opt/sttd/lib/site-packages/sttd/_pcm.abi3.so",
        "/opt/sttd/lib/site-packages/vosk/libvosk.so",
        "/opt/sttd/lib/python3.11/site-packages/numpy/__init__.py",
        "/opt/sttd/lib/python3.14/site-packages/numpy/__init__.py",
        "/usr/bin/sttd",
        "/usr/lib/systemd/system/sttd.service",
        "/usr/lib/systemd/system/sttd.socket",
        "/usr/share/bash-completion/completions/sttd",
        "/usr/share/fish/vendor_completions.d/sttd.fish",
        "/usr/share/zsh/vendor-completions/_sttd",
        "/usr/share/doc/sttd/changelog.gz",
        "/usr/share/doc/sttd/copyright",
        "/usr/share/man/man1/sttd.1.gz",
        "/usr/share/sttd/sttd.service.d/10-lan.conf",
    ):
        assert name in names
    assert not [
        name for name in names if re.search(r"/(onnxruntime|flatbuffers|hf_xet|__pycache__)\b|\.(a|pyc)$", name)
    ]


def test_a_package_states_what_it_needs_and_the_licence_of_each_part(deb: Path, tmp_path: Path) -> None:
    depends = subprocess.check_output(["dpkg-deb", "-f", str(deb), "Depends"], text=True)
    assert "python3 (>= 3.11), python3 (<< 3.15)" in depends
    assert subprocess.check_output(["dpkg-deb", "--info", str(deb), "conffiles"], text=True) == "/etc/sttd/sttd.toml\n"
    subprocess.run(["dpkg-deb", "-x", str(deb), str(tmp_path)], check=True)
    stated = (tmp_path / "usr/share/doc/sttd/copyright").read_text("utf-8")
    for metadata in (tmp_path / "opt/sttd/lib").glob("**/*.dist-info"):
        name = metadata.name.partition("-")[0].replace("_", "[-_.]")
        assert re.search(rf"(?mi)^{name} [\w.]+: \S", stated), metadata
    shutil.rmtree(tmp_path)


def test_every_library_is_inside_or_in_a_package_that_it_depends_on(tmp_path: Path) -> None:
    for deb in DIST.glob("*.deb"):
        tree = tmp_path / deb.stem
        subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True)
        files = [path for path in (tree / "opt").rglob("*.so*") if path.is_file()]
        read = subprocess.run(["readelf", "-d", *map(str, files)], capture_output=True, text=True, check=True)
        needed = set(re.findall(r"NEEDED.*\[(.+)\]", read.stdout)) - {path.name for path in files}
        depends = subprocess.check_output(["dpkg-deb", "-f", str(deb), "Depends"], text=True)
        assert {LIBRARIES[name] for name in needed} <= set(re.findall(r"[\w+.-]+", depends))
        shutil.rmtree(tree)


def test_lintian_finds_no_error(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    done = subprocess.run(["lintian", "--fail-on", "error", str(deb)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_bill_of_materials_and_the_checksums() -> None:
    bill = json.loads((DIST / "sttd.cdx.json").read_text("utf-8"))
    listed = {component["name"]: component["version"] for component in bill["components"]}
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements/all.txt").read_text("utf-8"), re.MULTILINE)
    assert {name for name, _version in locked} == set(listed)
    sums = [line.split() for line in (DIST / "SHA256SUMS").read_text("utf-8").splitlines()]
    assert {name for _digest, name in sums} == {path.name for path in DIST.iterdir()} - {"SHA256SUMS"}
    for digest, name in sums:
        assert hashlib.sha256((DIST / name).read_bytes()).hexdigest() == digest
