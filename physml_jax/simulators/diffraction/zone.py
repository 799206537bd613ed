"""A zone axis ready for calculation, on the host in float64: beams, Fourier coefficients, folded tilts cut into
groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import beams, chebyshev, scattering
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal

#: Radius of the pool of beams, 1/angstrom: for heavy elements in small cells (2.75 leaves 0.16 in tungsten).
MAX_G = 4.0
#: The pool of the convergence check is wider by this factor.
CHECK_FACTOR = 1.25
#: Tilts of one tile: small enough that the states of a few hundred beams stay in a processor's cache.
TILE_SIZE = 136


class Zone(NamedTuple):
    """What all tiles of a pattern share.

    Attributes:
      layer: the zero layer.
      wave_number: K = 1 / lambda, 1/angstrom.
      kind: symmetry of the coupling.
      coupling: [2 a + 1, 2 b + 1], U_g / 2K by difference (p, q) of two beams, origin in the middle and 0 there; real
        for kind "real", otherwise complex.
      mean_absorption: Im U_0 / 2K, 1/angstrom.
      thicknesses: [T], angstrom.
      pool: int [n, 2], beams that count; the incident one first.
      required: int [R], numbers in the pool of the incident beam and of other wanted reflections.
      outputs: places in ``required`` of the wanted reflections.
      half_width: half the width of the image, 1/angstrom.
      tilts: [P, 2], one tilt per orbit of the symmetry.
      groups: int [C, p], numbers of the tilts of each tile; short tiles repeat their last.
      unfold: int32 [H W], place of every pixel among the C p tilts.
      hkl: int32 [u, 3], reflections of ``coupling``, (0, 0, 0) first.
      position: int32 [u], their places in the flattened ``coupling``.
      turns: [u], phase in turns by which U_g is multiplied to shift the origin.
    """

    layer: beams.ZeroLayer
    wave_number: float
    kind: chebyshev.Kind
    coupling: np.ndarray
    mean_absorption: float
    thicknesses: np.ndarray
    pool: np.ndarray
    required: np.ndarray
    outputs: tuple[int, ...]
    half_width: float
    tilts: np.ndarray
    groups: np.ndarray
    unfold: np.ndarray
    hkl: np.ndarray
    position: np.ndarray
    turns: np.ndarray


def prepare(
    crystal: Crystal,
    *,
    zone_axis: tuple[int, int, int],
    voltage_kv: float,
    half_width: float | None,
    num_pixels: int,
    thicknesses: Sequence[float],
    reflections: Sequence[tuple[int, int, int]],
    absorption: float,
    max_g: float,
    form_factors: str,
    check: bool,
) -> Zone:
    """Calculates potential, symmetry and tilts of a zone axis; the arguments are those of ``bloch.lacbed``.

    Args:
      check: whether the coefficients for a pool that is wider by ``CHECK_FACTOR`` are wanted as well.

    Raises:
      ValueError: see ``bloch.lacbed``.
    """
    thicknesses = _check_settings(voltage_kv, half_width, num_pixels, thicknesses, reflections, absorption, max_g)
    layer = beams.zero_layer(crystal, zone_axis)
    pool = beams.beams_within(layer, max_g)
    wanted = [beams.beam_of(layer, r) for r in reflections]
    required, outputs = _required(pool, wanted, reflections)

    # Differences of two beams reach twice as far as the beams.
    pq = beams.beams_within(layer, 2 * max_g * (CHECK_FACTOR if check else 1.0))
    size = 2 * np.abs(pq).max(axis=0) + 1
    position = (pq[:, 0] + size[0] // 2) * size[1] + pq[:, 1] + size[1] // 2
    hkl = pq @ layer.hkl
    factors = structure_factors(crystal, hkl, form_factors)
    _check_symmetry(layer, pq, factors)
    turns = np.zeros(len(hkl)) if layer.inversion is None else hkl @ layer.inversion / 2
    factors = factors * np.exp(2j * np.pi * turns)
    scale = np.abs(factors).max()
    is_real = bool(np.abs(factors.imag).max() <= 1e-9 * scale)
    kind: chebyshev.Kind = (
        ("real" if is_real else "hermitian") if absorption == 0 else ("symmetric" if is_real else "general")
    )
    with jax.enable_x64(True):
        volume = float(jax.jit(geometry.volume)(np.asarray(crystal.cell, np.float64)))
    wave_number = 1.0 / scattering.wavelength(float(voltage_kv))
    u = factors * (scattering.relativistic_factor(float(voltage_kv)) / (np.pi * volume))
    u = (u.real if is_real else u) * (1.0 if absorption == 0 else 1.0 + 1j * absorption) / (2 * wave_number)
    flat = np.zeros(size[0] * size[1], u.dtype)
    flat[position[1:]] = u[1:]

    half_width = 3.0 * layer.shortest if half_width is None else float(half_width)
    bright = required.size == 1
    rotations = [r for r in layer.rotations if _keeps(r, layer, wanted)]
    if bright and outputs == (0,):  # reciprocity: the bright field of A and of its transpose is the same
        rotations = rotations + [-r for r in rotations]
    first, place = beams.fold(num_pixels, np.array(rotations))
    tilts = beams.tilt_grid(half_width, num_pixels).reshape(-1, 2)[first]
    num_tiles = -(-len(tilts) // TILE_SIZE)
    groups = beams.tiles(tilts, -(-len(tilts) // num_tiles))
    where = np.empty(len(tilts), np.int64)
    where[groups.reshape(-1)[::-1]] = np.arange(groups.size)[::-1]
    return Zone(
        layer=layer,
        wave_number=wave_number,
        kind=kind,
        coupling=flat.reshape(size),
        mean_absorption=float(np.imag(u[0])),
        thicknesses=thicknesses,
        pool=pool,
        required=required,
        outputs=outputs,
        half_width=half_width,
        tilts=tilts,
        groups=groups,
        unfold=where[place].astype(np.int32),
        hkl=hkl.astype(np.int32),
        position=position.astype(np.int32),
        turns=turns,
    )


def _check_settings(voltage_kv, half_width, num_pixels, thicknesses, reflections, absorption, max_g) -> np.ndarray:
    for name, value in (("voltage_kv", voltage_kv), ("max_g", max_g), ("half_width", half_width)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if num_pixels < 1:
        raise ValueError(f"num_pixels: expected an integer of at least 1, got {num_pixels!r}")
    if not (np.isfinite(absorption) and absorption >= 0):
        raise ValueError(f"absorption: expected a number of at least 0, got {absorption!r}")
    t = np.asarray(thicknesses, np.float64)
    if t.ndim != 1 or t.size == 0 or not np.all(np.isfinite(t)) or np.any(t < 0):
        raise ValueError(f"thicknesses: expected a list of numbers of at least 0, got {thicknesses!r}")
    if np.ndim(reflections) != 2 or np.shape(reflections)[1] != 3 or np.any(np.asarray(reflections) % 1):
        raise ValueError(f"reflections: expected a list of (h, k, l), got {reflections!r}")
    return t


def _required(pool, wanted, reflections) -> tuple[np.ndarray, tuple[int, ...]]:
    """The incident beam and the wanted ones as numbers in the pool without repeats; places of the wanted ones."""
    numbers = [0]
    outputs = []
    for pq, hkl in zip(wanted, reflections, strict=True):
        found = np.flatnonzero((pool == pq).all(axis=1))
        if not found.size:
            raise ValueError(f"reflections: {tuple(hkl)} lies outside the pool of beams; raise max_g")
        if found[0] not in numbers:
            numbers.append(int(found[0]))
        outputs.append(numbers.index(int(found[0])))
    return np.array(numbers), tuple(outputs)


def _keeps(rotation, layer, wanted) -> bool:
    return all(np.allclose(rotation @ (pq @ layer.vectors), pq @ layer.vectors, atol=1e-6) for pq in wanted)


def _check_symmetry(layer: beams.ZeroLayer, pq: np.ndarray, factors: np.ndarray) -> None:
    """Folding trusts the crystal's operations, so moduli of structure factors must obey them."""
    limit = np.abs(pq).max(axis=0)
    grid = np.full(2 * limit + 1, np.nan)
    grid[pq[:, 0] + limit[0], pq[:, 1] + limit[1]] = np.abs(factors)
    inverse = np.linalg.inv(layer.vectors)
    for rotation in layer.rotations:
        image = np.round(pq @ layer.vectors @ rotation.T @ inverse).astype(int)
        inside = (np.abs(image) <= limit).all(axis=1)
        image = image[inside] + limit
        change = np.abs(grid[image[:, 0], image[:, 1]] - np.abs(factors[inside]))
        if np.nanmax(change) > 1e-4 * np.abs(factors).max():
            raise ValueError(
                "crystal: its atoms do not have the symmetry that its operations claim (structure factors of equivalent"
                f" reflections differ by {np.nanmax(change) / np.abs(factors).max():.1e} of the largest)"
            )


