"""Symmetry operations on batches of images: drawn at random for augmentation, averaged over for known symmetry."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from physml_jax.typing import Array, Batch, Key

#: Names of the groups: nothing; the four operations of 2mm (mirrors in both axes); the eight of 4mm.
GROUPS = ("none", "c2v", "dihedral")


def check_group(name: str, *, argument: str = "augment") -> None:
    """Refuses an unknown name.

    Raises:
      ValueError: with the argument and the names that exist.
    """
    if name not in GROUPS:
        raise ValueError(f"{argument}: expected one of {', '.join(GROUPS)}, got {name!r}")


def augment(key: Key, batch: Batch, names: Sequence[str], *, group: str) -> Batch:
    """Applies to every example a random element of ``group``, to all of its images the same.

    Images are [B, H, W, C] on grids centred on pixel centres or between them, so mirrors and quarter turns permute
    pixels exactly. Turning or mirroring a crystal about the beam turns or mirrors its potential and its bright-field
    pattern alike, whatever symmetry the crystal has itself; so every element gives a true pair.

    Args:
      key: random key.
      batch: arrays by name.
      names: the keys to transform; those that are no images, [B, n], stay as they are.
      group: ``"none"``, ``"c2v"`` (identity, two mirrors, half turn) or ``"dihedral"`` (also quarter turns and
        diagonal mirrors, for square images).

    Returns:
      A batch with the same keys.

    Raises:
      ValueError: for an unknown group, or images that are not square under ``"dihedral"``.
    """
    check_group(group)
    images = [name for name in names if jnp.ndim(batch[name]) == 4]
    if group == "none" or not images:
        return batch
    draws = jax.random.bernoulli(key, 0.5, (batch[images[0]].shape[0], 3))
    return {**batch, **{name: _transformed(batch[name], draws, group, name) for name in images}}


def symmetrise(x: Array, *, group: str) -> Array:
    """Images averaged over ``group``, which makes them exactly symmetric.

    Where every true image has the symmetry, the average is never farther from the truth than the image was (the mean
    square error cannot grow: it is an orthogonal projection). Bright-field patterns of cubic crystals at [001] all have
    2mm: every cubic group has two-fold axes or screws along the cube edges, and along the beam they project to a
    two-fold axis and to mirrors or glides.

    Args:
      x: [B, H, W, C].
      group: ``"none"``, ``"c2v"`` or ``"dihedral"`` (for square images).

    Returns:
      [B, H, W, C].

    Raises:
      ValueError: for an unknown group.
    """
    check_group(group, argument="symmetry")
    if group == "none":
        return x
    x = 0.5 * (x + x[:, ::-1])
    x = 0.5 * (x + x[:, :, ::-1])
    return x if group == "c2v" else 0.5 * (x + x.transpose(0, 2, 1, 3))


def _transformed(x: Array, draws: Array, group: str, name: str) -> Array:
    """Mirrors in the rows, in the columns and in the diagonal, each where its draw is true: all of 4mm."""
    first, second, third = (draws[:, i].reshape(-1, 1, 1, 1) for i in range(3))
    x = jnp.where(first, x[:, ::-1], x)
    x = jnp.where(second, x[:, :, ::-1], x)
    if group == "c2v":
        return x
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"augment: 'dihedral' needs square images, {name} is {x.shape[1:3]}")
    return jnp.where(third, x.transpose(0, 2, 1, 3), x)
