"""States of site percolation with their density class and spanning label, simulated on the fly or stored."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from physml_jax.simulators import percolation
from physml_jax.typing import Dataset

#: The 31 densities of the published data set: coarse far from the transition, steps of 0.005 around it.
PUBLISHED_DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, *(round(0.55 + 0.005 * i, 3) for i in range(23)), 0.7, 0.8, 0.9)


def make_dataset(
    *,
    split: str = "train",
    size: int = 100,
    densities: Sequence[float] = PUBLISHED_DENSITIES,
    num_examples: int | None = None,
) -> Dataset:
    """Site percolation at exact densities: example ``i`` has density number ``i % len(densities)``.

    Args:
      split: name of the split; splits of other names hold other states of the same distribution.
      size: linear size L.
      densities: fractions of occupied sites; a state has exactly ``round(p L^2)`` of them.
      num_examples: size of the split; ``None`` is an unlimited stream.

    Returns:
      A dataset of ``image`` float32 [L, L, 1] (1 where occupied), ``label`` int32 [] (density number), ``density``
      float32 [] (the exact fraction) and
      ``spanning`` int32 [] (in either direction).

    Raises:
      ValueError: for a size below 1, no densities, or a density outside [0, 1].
    """
    del split  # the keys of the rows already depend on it
    if size < 1:
        raise ValueError(f"size: expected an integer of at least 1, got {size}")
    if not densities or any(not 0 <= p <= 1 for p in densities):
        raise ValueError(f"densities: expected at least one number, all from 0 to 1, got {tuple(densities)}")
    counts = jnp.array([round(p * size * size) for p in densities], jnp.int32)

    def sample(keys, indices):
        label = indices % len(counts)
        states = percolation.sample(keys, counts[label], size=size)
        return {
            "image": states[..., None].astype(jnp.float32),
            "label": label.astype(jnp.int32),
            "density": counts[label].astype(jnp.float32) / (size * size),
            "spanning": percolation.spanning(states).either.astype(jnp.int32),
        }

    shape = jax.ShapeDtypeStruct
    spec = {
        "image": shape((size, size, 1), jnp.float32),
        "label": shape((), jnp.int32),
        "density": shape((), jnp.float32),
        "spanning": shape((), jnp.int32),
    }
    return Dataset(spec=spec, num_examples=num_examples, sample=sample)
