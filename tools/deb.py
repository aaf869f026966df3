"""Builds dist/sttd_VERSION_ARCH.deb: python -m tools.deb amd64. `make deb` runs it.

It is a tree under build/deb that nfpm packs. /opt/sttd is a virtual environment of Debian's own Python with what
requirements/all.txt has locked, for every Python in PYTHONS: what serves all of them lies once in lib/site-packages,
the rest in lib/pythonX.Y/site-packages, from where a .pth file leads to the former. So sttd runs on after an upgrade to
the next Debian. Nothing is compiled or run for the other architecture. Needs uv, nfpm, binutils for both
architectures, and the wheels in dist/.
"""

from __future__ import annotations

import filecmp
import gzip
import os
import re
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

import sttd
from tools.lock import PYTHONS, SOURCE_ONLY, run

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
TOOLS = ("pip",)
"""Of requirements/package.txt: `sttd models pull` has pip fetch wheels."""
UNUSED = {"onnxruntime", "flatbuffers", "protobuf", "hf-xet", "fsspec", "filelock", "pyyaml", "click"}
"""What faster-whisper and its dependencies ask for, but import only for their own voice detection and downloads."""
DROPPED = (
    "*.dist-info/RECORD",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "numpy/**/tests",
    "numpy/**/_*_tests.*",
    "**/*.a",
)
"""How it was installed, and what only developers need."""
STRIPPED = "ctranslate2/_ext.*.so"
"""One for each Python, with 64 MB of symbols. Others stay as they are: not every library that a wheel was repaired with
survives it."""
CHANGELOG = """sttd ({version}) stable; urgency=medium

  * See /usr/share/doc/sttd/CHANGELOG.md.

 -- {maintainer}  {date}
"""
COPYRIGHT = """Copyright the authors of sttd. Licensed under the Apache License, version 2.0, which is in
/usr/share/common-licenses/Apache-2.0.

The packages of Python below /opt/sttd/lib, with their licences; the texts are in their dist-info folders:

"""
MAINTAINER = os.environ.get("MAINTAINER", "sttd maintainers <maintainers@sttd.example>")
EPOCH = os.environ["SOURCE_DATE_EPOCH"]


def main(arch: str) -> None:
    """Fill the tree, then pack it."""
    base = Path("build/deb", arch)
    tree = base / "tree"
    shutil.rmtree(base, ignore_errors=True)
    wanted = {name: entries for name, entries in locked("all").items() if name not in UNUSED}
    wanted |= {name: locked("package")[name] for name in TOOLS}
    installed(base, arch, wanted, tree / "opt/sttd/lib")
    environment(tree)
    service(tree)
    documents(tree)
    about(tree)
    tidy(tree, MACHINES[arch])
    variables = {"ARCH": arch, "VERSION": sttd.__version__, "BASE": str(base), "MAINTAINER": MAINTAINER}
    command = ["nfpm", "package", "--config", "packaging/nfpm.yaml", "--packager", "deb", "--target", "dist"]
    subprocess.run(command, env={**os.environ, **variables}, check=True)


def locked(*sets: str) -> dict[str, set[str]]:
    """Return each package's entries in these of requirements/*.txt; several where versions differ by Python."""
    found: dict[str, set[str]] = {}
    for name in sets:
        text = Path(f"requirements/{name}.txt").read_text("utf-8")
        for entry in re.findall(r"^[a-z0-9].*(?:\n +.*)*", text, re.MULTILINE):
            found.setdefault(entry.split("=")[0], set()).add(entry)
    return found


def installed(base: Path, arch: str, wanted: dict[str, set[str]], lib: Path) -> None:
    """Install for each Python, and bring together what is the same."""
    requirements = base / "requirements.txt"
    requirements.parent.mkdir(parents=True, exist_ok=True)
    requirements.write_text("\n".join(entry for entries in wanted.values() for entry in entries), "utf-8")
    trees = {python: base / "installed" / python for python in PYTHONS}
    for python, tree in trees.items():
        platform = f"{MACHINES[arch]}-manylinux_2_31"
        where = ("--target", str(tree), "--python-version", python, "--python-platform", platform)
        source = [argument for name in SOURCE_ONLY for argument in ("--no-binary", name)]
        common = ("pip", "install", "--quiet", "--no-deps", "--link-mode", "copy", *where)
        run(*common, "--require-hashes", "-r", str(requirements), "--only-binary", ":all:", *source)
        (wheel,) = Path("dist").glob(f"sttd-{sttd.__version__}-*{MACHINES[arch]}.whl")
        run(*common, str(wheel))
        shutil.rmtree(tree / "bin", ignore_errors=True)
        for pattern in DROPPED:
            for path in list(tree.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    merge(trees, lib)
    shutil.rmtree(base / "installed")


def merge(trees: dict[str, Path], lib: Path) -> None:
    """Move each package to lib/site-packages, or to a folder for each Python where they disagree about a file."""
    for name in sorted({path.name for tree in trees.values() for path in tree.iterdir()}):
        versions = {python: tree / name for python, tree in trees.items() if (tree / name).exists()}
        if name.endswith(".libs") or (len(versions) == len(trees) and agree(list(versions.values()))):
            targets = dict.fromkeys(versions, lib / "site-packages" / name)
        else:
            targets = {python: lib / f"python{python}/site-packages" / name for python in versions}
        for python, path in versions.items():
            if path.is_dir():
                shutil.copytree(path, targets[python], dirs_exist_ok=True)
            else:
                targets[python].parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, targets[python])
    for libraries in (lib / "site-packages").glob("*.libs"):  # a wheel's own, which it looks for beside itself
        if not libraries.with_suffix("").exists():
            for python in trees:
                (lib / f"python{python}/site-packages" / libraries.name).symlink_to(
                    f"../../site-packages/{libraries.name}"
                )


