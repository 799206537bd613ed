"""Does a cluster of occupied sites join opposite edges of the lattice?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.typing import Array


class Spanning(NamedTuple):
    """Whether a state spans, bool [B] each. ``vertical`` joins the first and the last row, ``horizontal`` the first
    and the last column.
    """

    vertical: Array
    horizontal: Array

    @property
    def either(self) -> Array:
        """Spans in at least one direction: the label of the published experiments."""
        return self.vertical | self.horizontal

    @property
    def both(self) -> Array:
        """Spans in both directions."""
        return self.vertical & self.horizontal


def spanning(states: Array) -> Spanning:
    """Spanning flags of square lattices with four neighbours and open boundaries.

    A flood starts from all occupied sites of the first row (column) of every state at once and moves one site per
    pass until no state changes, so the
    whole batch shares one loop and there is no per-state control flow.

    Args:
      states: bool [B, L, L].

    Returns:
      ``Spanning``, bool [B] each.

    Raises:
      ValueError: if the states are not boolean squares.
    """
    if states.ndim != 3 or states.shape[1] != states.shape[2] or states.dtype != jnp.bool_:
        raise ValueError(f"states: expected bool [B, L, L], got {states.dtype} {list(states.shape)}")
    flooded = _flood_from_first_row(jnp.concatenate([states, states.swapaxes(1, 2)]))
    joined = flooded[:, -1].any(axis=-1)
    return Spanning(vertical=joined[: len(states)], horizontal=joined[len(states) :])


def _flood_from_first_row(states):
    start = states.at[:, 1:].set(False)

    def grow(carry):
        reached, _ = carry
        padded = jnp.pad(reached, ((0, 0), (1, 1), (1, 1)))
        neighbours = padded[:, 2:, 1:-1] | padded[:, :-2, 1:-1] | padded[:, 1:-1, 2:] | padded[:, 1:-1, :-2]
        grown = reached | (neighbours & states)
        return grown, (grown != reached).any()

    return jax.lax.while_loop(lambda carry: carry[1], grow, (start, jnp.array(True)))[0]
