"""`python -m bench [NAMES...]`: measure, print Markdown, and with `--write` put it into docs/performance.md."""

from __future__ import annotations

import argparse
from importlib import import_module

from bench.corpus import ROOT, Missing
from bench.report import write

SUBJECTS = (
    "resampler",
    "vad",
    "buffers",
    "gate_life",
    "short_words",
    "noise_hours",
    "gate_wer",
    "whisper_context",
    "latency",
    "overhead",
    "capacity",
    "batching",
    "allocator",
    "footprint",
    "uploads",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--full", action="store_true", help="all recordings, not a sample of them")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md and docs/plots/ too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SUBJECTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    for name in arguments.names or SUBJECTS:
        try:
            section = import_module(f"bench.{name}").run(full=arguments.full)
        except Missing as missing:
            print(f"{name}: missing: {missing}\n")
            continue
        print(f"## {section.title}\n\n{section.text}\n", flush=True)
        if arguments.write:
            write(section, ROOT / "docs")


if __name__ == "__main__":
    main()
