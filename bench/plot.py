"""Line plots as SVG, by hand: axes with ticks and labels, curves, points, a legend."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 720, 420
FONT = 'font-family="sans-serif" font-size="12"'
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 55
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by everyone


@dataclass(frozen=True)
class Axis:
    """A range, with the values that get a tick; `log` for a logarithmic one."""

    label: str
    ticks: Sequence[float]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies between the first tick (0) and the last (1); what lies beyond is drawn on the edge."""
        low, high, at = self.ticks[0], self.ticks[-1], min(max(value, self.ticks[0]), self.ticks[-1])
        return log10(at / low) / log10(high / low) if self.log else (at - low) / (high - low)


@dataclass(frozen=True)
class Curve:
    """Values to draw as a line, or with `dots` as points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


def svg(title: str, x: Axis, y: Axis, curves: Sequence[Curve], legend: int = TOP + 10) -> str:
    """The plot as a document of its own; `legend` is how far from the top its first line stands."""

    def across(value: float) -> float:
        return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)

    def text(at_x: float, at_y: float, content: str, anchor: str = "middle", extra: str = "") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}"{extra}>{escape(content)}</text>'

    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 22, title, extra=' font-size="15"'),
        text((LEFT + right) / 2, HEIGHT - 14, x.label),
        text(18, (TOP + bottom) / 2, y.label, extra=f' transform="rotate(-90 18 {(TOP + bottom) / 2})"'),
    ]
    for tick in x.ticks:
        parts.append(f'<path d="M{across(tick):.1f} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(text(across(tick), bottom + 18, f"{tick:g}"))
    for tick in y.ticks:
        parts.append(f'<path d="M{LEFT} {down(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(text(LEFT - 8, down(tick) + 4, f"{tick:g}", "end"))
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        points = [(across(a), down(b)) for a, b in zip(curve.x, curve.y, strict=True)]
        if curve.dots:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>' for a, b in points]
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<rect x="{right - 200}" y="{legend + 18 * number}" width="16" height="4" fill="{colour}"/>')
        parts.append(text(right - 178, legend + 6 + 18 * number, curve.label, "start"))
    return "\n".join([*parts, "</svg>\n"])
