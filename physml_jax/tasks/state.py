"""The life of a ``TrainState``: made from variables, moved by gradients, read for evaluation."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from physml_jax.typing import Array, TrainState, Tree


def create(
    params: Tree,
    mutable: Tree,
    tx: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    ema_decay: float = 0.0,
) -> TrainState:
    """The state before the first step.

    Args:
      params: initial parameters.
      mutable: other variables of the models, possibly empty.
      tx: the optimizer; or one by name, for parameters that are a dict with the same names.
      ema_decay: with a positive value the state carries a moving average of the parameters.

    Raises:
      ValueError: if ``ema_decay`` is not in [0, 1).
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"task.kwargs.ema_decay: expected a number from 0 to below 1, got {ema_decay}")
    opt = {k: t.init(params[k]) for k, t in tx.items()} if isinstance(tx, Mapping) else tx.init(params)
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, mutable=mutable, opt=opt, ema=ema)


def apply_gradients(
    state: TrainState,
    grads: Tree,
    tx: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    *,
    mutable: Tree | None = None,
    ema_decay: float = 0.0,
) -> TrainState:
    """One optimizer step.

    Args:
      state: the state before.
      grads: gradients, structure of ``state.params``.
      tx: as given to ``create``.
      mutable: new mutable variables; ``None`` keeps the old ones.
      ema_decay: as given to ``create``. The average follows min(decay, (1 + n) / (10 + n)) after n steps, so that
        the first steps do not weigh for ever.
    """
    if isinstance(tx, Mapping):
        moved = {k: t.update(grads[k], state.opt[k], state.params[k]) for k, t in tx.items()}
        updates, opt = {k: u for k, (u, _) in moved.items()}, {k: o for k, (_, o) in moved.items()}
    else:
        updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        n = state.step.astype(jnp.float32)
        decay = jnp.where(_moved(opt), jnp.minimum(ema_decay, (1 + n) / (10 + n)), 1.0)
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
    return state._replace(
        step=state.step + 1, params=params, opt=opt, ema=ema, mutable=state.mutable if mutable is None else mutable
    )


def _moved(opt: Tree) -> Array | bool:
    """Did the update move the parameters? Not in the middle of an accumulation of gradients."""
    first = next(iter(opt.values())) if isinstance(opt, Mapping) else opt
    return first.mini_step == 0 if isinstance(first, optax.MultiStepsState) else True


def evaluation_variables(state: TrainState) -> tuple[Tree, Tree]:
    """(params, mutable) to predict with: the best ones kept, else the moving average, else the current ones."""
    if state.best is not None:
        return state.best.params, state.best.mutable
    return (state.params if state.ema is None else state.ema), state.mutable
