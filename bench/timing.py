"""Timing on a machine that has other things to do: contestants take turns, and are compared within a turn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import thread_time_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS = 15


@dataclass(frozen=True)
class Timing:
    """What one unit of work cost in each round: ns of the thread's processor time."""

    costs: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.costs)

    def text(self, scale: float = 1.0) -> str:
        """`median [min-max]`, in ns divided by `scale`."""
        numbers = (self.median / scale, min(self.costs) / scale, max(self.costs) / scale)
        digits = 1 if numbers[0] >= 1 else 2
        middle, low, high = (f"{number:.{digits}f}" for number in numbers)
        return f"{middle} [{low}-{high}]"

    def over(self, reference: Timing, share: float = 1.0) -> float:
        """Median of the rounds' ratios to `share` of the reference's cost in the same round."""
        return median(mine / (theirs * share) for mine, theirs in zip(self.costs, reference.costs, strict=True))


def compare(contestants: Mapping[str, Callable[[], object]], units: int, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Call each contestant once a round, after a round that does not count. A call does `units` of work."""
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, work in contestants.items():
            start = thread_time_ns()
            work()
            costs[name].append((thread_time_ns() - start) / units)
    return {name: Timing(tuple(found[1:])) for name, found in costs.items()}
