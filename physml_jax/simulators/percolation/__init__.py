"""Site percolation on the square lattice: sampling of states and spanning clusters.

Conventions: a state is bool ``[L, L]``, True where a site is occupied; four neighbours; open boundaries; the first
axis runs from top to bottom.
"""

from physml_jax.simulators.percolation.adversarial import anti_path, cross_cut, lines, path, row_cut
from physml_jax.simulators.percolation.clusters import label_clusters
from physml_jax.simulators.percolation.connectedness import PairConnectedness, pair_connectedness
from physml_jax.simulators.percolation.correlation import correlation_length, published_correlation_length
from physml_jax.simulators.percolation.pivotal import PivotalPairs, pivotal_pairs
from physml_jax.simulators.percolation.sampling import bernoulli, sample
from physml_jax.simulators.percolation.spanning import Spanning, connected_to_top, spanning
from physml_jax.simulators.percolation.statistics import (
    cluster_sizes,
    largest_cluster,
    mean_cluster_size,
    size_distribution,
    spanning_clusters,
    strength,
)
from physml_jax.simulators.percolation.threshold import Threshold, order, spanning_threshold

__all__ = [
    "PairConnectedness",
    "PivotalPairs",
    "Spanning",
    "Threshold",
    "anti_path",
    "bernoulli",
    "cluster_sizes",
    "connected_to_top",
    "correlation_length",
    "cross_cut",
    "label_clusters",
    "largest_cluster",
    "lines",
    "mean_cluster_size",
    "order",
    "pair_connectedness",
    "path",
    "pivotal_pairs",
    "published_correlation_length",
    "row_cut",
    "sample",
    "size_distribution",
    "spanning",
    "spanning_clusters",
    "spanning_threshold",
    "strength",
]
