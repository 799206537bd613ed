"""Successive halving: many candidates get a little training, the best of them more, and so on.

References:
  K. Jamieson, A. Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np


def num_survivors(num_candidates: int, keep: float) -> int:
    """How many of a rung's candidates go on: the fraction ``keep``, rounded down, at least one."""
    return max(1, math.floor(num_candidates * keep + 1e-9))


def survivors(
    numbers: Sequence[int], scores: Sequence[float], losses: Sequence[float], *, num_kept: int
) -> tuple[int, ...]:
    """The candidates that go on, best first.

    Args:
      numbers: of the candidates of a rung.
      scores: larger is better; one that is not finite is worse than all that are.
      losses: decide among equal scores, smaller is better; then the smaller number.
      num_kept: how many go on.

    Returns:
      ``num_kept`` of the numbers.

    Raises:
      ValueError: if lengths differ or fewer candidates than that are there.

    Example:
      >>> survivors([3, 5, 8], [0.5, 0.7, 0.7], [1.0, 0.9, 0.8], num_kept=2)
      (8, 5)
    """
    if not len(numbers) == len(scores) == len(losses):
        raise ValueError(f"scores: expected {len(numbers)}, one per candidate, and as many losses, got {len(scores)}")
    if not 0 < num_kept <= len(numbers):
        raise ValueError(f"num_kept: expected a number from 1 to {len(numbers)}, got {num_kept}")
    score, loss = (np.asarray(x, np.float64) for x in (scores, losses))
    score = np.where(np.isfinite(score), score, -np.inf)
    loss = np.where(np.isfinite(loss), loss, np.inf)
    order = np.lexsort((np.asarray(numbers), loss, -score))
    return tuple(int(numbers[i]) for i in order[:num_kept])


def check_rungs(rungs: Sequence[int], keep: float) -> None:
    """Holds the options of a search against what they mean.

    Raises:
      ValueError: for budgets that do not increase, or a fraction outside (0, 1].
    """
    if not rungs or rungs[0] < 1 or any(b <= a for a, b in itertools.pairwise(rungs)):
        raise ValueError(f"search.rungs: expected increasing numbers of images, got {tuple(rungs)}")
    if not 0 < keep <= 1:
        raise ValueError(f"search.keep: expected a fraction above 0 and up to 1, got {keep}")
