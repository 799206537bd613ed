"""Site percolation on the square lattice: sampling of states and spanning clusters.

Conventions: a state is bool ``[L, L]``, True where a site is occupied; four neighbours; open boundaries; the first
axis runs from top to bottom.
"""

from physml_jax.simulators.percolation.sampling import bernoulli, sample
from physml_jax.simulators.percolation.spanning import Spanning, connected_to_top, spanning
from physml_jax.simulators.percolation.threshold import Threshold, order, spanning_threshold

__all__ = [
    "Spanning",
    "Threshold",
    "bernoulli",
    "connected_to_top",
    "order",
    "sample",
    "spanning",
    "spanning_threshold",
]
