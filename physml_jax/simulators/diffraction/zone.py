"""A zone axis ready for calculation, on the host in float64: beams, Fourier coefficients, folded tilts cut into
groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import absorption as loss
from physml_jax.simulators.diffraction import beams, chebyshev, excitation, scattering
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import DEFAULT, Conventions

#: Accelerating voltages that the formulas are used for, kV.
VOLTAGES_KV = (30.0, 1000.0)
#: Longest reflection that the tables of form factors hold, 1/angstrom.
TABLE_END = 12.0
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
      wave_number: K = 1 / lambda, 1/angstrom; with refraction that inside the crystal.
      kind: symmetry of the coupling.
      coupling: [2 a + 1, 2 b + 1], U_g / 2K by difference (p, q) of two beams, origin in the middle and 0 there; real
        for kind "real", otherwise complex. With higher layers a third axis.
      mean_absorption: Im U_0 / 2K, 1/angstrom.
      thicknesses: [T], angstrom.
      pool: int [n, d], beams (p, q) that count, with higher layers (p, q, l); the incident one first.
      required: int [R], numbers in the pool of the incident beam and of other wanted reflections.
      outputs: places in ``required`` of the wanted reflections.
      half_width: half the width of the image, 1/angstrom; 0 for a list of tilts.
      shape: of the tilts that were asked for, [H, W] for an image.
      tilts: [P, 2], one tilt per orbit of the symmetry.
      groups: int [C, p], numbers of the tilts of each tile; short tiles repeat their last.
      unfold: int32 [H W], place of every pixel among the C p tilts.
      folded: whether symmetry left out tilts.
      hkl: int32 [u, 3], reflections of ``coupling``, (0, 0, 0) first.
      position: int32 [u], their places in the flattened ``coupling``.
      turns: [u], phase in turns by which U_g is multiplied to shift the origin.
      origin: [3], fractional, the origin of the calculation.
      zone_axis: integers [uvw].
      rows: int [d, 3], Miller indices of the basis of ``pool``.
      basis: [d, 3], the basis in the beam frame, 1/angstrom.
      normal: [3], foil normal in the beam frame.
      mean_potential: Re U_0 in 1/angstrom^2.
      conventions: see there.
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
    shape: tuple[int, ...]
    tilts: np.ndarray
    groups: np.ndarray
    unfold: np.ndarray
    folded: bool
    hkl: np.ndarray
    position: np.ndarray
    turns: np.ndarray
    origin: np.ndarray
    zone_axis: tuple[int, int, int]
    rows: np.ndarray
    basis: np.ndarray
    normal: np.ndarray
    mean_potential: float
    conventions: Conventions


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
    conventions: Conventions = DEFAULT,
    tilts: np.ndarray | None = None,
    fold: bool = True,
    use_inversion: bool = True,
) -> Zone:
    """Calculates potential, symmetry and tilts of a zone axis; the arguments are those of ``bloch.lacbed``.

    Args:
      check: whether the coefficients for a pool that is wider by ``CHECK_FACTOR`` are wanted as well.
      tilts: [..., 2], directions of incidence in place of a square image, 1/angstrom.
      fold: whether symmetry may leave out tilts.
      use_inversion: whether real arithmetic may be used where the projection has an inversion centre.

    Raises:
      ValueError: see ``bloch.lacbed``.
    """
    thicknesses = _check_settings(voltage_kv, half_width, num_pixels, thicknesses, reflections, absorption, max_g)
    has_holz = conventions.laue_zones > 0
    layer = beams.zero_layer(crystal, zone_axis, azimuth_deg=conventions.azimuth_deg, in_space=has_holz)
    half_width = 3.0 * layer.shortest if half_width is None else float(half_width)
    given = beams.tilt_grid(half_width, num_pixels) if tilts is None else _check_tilts(tilts)
    vacuum = 1.0 / scattering.wavelength(float(voltage_kv))
    if np.sqrt((given**2).sum(axis=-1).max()) >= 0.9 * vacuum:
        raise ValueError(f"tilts: expected less than {0.9 * vacuum:.1f} 1/angstrom, got {np.abs(given).max():g}")
    pool = beams.beams_within(layer, max_g)
    wanted = [beams.beam_of(layer, r, in_space=has_holz) for r in reflections]
    rows, vectors = layer.hkl, np.pad(layer.vectors, ((0, 0), (0, 1)))
    if has_holz:
        higher = beams.laue_zones(
            layer,
            conventions.laue_zones,
            given.reshape(-1, 2),
            vacuum,
            max_error=conventions.max_holz_error,
            max_g=TABLE_END / 2,
        )
        pool = np.concatenate([np.pad(pool, ((0, 0), (0, 1))), higher])
        rows, vectors = np.concatenate([rows, layer.holz_hkl[None]]), np.concatenate([vectors, layer.holz_shift[None]])
    required, outputs = _required(pool, [w[: pool.shape[1]] for w in wanted], reflections)

    pq, size, position = _differences(layer, pool, vectors, 2 * max_g * (CHECK_FACTOR if check else 1.0))
    hkl = pq @ rows
    factors = structure_factors(crystal, hkl, form_factors)
    flat_layer = pq[:, 2] == 0 if has_holz else slice(None)
    _check_symmetry(layer, pq[flat_layer][:, :2], factors[flat_layer])
    origin = np.zeros(3) if layer.inversion is None else layer.inversion / 2
    turns = hkl @ origin
    shift = np.exp(2j * np.pi * turns)
    factors = factors * shift
    scale = np.abs(factors).max()
    is_real = use_inversion and bool(np.abs(factors.imag).max() <= 1e-9 * scale)
    kind: chebyshev.Kind = (
        ("real" if is_real else "hermitian") if absorption == 0 else ("symmetric" if is_real else "general")
    )
    with jax.enable_x64(True):
        volume = float(jax.jit(geometry.volume)(np.asarray(crystal.cell, np.float64)))
        made = jax.jit(excitation.beam_geometry, static_argnames=("zone_axis", "conventions"))(
            np.asarray(crystal.cell, np.float64),
            rows.astype(np.float64),
            zone_axis=_integers(zone_axis),
            conventions=conventions,
        )
    gamma = scattering.relativistic_factor(float(voltage_kv))
    u = (factors.real if is_real else factors) * (gamma / (np.pi * volume))
    mean_potential = float(np.real(u[0]))
    wave_number = float(np.sqrt(vacuum**2 + mean_potential)) if conventions.mean_inner_potential else vacuum
    if absorption > 0 and conventions.absorption_model == "thermal":
        lost = structure_factors(crystal, hkl, form_factors, absorptive=True) * shift
        u = u + 1j * (absorption * gamma**2 / (2 * np.pi * volume * vacuum)) * (lost.real if is_real else lost)
    elif absorption > 0:
        u = u * (1.0 + 1j * absorption)
    u = u / (2 * wave_number)
    flat = np.zeros(int(np.prod(size)), u.dtype)
    flat[position[1:]] = u[1:]

    rotations = [np.eye(2)]
    keeps_normal = conventions.foil_normal is None or np.abs(np.asarray(made[1])[:2]).max() < 1e-9
    if fold and tilts is None and keeps_normal:
        rotations = [r for r in layer.rotations if _keeps(r, layer, wanted)]
        if required.size == 1 and outputs == (0,) and not has_holz:
            # Reciprocity: the bright field of A and of its transpose is the same.
            rotations = rotations + [-r for r in rotations]
    if tilts is None:
        first, place = beams.fold(num_pixels, np.array(rotations))
    else:
        first = place = np.arange(given.size // 2)
    chosen = given.reshape(-1, 2)[first]
    num_tiles = -(-len(chosen) // TILE_SIZE)
    groups = beams.tiles(chosen, -(-len(chosen) // num_tiles))
    where = np.empty(len(chosen), np.int64)
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
        half_width=half_width if tilts is None else 0.0,
        shape=given.shape[:-1],
        tilts=chosen,
        groups=groups,
        unfold=where[place].astype(np.int32),
        folded=len(chosen) < given.size // 2,
        hkl=hkl.astype(np.int32),
        position=position.astype(np.int32),
        turns=turns,
        origin=origin,
        zone_axis=_integers(zone_axis),
        rows=rows.astype(np.int32),
        basis=np.asarray(made[0]),
        normal=np.asarray(made[1]),
        mean_potential=mean_potential,
        conventions=conventions,
    )


def wider_pool(zone: Zone, max_g: float) -> np.ndarray:
    """The pool of a zone with further beams of the zero layer behind it, [n, d]: the beams of ``zone.pool`` keep their
    numbers.
    """
    pq = beams.beams_within(zone.layer, max_g)
    pq = np.pad(pq, ((0, 0), (0, zone.pool.shape[1] - 2)))
    known = {tuple(row) for row in zone.pool.tolist()}
    return np.concatenate([zone.pool, pq[[tuple(row) not in known for row in pq.tolist()]]])


def excite(zone: Zone, pool: np.ndarray, tilts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Diagonal and obliquity [P, n] of beams (p, q) or (p, q, l), float64."""
    return excitation.excitation(pool @ zone.basis, tilts, zone.wave_number, zone.normal, zone.conventions)


