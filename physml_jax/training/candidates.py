"""The candidates of a search: a config that holds several values of some options, counted through by one integer.

``search.space`` mirrors the config; its leaves list the values of one option, an *axis*. A candidate's number has one
digit per axis, of the base of its number of values; axes are in the order of their dotted names, but the learning rate
is last and so varies fastest. Candidates that differ in nothing else are a *group*: the same network on the same
examples, trained together.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from physml_jax.core.rng import stream_key

RATE = "optim.learning_rate"
#: Sections of a config that a space may vary.
SECTIONS = ("data", "model", "task", "optim")


class Space(NamedTuple):
    """The axes in their order.

    Attributes:
      names: dotted names of options, ``RATE`` last.
      values: of every axis.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


def read_space(config: Mapping[str, Any]) -> Space:
    """The space of a config.

    Args:
      config: nested plain dicts with ``search.space``. A learning rate that is no axis becomes one of a single value.

    Raises:
      ValueError: for an option that the config lacks or that a space cannot vary, an axis without values, a value twice
        or of another type than the config's own.
    """
    axes = dict(_leaves(config["search"]["space"]))
    axes.setdefault(RATE, (option(config, RATE),))
    names = tuple(sorted(axes, key=lambda name: (name == RATE, name)))
    for name in names:
        _check_axis(name, axes[name], config)
    return Space(names, tuple(tuple(axes[name]) for name in names))


def size(space: Space) -> int:
    """How many candidates there are."""
    return math.prod(len(values) for values in space.values)


def num_rates(space: Space) -> int:
    """Learning rates, the size of every group."""
    return len(space.values[-1])


def candidate(space: Space, number: int) -> dict[str, Any]:
    """Values of candidate ``number`` by axis.

    Raises:
      ValueError: if there is no such candidate.

    Example:
      >>> space = Space(("model.kwargs.depth", RATE), ((1, 2), (0.1, 0.01, 0.001)))
      >>> candidate(space, 4)
      {'model.kwargs.depth': 2, 'optim.learning_rate': 0.01}
    """
    if not 0 <= number < size(space):
        raise ValueError(f"number: expected a candidate from 0 to {size(space) - 1}, got {number}")
    found = {}
    for name, values in zip(reversed(space.names), reversed(space.values), strict=True):
        number, digit = divmod(number, len(values))
        found[name] = values[digit]
    return {name: found[name] for name in space.names}


def number_of(space: Space, config: Mapping[str, Any]) -> int:
    """The number of the candidate that has a config's own values.

    Raises:
      ValueError: if one of them is no value of its axis.
    """
    number = 0
    for name, values in zip(space.names, space.values, strict=True):
        value = option(config, name)
        if value not in values:
            known = ", ".join(map(repr, values))
            raise ValueError(f"{name}: expected one of the values of its axis in search.space ({known}), got {value!r}")
        number = number * len(values) + values.index(value)
    return number


def candidate_config(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with the values of a candidate."""
    found = copy.deepcopy(dict(config))
    for name, value in values.items():
        *path, last = name.split(".")
        section = found
        for part in path:
            section = section[part]
        section[last] = value
    return found


def sample(space: Space, num_candidates: int, *, seed: int) -> np.ndarray:
    """Numbers of candidates, int64 [num_candidates] in increasing order: whole groups, drawn without replacement.

    Raises:
      ValueError: for more than there are, or for a part of a group.
    """
    together = num_rates(space)
    if not 0 < num_candidates <= size(space) or num_candidates % together:
        raise ValueError(
            f"search.num_candidates: expected a multiple of the {together} learning rates up to {size(space)}, got "
            f"{num_candidates}"
        )
    order = np.asarray(jax.random.permutation(stream_key(seed, "search/candidates"), size(space) // together))
    groups = np.sort(order[: num_candidates // together]).astype(np.int64)
    return (groups[:, None] * together + np.arange(together)).reshape(-1)


def option(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted option.

    Raises:
      ValueError: if the config has none of that name.
    """
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"search.space: the config has no option {name}")
        value = value[part]
    return value


def _leaves(tree: Mapping[str, Any], prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_axis(name: str, values: Any, config: Mapping[str, Any]) -> None:
    if name.split(".")[0] not in SECTIONS:
        raise ValueError(f"search.space: {name} cannot be searched; only options of {', '.join(SECTIONS)} can")
    own = option(config, name)
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"search.space.{name}: expected at least one value, as a tuple, got {values!r}")
    for value in values:
        number = isinstance(own, float) and isinstance(value, int | float) and not isinstance(value, bool)
        if own is not None and type(value) is not type(own) and not number:
            raise ValueError(f"search.space.{name}: expected values like {own!r}, got {value!r}")
    if len(set(values)) < len(values):
        raise ValueError(f"search.space.{name}: expected different values, got {tuple(values)}")
    if name == RATE and not all(0 < value < float("inf") for value in values):
        raise ValueError(f"search.space.{name}: expected positive numbers, got {tuple(values)}")
