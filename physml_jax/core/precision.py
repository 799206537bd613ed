"""Contractions at the highest precision the device offers.

TF32 on GPUs and bf16 passes on TPUs are fine for networks and wrong for physics, so simulators contract through
these functions.
"""

import functools

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST

einsum = functools.partial(jnp.einsum, precision=HIGHEST)
matmul = functools.partial(jnp.matmul, precision=HIGHEST)
