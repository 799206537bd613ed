"""Pairs of percolation states that no count of sites can tell apart: one site moves, and the label flips."""

from typing import NamedTuple

import jax.numpy as jnp

from physml_jax.simulators.percolation.spanning import connected_to_top, spanning
from physml_jax.simulators.percolation.threshold import order, spanning_threshold
from physml_jax.simulators.percolation.walks import check_choice, check_keys
from physml_jax.typing import Array, Key

DIRECTIONS = ("either", "vertical")


class PivotalPairs(NamedTuple):
    """Two states that differ by the place of one site.

    Attributes:
      spanning_state: bool [B, L, L], spans.
      other_state: bool [B, L, L], has the same number of sites and does not span.
      valid: bool [B], False where there is no such state; then the other state is a copy of the first.
    """

    spanning_state: Array
    other_state: Array
    valid: Array


def pivotal_pairs(keys: Key, *, size: int, direction: str = "either") -> PivotalPairs:
    """Pairs of states with equal numbers of sites and opposite labels that differ by moving one site.

    Sites are occupied in a random order until the state spans. That state is the first of the pair. For the second,
    the last site is taken away and replaced by the next one in the order that does not make the state span; it is a
    uniformly random one of all such sites. Whoever predicts from the number of sites alone is right in exactly one
    of the two.

    Args:
      keys: typed keys [B].
      size: linear size L. The share of valid pairs is 0 at L = 1, 0.68 at 2, 0.80 at 3, 0.96 at 4, and 1 from 8 on.
      direction: the label that flips: ``"either"`` or ``"vertical"``.

    Returns:
      The pairs. ``valid`` is False where every empty site would make the state span, which takes a tiny lattice.

    Raises:
      ValueError: for a bad size or direction, or keys that are not one batch.

    Example:
      >>> import jax
      >>> from physml_jax.simulators.percolation import pivotal_pairs, spanning
      >>> pairs = pivotal_pairs(jax.random.split(jax.random.key(0), 2), size=8)
      >>> bool(pairs.valid.all())
      True
      >>> [bool(b) for b in spanning(pairs.spanning_state).either & ~spanning(pairs.other_state).either]
      [True, True]
    """
    check_keys(keys, size)
    check_choice("direction", direction, DIRECTIONS)
    ranks = order(keys, size=size)
    last = getattr(spanning_threshold(keys, size=size), direction)[:, None] - 1  # rank of the site that completes it
    shape = (len(keys), size, size)
    state = (ranks <= last).reshape(shape)
    before = (ranks < last).reshape(shape)
    free = ~(before | pivotal_sites(before, direction=direction)).reshape(ranks.shape)
    # The ranks after ``last`` are a random order of the other sites, whatever made ``last`` the last.
    # Where none is free, the last site stays where it is.
    moved = jnp.argmin(jnp.where(free, ranks, size * size + (ranks != last)), axis=1)
    other = before | (jnp.arange(size * size)[None, :] == moved[:, None]).reshape(shape)
    spans = getattr(spanning(jnp.concatenate([state, other])), direction)
    return PivotalPairs(state, other, valid=spans[: len(keys)] & ~spans[len(keys) :])


def pivotal_sites(states: Array, *, direction: str = "either") -> Array:
    """Empty sites that would each, occupied alone, make a state span that does not yet.

    Such a site touches the first row or a cluster joined to it, and likewise the last row (or the same with columns).

    Args:
      states: bool [B, L, L], not spanning in ``direction``; in others the answer is the same construction, without
        this meaning.
      direction: ``"either"`` or ``"vertical"``.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad direction, or states that are not boolean squares.
    """
    check_choice("direction", direction, DIRECTIONS)
    turned = [states, states[:, ::-1]]
    if direction == "either":
        across = states.swapaxes(1, 2)
        turned += [across, across[:, ::-1]]
    joined = connected_to_top(jnp.concatenate(turned))
    padded = jnp.pad(joined, ((0, 0), (1, 1), (1, 1)))
    touched = padded[:, 2:, 1:-1] | padded[:, :-2, 1:-1] | padded[:, 1:-1, 2:] | padded[:, 1:-1, :-2]
    touched = jnp.split(touched.at[:, 0].set(True), len(turned))
    pivotal = touched[0] & touched[1][:, ::-1]
    if direction == "either":
        pivotal |= (touched[2] & touched[3][:, ::-1]).swapaxes(1, 2)
    return pivotal & ~states
