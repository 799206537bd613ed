"""Site energies of the Anderson model: independent, uniform in a box of full width W around 0."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from physml_jax.typing import Array, Key


def sample_disorder(key: Key, width: Array | float, *, size: int, dtype: DTypeLike = jnp.float32) -> Array:
    """One realisation of the disorder, eps = W (u - 1/2) with u uniform in (0, 1).

    u - 1/2 is an odd multiple of 2^-33, the same one in every dtype, so a float32 and a float64 realisation of one key
    differ by rounding only, and realisations of one key at different W by the factor.

    Args:
      key: typed key.
      width: W, a scalar, in units of the hopping; the full width of the box.
      size: L >= 3.
      dtype: floating dtype of the result; float64 needs ``jax.enable_x64``.

    Returns:
      [L, L, L] of ``dtype``, within [-W/2, W/2].

    Raises:
      ValueError: if ``size`` is smaller than 3, or ``width`` is no scalar, or known to be negative or not finite.

    Example:
      >>> import jax
      >>> disorder = sample_disorder(jax.random.key(0), 16.5, size=4)
      >>> disorder.shape, bool(abs(disorder).max() <= 8.25)
      ((4, 4, 4), True)
    """
    if size < 3:
        raise ValueError(f"size: expected at least 3, got {size}")
    if jnp.ndim(width) != 0:
        raise ValueError(f"width: expected a scalar, got shape {jnp.shape(width)}; map over keys and widths with vmap")
    if not isinstance(width, jax.core.Tracer) and not 0 <= float(width) < float("inf"):
        raise ValueError(f"width: expected a finite number of at least 0, got {width}")
    bits = jax.random.bits(key, (size, size, size), jnp.uint32)
    # Signed numbers are symmetric around 0 and lose nothing to the subtraction of 1/2.
    centred = (jax.lax.bitcast_convert_type(bits, jnp.int32).astype(dtype) + 0.5) * 2.0**-32
    return jnp.asarray(width, dtype) * centred