def structure_factors(crystal: Crystal, hkl: np.ndarray, table: str) -> np.ndarray:
    """F_g in float64 by a program for few shapes: rows in blocks, atoms padded, one of each Friedel pair."""
    scattering.check_elements(np.asarray(crystal.numbers), table=table)
    half = (hkl[:, 0] > 0) | ((hkl[:, 0] == 0) & ((hkl[:, 1] > 0) | ((hkl[:, 1] == 0) & (hkl[:, 2] >= 0))))
    rows = hkl[half]
    atoms = len(crystal.numbers)
    padding = max(16, 1 << (atoms - 1).bit_length()) - atoms
    block = 1024
    blocks = np.pad(rows, ((0, -len(rows) % block), (0, 0))).reshape(-1, block, 3)

    def pad(x, value):
        x = np.asarray(x)
        x = x.astype(np.float64) if x.dtype.kind == "f" else x
        return np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), constant_values=value)

    padded = crystal._replace(
        cell=np.asarray(crystal.cell, np.float64),
        positions=pad(crystal.positions, 0.0),
        numbers=pad(crystal.numbers, 1),
        occupancies=pad(crystal.occupancies, 0.0),
        b_iso=pad(crystal.b_iso, 0.0),
        u_aniso=pad(crystal.u_aniso, 0.0),
        # Not needed, and their number would compile the program anew.
        rotations=np.zeros((0, 3, 3), np.int32),
        translations=np.zeros((0, 3)),
    )
    with jax.enable_x64(True):
        compiled = jax.jit(scattering.structure_factors, static_argnames=("table",))
        values = np.concatenate([np.asarray(compiled(padded, b.astype(np.float64), table=table)) for b in blocks])
    values = values[: len(rows)]
    if not np.all(np.isfinite(values)):
        raise ValueError("crystal: its structure factors are not finite")
    out = np.empty(len(hkl), np.complex128)
    out[half] = values
    nonzero = rows.any(axis=1)
    # F_-g = conj(F_g): sorted alike, the rows of one half are the negated rows of the other.
    other = np.flatnonzero(~half)
    out[other[np.lexsort(-hkl[other].T)]] = values[nonzero][np.lexsort(rows[nonzero].T)].conj()
    return out
