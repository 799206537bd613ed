"""Latent vectors: their principal directions, and how many coordinates a network uses."""

from typing import NamedTuple

import numpy as np

#: A coordinate whose mean varies less than this over the states carries nothing (Burda, Grosse, Salakhutdinov 2016).
ACTIVE = 0.01


class Principal(NamedTuple):
    """Latent vectors along their principal directions.

    Attributes:
      points: float64 [N, Z], the direction of largest variance first.
      share: float64 [Z], shares of the variance.
    """

    points: np.ndarray
    share: np.ndarray


def principal(latent: np.ndarray) -> Principal:
    """Rotates latent vectors to their principal directions.

    Args:
      latent: float ``[N, Z]``.

    Returns:
      The rotated vectors. The sign of a direction is that of its largest component, so that it is no accident.

    Raises:
      ValueError: if the array has another form or a value is not finite.
    """
    latent = np.asarray(latent, np.float64)
    if latent.ndim != 2 or not len(latent) or not np.all(np.isfinite(latent)):
        raise ValueError(f"latent: expected finite vectors [N, Z], got shape {latent.shape}")
    centred = latent - latent.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(latent))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return Principal(centred @ vectors, values / max(values.sum(), 1e-300))


def active_units(latent: np.ndarray) -> int:
    """Number of coordinates whose mean varies by more than ``ACTIVE`` over the states.

    Args:
      latent: float ``[N, Z]``, means of the encoder's Gaussian.

    References:
      Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders (2016), section 5.2.
    """
    return int(np.sum(np.var(np.asarray(latent, np.float64), axis=0) > ACTIVE))
