"""Markdown tables, and the parts of docs/performance.md that hold them."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.corpus import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOT_INSTALLED = "not installed"


@dataclass
class Section:
    """What one benchmark has to say: Markdown, and plots by file name."""

    name: str
    title: str
    text: str
    plots: dict[str, str] = field(default_factory=dict)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it reads well as text."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def machine(*packages: str) -> str:
    """One line about what the figures were measured on: processor, Python, versions of the contestants."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    processor = found[1] if found else "unknown processor"
    here = [f"{platform.machine()} ({processor})", f"Python {platform.python_version()}"]
    return ", ".join(here + [_with(package) for package in packages])


def or_missing(make: Callable[[], str]) -> str:
    """A part of a section, or what keeps it from being made."""
    try:
        return make()
    except Missing as missing:
        return f"missing: {missing}"


def _with(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} {NOT_INSTALLED}"


def write(section: Section, docs: Path) -> None:
    """Replace what stands between a section's markers in performance.md, or append it there; write its plots."""
    page = docs / "performance.md"
    begin, end = f"<!-- bench:{section.name} -->", f"<!-- /bench:{section.name} -->"
    block = f"{begin}\n{section.text}\n{end}"
    text = page.read_text(encoding="utf-8")
    if begin in text and end in text:
        before, rest = text.split(begin, 1)
        text = before + block + rest.split(end, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n## {section.title}\n\n{block}\n"
    page.write_text(text, encoding="utf-8")
    (docs / "plots").mkdir(exist_ok=True)
    for name, svg in section.plots.items():
        (docs / "plots" / name).write_text(svg, encoding="utf-8")
