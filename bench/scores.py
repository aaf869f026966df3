"""How well frames were told apart: from scores, or from decisions, against labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.corpus import Mask

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Roc:
    """Share of the other frames that pass (`false_alarms`) and of the speech frames (`hits`), by falling threshold."""

    false_alarms: Floats
    hits: Floats

    @property
    def area(self) -> float:
        """Area under the curve: the chance that a speech frame scores above another one, ties counting half."""
        return float(np.sum(np.diff(self.false_alarms) * (self.hits[1:] + self.hits[:-1]) / 2))


def roc(labels: Mask, scores: Floats) -> Roc:
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(labels[order])[last_of_equals]
    false_alarms = np.cumsum(~labels[order])[last_of_equals]
    return Roc(np.append(0, false_alarms / max(1, false_alarms[-1])), np.append(0, hits / max(1, hits[-1])))


def balanced_accuracy(labels: Mask, decisions: Mask) -> float:
    """Mean of the share of speech frames that were found and of the other frames that were not taken for speech."""
    return float((decisions[labels].mean() + 1 - decisions[~labels].mean()) / 2)


def f1(labels: Mask, decisions: Mask) -> float:
    """Harmonic mean of precision and recall of speech frames."""
    return float(2 * (labels & decisions).sum() / max(1, labels.sum() + decisions.sum()))


def woken(decisions: Mask, needed: int, of: int = 5) -> bool:
    """Whether `needed` of any `of` frames in a row were called speech."""
    return bool(np.convolve(decisions, np.ones(of), "valid").max(initial=0) >= needed)
