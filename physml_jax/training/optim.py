"""Optimizers and schedules by their optax names."""

import inspect
from collections.abc import Mapping
from typing import Any

import optax

from physml_jax.core.resolve import check_kwargs
from physml_jax.training.freezing import check_patterns, frozen_optimizer

#: Schedules as functions of (learning_rate, num_steps, kwargs); every one starts at the learning rate.
SCHEDULES = ("constant", "cosine", "linear", "hold_then_linear", "step")


def make_schedule(
    name: str, learning_rate: float, num_steps: int, *, warmup_steps: int = 0, **kwargs: Any
) -> optax.Schedule:
    """A learning-rate schedule over the whole run.

    Args:
      name: ``constant``; ``cosine`` (to 0 at the end); ``linear`` (to 0 at the end); ``hold_then_linear`` (constant
        for the share ``hold``, default 0.5, then
        linearly to 0, the pix2pix schedule); ``step`` (times ``factor`` every ``every`` steps).
      learning_rate: value at the start, after the warm-up.
      num_steps: length of the run.
      warmup_steps: linear rise from 0 over so many steps.
      **kwargs: ``hold`` or ``factor`` and ``every``.

    Raises:
      ValueError: for an unknown name or option.
    """
    length = max(1, num_steps - warmup_steps)
    makers = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, length),
        "linear": lambda: optax.linear_schedule(learning_rate, 0.0, length),
        "hold_then_linear": lambda *, hold=0.5: optax.linear_schedule(
            learning_rate, 0.0, max(1, round(length * (1 - hold))), transition_begin=round(length * hold)
        ),
        "step": lambda *, every, factor=0.1: optax.exponential_decay(learning_rate, every, factor, staircase=True),
    }
    if name not in makers:
        raise ValueError(f"optim.schedule.name: there is no schedule {name!r}; available: {', '.join(SCHEDULES)}")
    try:
        schedule = makers[name](**kwargs)
    except TypeError as error:
        raise ValueError(f"optim.schedule: {error}") from None
    if warmup_steps:
        schedule = optax.join_schedules(
            [optax.linear_schedule(0.0, learning_rate, warmup_steps), schedule], [warmup_steps]
        )
    return schedule


def make_optimizer(optim: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
    """The optimizer that ``config.optim`` describes.

    Args:
      optim: ``name`` (an optax optimizer such as ``adam``), ``learning_rate``, ``kwargs`` (its other arguments),
        ``schedule`` (``name`` and options), ``clip_norm`` (global gradient norm, 0 for none), ``accumulate``
        (micro-batches per step; the optimizer then moves once per so many calls) and, optionally, ``frozen``
        (patterns of parameters that do not move, see ``freezing``).
      num_steps: length of the run.

    Raises:
      ValueError: for an unknown name, option or a learning rate that is not positive.
    """
    name, rate = optim["name"], optim["learning_rate"]
    maker = getattr(optax, name, None)
    if not callable(maker) or "learning_rate" not in inspect.signature(maker).parameters:
        known = [n for n in dir(optax) if n[0].islower() and _is_optimizer(getattr(optax, n))]
        raise ValueError(f"optim.name: optax has no optimizer {name!r}; available: {', '.join(known)}")
    if not rate > 0:
        raise ValueError(f"optim.learning_rate: expected a positive number, got {rate}")
    if optim["accumulate"] < 1:
        raise ValueError(f"optim.accumulate: expected an integer of at least 1, got {optim['accumulate']}")
    check_kwargs("optim.kwargs", maker, optim["kwargs"])
    schedule = dict(optim["schedule"])
    tx = maker(make_schedule(schedule.pop("name"), rate, num_steps, **schedule), **optim["kwargs"])
    if optim["clip_norm"]:
        tx = optax.chain(optax.clip_by_global_norm(optim["clip_norm"]), tx)
    if frozen := check_patterns(optim.get("frozen", ())):
        tx = frozen_optimizer(tx, frozen)
    if optim["accumulate"] > 1:
        tx = optax.MultiSteps(tx, optim["accumulate"]).gradient_transformation()
    return tx


def _is_optimizer(thing):
    try:
        return "learning_rate" in inspect.signature(thing).parameters
    except (TypeError, ValueError):
        return False
