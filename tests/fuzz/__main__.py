"""Coverage-guided fuzzing of the parsers with Atheris: `python -m tests.fuzz [--seconds 60] [TARGET...]`.

Starts from the saved corpus and what earlier runs left in build/fuzz. `--keep` adds to the saved corpus what reached
code that nothing in it did. An input that breaks a parser is left in build/fuzz; put it into tests/fuzz/corpus/TARGET,
mend the parser, and tests/unit/test_corpus.py sees that it stays mended.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

CORPUS = Path(__file__).parent / "corpus"
FOUND = ROOT / "build" / "fuzz"
LONGEST = 4096
INSTRUMENTED = ["sttd", "h11", "wsproto", "trio_websocket", "tomllib", "zipfile", "python_multipart"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add to the saved corpus what reaches more code")
    arguments = parser.parse_args()
    names = arguments.target or sorted(path.name for path in CORPUS.iterdir())
    codes = [fuzz(name, arguments.seconds, keep=arguments.keep) for name in names]
    return int(any(codes))  # a process that a signal ended has a negative one


def fuzz(name: str, seconds: int, *, keep: bool) -> int:
    """A process of its own for each target: libFuzzer ends the one in which it runs."""
    found, saved = FOUND / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    saved.mkdir(exist_ok=True)
    options = [f"-artifact_prefix={FOUND}/{name}-", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=4096"]
    if keep:
        options += ["-set_cover_merge=1", str(saved), str(found)]
    else:
        options += [f"-max_total_time={seconds}", "-print_final_stats=1", str(found), str(saved)]
    done = subprocess.run(
        [sys.executable, "-c", program(name), *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
    executed = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
    covered = next((line for line in reversed(lines) if " cov: " in line), "").partition(" cov: ")[2].partition(" ")[0]
    print(f"{name:10} {executed:>9} inputs, {covered or '?'} places reached, exit code {done.returncode}", flush=True)
    if done.returncode:
        print("\n".join(lines[-60:]))
    return done.returncode


def program(name: str) -> str:
    return f"from tests.fuzz.__main__ import run; run({name!r})"


def run(name: str) -> None:
    import atheris

    sys.modules.pop("zipfile", None)  # only what is imported here is instrumented
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    logging.getLogger().addHandler(logging.NullHandler())  # what is logged is not printed
    # To merge, libFuzzer gives its command line to a shell again.
    atheris.Setup([f'{sys.executable} -c "{program(name)}"', *sys.argv[1:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
