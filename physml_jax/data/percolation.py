"""States of site percolation with their density, spanning and correlation labels, simulated on the fly or stored.

Beside ordinary states there are the sets on which a reader of the density fails, see
:mod:`physml_jax.simulators.percolation.adversarial`. A record that is stored holds its lattice as float32: 40 kB at
L = 100, so 12.4 GB for the 310,000 published states.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.simulators import percolation
from physml_jax.typing import Dataset

#: The 31 densities of the published data set: coarse far from the transition, steps of 0.005 around it.
PUBLISHED_DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, *(round(0.55 + 0.005 * i, 3) for i in range(23)), 0.7, 0.8, 0.9)
#: Where half of the states of L = 100 span in either direction: the published border between "below" and "above".
PUBLISHED_THRESHOLD = 0.585

STATES = ("random", "bernoulli", "pivotal", "cross_cut", "row_cut", "path", "anti_path", "lines", "empty_lines")
SUBSETS = ("all", "below", "above")
_WALKS = {"path": percolation.path, "anti_path": percolation.anti_path}
_CUTS = {"cross_cut": percolation.cross_cut, "row_cut": percolation.row_cut}
_LENGTHS = {"textbook": percolation.correlation_length, "published": percolation.published_correlation_length}
_SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)
#: Keys that a batch may hold beside the image, each with the form of one example; ``None`` is the form of the image.
TARGETS = {
    "label": _NUMBER,
    "density": _SCALAR,
    "spanning": _NUMBER,
    "vertical": _NUMBER,
    "connected": None,
    "correlation_length": _SCALAR,
    "correlation_class": _NUMBER,
}


def make_dataset(
    *,
    split: str = "train",
    size: int = 100,
    densities: Sequence[float] = PUBLISHED_DENSITIES,
    subset: str = "all",
    num_examples: int | None = None,
    states: str = "random",
    targets: Sequence[str] = ("label", "density", "spanning"),
    correlation: str = "textbook",
    correlation_edges: Sequence[float] = (),
    direction: str = "either",
    law: str = "wandering",
    orientation: str = "vertical",
    thickness: int = 1,
    num_lines: int = 1,
) -> Dataset:
    """Site percolation at given densities: example ``i`` has density number ``i % len(densities)``.

    The kinds of ``states`` are

    * ``random``: exactly ``round(p L^2)`` occupied sites; ``bernoulli``: every site occupied with probability p.
    * ``pivotal``: examples ``2 k`` and ``2 k + 1`` are a pair of states with equally many sites, of which the first
      spans in ``direction`` and the second does not. The pair picks its own density, near the threshold. A row knows
      only its own key, so pair ``k`` is made from a key that depends on the split and on ``k`` but not on the
      experiment's seed: for a given size, every run sees the same pairs.
    * ``cross_cut``, ``row_cut``: no site in ``thickness`` random rows (and columns).
    * ``path``, ``anti_path``: all sites, or none, on a random walk of ``law`` and ``orientation``.
    * ``lines``, ``empty_lines``: all sites, or none, on ``num_lines`` random rows, columns and diagonals of
      ``thickness``.

    An unlimited stream is read in order, so a batch whose size is a multiple of the number of densities holds every
    density equally often; a finite split is shuffled. Networks with batch normalisation learn the density far better
    from the former.

    The last six have ``round(p L^2)`` sites too where what they prescribe permits. Labels are those of the state
    that came out, whatever it was made for.

    Args:
      split: name of the split; splits of other names hold other states of the same distribution.
      size: linear size L.
      densities: fractions of occupied sites, for ``pivotal`` only the classes of ``label``.
      subset: ``"all"`` densities, or those ``"below"`` or ``"above"`` 0.585.
      num_examples: size of the split; ``None`` is an unlimited stream.
      states: what kind of states, see above.
      targets: keys to compute; the correlation keys take longer than all others together.
      correlation: definition of the correlation length: ``"textbook"`` (open boundaries, clusters that do not span),
        or the ``"published"`` one of the data set.
      correlation_edges: for ``correlation_class``: increasing correlation lengths that separate the classes.
      direction: for ``pivotal``: the label that flips, ``"either"`` or ``"vertical"``.
      law: for walks: ``"wandering"``, or ``"staircase"`` as published.
      orientation: for walks: ``"vertical"``, ``"horizontal"`` or ``"both"``.
      thickness: for cuts and lines.
      num_lines: for lines.

    Returns:
      A dataset of ``image`` float32 [L, L, 1] (1 where occupied) and the targets: ``label`` int32 [] (density number
      among those of the subset; for ``pivotal`` that of the nearest density), ``density`` float32 [] (the fraction
      in the image), ``spanning`` and ``vertical`` int32 [] (in either direction; from top to bottom), ``connected``
      float32 [L, L, 1] (1 on sites joined to the first row), ``correlation_length`` float32 [] (lattice units),
      ``correlation_class`` int32 [] (number of edges that the correlation length exceeds).

    Raises:
      ValueError: for a value outside its range or an unknown name; the message names the argument and what exists.
    """
    if size < 1:
        raise ValueError(f"size: expected an integer of at least 1, got {size}")
    if not densities or any(not 0 <= p <= 1 for p in densities):
        raise ValueError(f"densities: expected at least one number, all from 0 to 1, got {tuple(densities)}")
    choices = ("states", states, STATES), ("subset", subset, SUBSETS), ("correlation", correlation, _LENGTHS)
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"{name}: there is no {value!r}; available: {', '.join(known)}")
    unknown = [targets] if isinstance(targets, str) else [t for t in targets if t not in TARGETS]
    if unknown:
        raise ValueError(f"targets: expected a list from {', '.join(TARGETS)}, got {', '.join(map(repr, unknown))}")
    if states == "pivotal" and num_examples is not None and num_examples % 2:
        raise ValueError(f"num_examples: expected an even number, because pivotal states are pairs, got {num_examples}")
    edges = np.asarray(correlation_edges, np.float32)
    if edges.ndim != 1 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ValueError(f"correlation_edges: expected increasing finite numbers, got {tuple(correlation_edges)}")
    if "correlation_class" in targets and not edges.size:
        raise ValueError("correlation_edges: the target correlation_class needs at least one edge")
    side = {"all": 0, "below": -1, "above": 1}[subset]
    chosen = np.array([p for p in densities if not side or np.sign(p - PUBLISHED_THRESHOLD) == side])
    if not chosen.size:
        raise ValueError(f"subset: no density {subset} {PUBLISHED_THRESHOLD} among {tuple(densities)}")
    counts = np.array([round(p * size * size) for p in chosen], np.int32)

    def make_states(keys, indices, number):
        wanted = jnp.asarray(counts)[number]
        if states == "random":
            return percolation.sample(keys, wanted, size=size)
        if states == "bernoulli":
            return percolation.bernoulli(keys, jnp.asarray(chosen, jnp.float32)[number], size=size)
        if states == "pivotal":
            base = stream_key(0, f"pivotal/{split}")
            pairs = jax.vmap(lambda k: jax.random.fold_in(base, k))(indices // 2)
            first, second, _ = percolation.pivotal_pairs(pairs, size=size, direction=direction)
            return jnp.where((indices % 2 == 0)[:, None, None], first, second)
        if states in _CUTS:
            return _CUTS[states](keys, wanted, size=size, thickness=thickness)
        if states in _WALKS:
            return _WALKS[states](keys, wanted, size=size, law=law, orientation=orientation)
        occupied = int(states == "lines")
        return percolation.lines(keys, wanted, size=size, num_lines=num_lines, thickness=thickness, value=occupied)

    def sample(keys, indices):
        number = indices % len(counts)
        lattices = make_states(keys, indices, number)
        density = lattices.sum((1, 2), dtype=jnp.int32).astype(jnp.float32) / (size * size)
        batch = {"image": lattices[..., None].astype(jnp.float32), "density": density}
        if states == "pivotal":
            number = jnp.argmin(jnp.abs(density[:, None] - jnp.asarray(chosen, jnp.float32)[None, :]), axis=1)
        batch["label"] = number.astype(jnp.int32)
        if {"spanning", "vertical"} & set(targets):
            flags = percolation.spanning(lattices)
            batch |= {"spanning": flags.either.astype(jnp.int32), "vertical": flags.vertical.astype(jnp.int32)}
        if "connected" in targets:
            batch["connected"] = percolation.connected_to_top(lattices)[..., None].astype(jnp.float32)
        if {"correlation_length", "correlation_class"} & set(targets):
            length = _LENGTHS[correlation](lattices)
            exceeded = (length[:, None] > jnp.asarray(edges)[None, :]).sum(axis=1, dtype=jnp.int32)
            batch |= {"correlation_length": length, "correlation_class": exceeded}
        return {key: batch[key] for key in spec}

    image = jax.ShapeDtypeStruct((size, size, 1), jnp.float32)
    spec = {"image": image} | {key: image if TARGETS[key] is None else TARGETS[key] for key in targets}
    # Options of one kind of states are checked where they are used; a trace finds a bad one now and not in training.
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    jax.eval_shape(make_states, keys, number, number)
    return Dataset(spec=spec, num_examples=num_examples, sample=sample)
