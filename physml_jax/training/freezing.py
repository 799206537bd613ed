"""Frozen parts of a network: parameters that do not move, in layers that act as in evaluation.

A pattern is a regular expression that is matched from the start of a parameter's path, such as
``BasicBlock_0/Conv_0/kernel``; ``(?!head/)`` is everything but the head. What it freezes gets no gradient (the backward
pass through it falls away where nothing before it is trained), no update and no weight decay, its batch normalisation
uses and keeps the running statistics, and its dropout is off.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn

from physml_jax.typing import Tree


class Model(NamedTuple):
    """What a task uses of a Linen module."""

    init: Callable[..., Tree]
    apply: Callable[..., Any]


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns of ``optim.frozen``, as regular expressions that exist.

    Raises:
      ValueError: for text in place of a sequence, or a pattern that is no regular expression.
    """
    if isinstance(patterns, str):
        raise ValueError(f"optim.frozen: expected a sequence of regular expressions, got the text {patterns!r}")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"optim.frozen: {pattern!r} is no regular expression ({error})") from None
    return tuple(patterns)


def frozen_labels(params: Tree, patterns: Sequence[str]) -> Tree:
    """``"frozen"`` or ``"trained"`` for every parameter.

    Raises:
      ValueError: for a pattern without a parameter, or if nothing would be trained.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = ["/".join(str(getattr(k, "key", k)) for k in path) for path, _ in leaves]
    for pattern in patterns:
        if not any(re.match(pattern, path) for path in paths):
            modules = sorted({path.split("/")[0] for path in paths})
            raise ValueError(f"optim.frozen: no parameter matches {pattern!r}; modules: {', '.join(modules)}")
    labels = ["frozen" if _matches(patterns, path) else "trained" for path in paths]
    if patterns and "trained" not in labels:
        raise ValueError(f"optim.frozen: nothing would be trained; the patterns match all {len(paths)} parameters")
    return jax.tree_util.tree_unflatten(structure, labels)


def frozen_model(model: nn.Module, patterns: Sequence[str]) -> Model:
    """``model`` with its frozen parts in evaluation mode and without gradients.

    Args:
      model: a Linen module.
      patterns: as above; a layer without parameters is matched by its own path.

    Returns:
      ``init`` of the model, and its ``apply``.
    """

    def intercept(call, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        for kind, option, below in ((nn.BatchNorm, "use_running_average", "scale"), (nn.Dropout, "deterministic", "")):
            if isinstance(module, kind) and context.method_name == "__call__" and _matches(patterns, f"{path}/{below}"):
                if getattr(module, option) is None:
                    kwargs = {**kwargs, option: True}
                else:  # given to the constructor; the module lives as long as this call of ``apply``
                    object.__setattr__(module, option, True)
        return call(*args, **kwargs)

    def apply(variables, *args, **kwargs):
        params = variables["params"]
        labels = frozen_labels(params, patterns)
        params = jax.tree.map(lambda p, label: jax.lax.stop_gradient(p) if label == "frozen" else p, params, labels)
        with nn.intercept_methods(intercept):
            return model.apply({**variables, "params": params}, *args, **kwargs)

    return Model(init=model.init, apply=apply)


def frozen_optimizer(tx: optax.GradientTransformation, patterns: Sequence[str]) -> optax.GradientTransformation:
    """``tx`` for the trained parameters only; it keeps no state for the frozen ones."""
    transforms = {"trained": tx, "frozen": optax.set_to_zero()}
    return optax.multi_transform(transforms, lambda params: frozen_labels(params, patterns))


def _matches(patterns, path):
    return any(re.match(pattern, path) for pattern in patterns)