def _integers(zone_axis) -> tuple[int, int, int]:
    axis = np.asarray(zone_axis).astype(int)
    return tuple(int(i) for i in axis // int(np.gcd.reduce(np.abs(axis))))


def _differences(layer, pool, vectors, radius) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of beams (the origin first), shape of their grid, places in the flattened grid."""
    if pool.shape[1] == 2:
        pq = beams.beams_within(layer, radius)  # they reach twice as far as the beams
        size = 2 * np.abs(pq).max(axis=0) + 1
    else:
        limit = np.ptp(pool, axis=0)
        flat = beams.beams_within(layer, radius)
        limit[:2] = np.maximum(limit[:2], np.abs(flat).max(axis=0))
        n = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in limit), indexing="ij"), axis=-1).reshape(-1, 3)
        g = np.sqrt(((n @ vectors) ** 2).sum(axis=1))
        n, g = n[g <= TABLE_END], g[g <= TABLE_END]
        pq = n[np.argsort(np.round(g, 9), kind="stable")]
        size = 2 * limit + 1
    place, middle = beams.places(pq, tuple(size))
    return pq, size, place + middle


def _check_tilts(tilts) -> np.ndarray:
    tilts = np.asarray(tilts, np.float64)
    if tilts.ndim < 2 or tilts.shape[-1] != 2 or tilts.size == 0 or not np.all(np.isfinite(tilts)):
        raise ValueError(f"tilts: expected finite numbers of shape [..., 2], got shape {tilts.shape}")
    return tilts


def _check_settings(voltage_kv, half_width, num_pixels, thicknesses, reflections, absorption, max_g) -> np.ndarray:
    if not VOLTAGES_KV[0] <= voltage_kv <= VOLTAGES_KV[1]:
        raise ValueError(f"voltage_kv: expected {VOLTAGES_KV[0]:g} to {VOLTAGES_KV[1]:g}, got {voltage_kv!r}")
    for name, value in (("max_g", max_g), ("half_width", half_width)):
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
    g = [pq[:2] @ layer.vectors + (pq[2] if len(pq) > 2 else 0) * layer.holz_shift[:2] for pq in wanted]
    return all(np.allclose(rotation @ v, v, atol=1e-6) for v in g)


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


def structure_factors(crystal: Crystal, hkl: np.ndarray, table: str, *, absorptive: bool = False) -> np.ndarray:
    """F_g in float64 by a program for few shapes: rows in blocks, atoms padded, one of each Friedel pair.

    ``absorptive`` asks for ``absorption.absorptive_structure_factors`` in their place.
    """
    function = loss.absorptive_structure_factors if absorptive else scattering.structure_factors
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
        numbers=pad(crystal.numbers, int(np.asarray(crystal.numbers)[0])),  # not every table holds hydrogen
        occupancies=pad(crystal.occupancies, 0.0),
        b_iso=pad(crystal.b_iso, 0.0),
        u_aniso=pad(crystal.u_aniso, 0.0),
        # Not needed, and their number would compile the program anew.
        rotations=np.zeros((0, 3, 3), np.int32),
        translations=np.zeros((0, 3)),
    )
    with jax.enable_x64(True):
        compiled = jax.jit(function, static_argnames=("table",))
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
