"""Published numbers of the percolation experiments, and whether a test set is of the published kind.

Sources:
  D. Bayo, A. Honecker and R. A. Römer, New J. Phys. 25, 113041 (2023), arXiv:2303.15298: data set, labels and the
  scores of ResNet18, means over ten trainings. p_c: J. L. Jacobsen, J. Phys. A 48, 454003 (2015). The accuracy of the
  density alone was counted in two independent simulations of 31,000 states each (2270 and 2283 wrong).
"""

import numpy as np

#: Densities of the published set, 10,000 states each for training and validation, 1,000 for the test.
DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, *(round(0.55 + 0.005 * i, 3) for i in range(23)), 0.7, 0.8, 0.9)
SIZE = 100
#: Where half of the states of L = 100 span in either direction.
THRESHOLD_100 = 0.585
#: Infinite lattice.
CRITICAL_DENSITY = 0.59274605079210
EXPONENT_NU = 4 / 3

#: Counts per 31,000 test states, rows are the truth (not spanning, spanning), columns the answers.
CONFUSION = ((11510.6, 1059.2), (1223.4, 17206.8))
NUM_TEST = 31_000
#: Best accuracy and loss on the validation split; the counts above give 0.9264 on the test split.
VALIDATION_ACCURACY = 0.9270
VALIDATION_LOSS = 0.165
TEST_ACCURACY = (CONFUSION[0][0] + CONFUSION[1][1]) / NUM_TEST
#: Accuracy of a predictor that sees only the density, and the uncertainty of that number.
DENSITY_ONLY = (0.9265, 0.0005)


def is_published_distribution(density: np.ndarray, *, size: int) -> bool:
    """Are these states of L = 100 at exactly the published densities, equally many (to one) at each?"""
    found, counts = np.unique(np.asarray(density, np.float64).round(6), return_counts=True)
    return (
        size == SIZE
        and len(found) == len(DENSITIES)
        and bool(np.allclose(found, DENSITIES, atol=1e-6))
        and counts.max() - counts.min() <= 1
    )