def agree(paths: list[Path]) -> bool:
    """Whether no file has two contents; each may have files that the others do not have."""
    if paths[0].is_file():
        return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths)
    seen: dict[Path, Path] = {}
    for path in paths:
        for file in path.rglob("*"):
            first = seen.setdefault(file.relative_to(path), file)
            if file.is_file() and not filecmp.cmp(first, file, shallow=False):
                return False
    return True


def environment(tree: Path) -> None:
    """What makes /opt/sttd a virtual environment, and the command."""
    home = tree / "opt/sttd"
    for python in PYTHONS:
        pth = home / f"lib/python{python}/site-packages/sttd.pth"
        pth.parent.mkdir(parents=True, exist_ok=True)
        pth.write_text("../../site-packages\n", "utf-8")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", "utf-8")
    (home / "models").mkdir()
    for link, target in (("python3", "/usr/bin/python3"), ("python", "python3")):
        (home / "bin").mkdir(exist_ok=True)
        (home / "bin" / link).symlink_to(target)
    command = "#!/opt/sttd/bin/python3\nimport sys\n\nfrom sttd.cli.main import main\n\nsys.exit(main())\n"
    (home / "bin/sttd").write_text(command, "utf-8")
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/sttd").symlink_to("/opt/sttd/bin/sttd")


def service(tree: Path) -> None:
    """The units, their drop-ins and Avahi's file; and beside the tree the settings, which nfpm treats on its own."""
    units = tree / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in ("sttd.service", "sttd.socket"):
        shutil.copy(f"systemd/{unit}", units)
    for folder in ("sttd.service.d", "avahi"):
        shutil.copytree(f"systemd/{folder}", tree / "usr/share/sttd" / folder)
    (tree / "etc/sttd/conf.d").mkdir(parents=True)
    shutil.copy("systemd/sttd.toml", tree.parent)
    os.utime(tree.parent / "sttd.toml", (int(EPOCH), int(EPOCH)))


def documents(tree: Path) -> None:
    """The documentation, the manual page, what shells complete, and what lintian need not say."""
    doc = tree / "usr/share/doc/sttd"
    files = ["README.md", "SECURITY.md", "CHANGELOG.md", *map(str, Path("docs").rglob("*.md"))]
    for file in (*files, *map(str, Path("docs/pictures").glob("*.png"))):
        target = doc / file.removeprefix("docs/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    overrides = tree / "usr/share/lintian/overrides/sttd"
    overrides.parent.mkdir(parents=True)
    shutil.copy("packaging/lintian-overrides", overrides)
    manual = tree / "usr/share/man/man1/sttd.1.gz"
    manual.parent.mkdir(parents=True)
    manual.write_bytes(gzip.compress(Path("build/sttd.1").read_bytes(), mtime=0))
    for shell, place in (
        ("bash", "bash-completion/completions/sttd"),
        ("zsh", "zsh/vendor-completions/_sttd"),
        ("fish", "fish/vendor_completions.d/sttd.fish"),
    ):
        script = tree / "usr/share" / place
        script.parent.mkdir(parents=True)
        script.write_bytes(subprocess.check_output([sys.executable, "-m", "sttd", "completion", shell]))


def about(tree: Path) -> None:
    """Who has written what is inside, under which licences; and the changelog."""
    doc = tree / "usr/share/doc/sttd"
    lines = []
    for metadata in sorted((tree / "opt/sttd/lib").glob("**/*.dist-info/METADATA"), key=lambda path: path.parent.name):
        found = HeaderParser().parsestr(metadata.read_text("utf-8"))
        line = f"{found['Name']} {found['Version']}: {licence(found.get_all('Classifier') or [], found)}"
        if line not in lines:
            lines.append(line)
    (doc / "copyright").write_text(COPYRIGHT + "\n".join(lines) + "\n", "utf-8")
    date = subprocess.check_output(["date", "-u", "-R", "-d", f"@{EPOCH}"], text=True).strip()
    text = CHANGELOG.format(version=sttd.__version__, maintainer=MAINTAINER, date=date)
    (doc / "changelog.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def licence(classifiers: list[str], found: object) -> str:
    """The licence that a package's metadata states."""
    stated = found["License-Expression"] or found["License"] or ""  # type: ignore[index]
    names = [name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License ::")]
    first = stated.splitlines()[0] if stated else ""
    return first if first and len(first) < 80 else ", ".join(names) or "see its files"


def tidy(tree: Path, machine: str) -> None:
    """Strip what is big, and give everything the usual modes and the date of the commit."""
    for path in sorted(tree.rglob("*"), reverse=True):  # a folder after what is in it
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        if path.match(STRIPPED):
            subprocess.run([f"{machine}-linux-gnu-strip", "--strip-unneeded", str(path)], check=True)
        os.utime(path, (int(EPOCH), int(EPOCH)))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        main(each)
