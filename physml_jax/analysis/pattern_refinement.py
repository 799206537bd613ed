r"""Orientation, scale, centre and ellipticity of a pattern by least squares through the kinematic simulator.

A matched spot is predicted at q = (1 + E) p(R) / f + c: p is its position in the simulation, f the factor by which the
given scale is to be multiplied, c the shift of the centre, E = [[e1, e2], [e2, -e1]] the ellipticity. R = r R_0 with a
small rotation r. Near a zone axis positions hardly depend on the tilt; intensities do, through the excitation errors:
ln I = ln(I_0 (F^2 + F_0^2) S(s / w)) with a Lorentzian S of width w, under a loss that forgives (pseudo-Huber), because
dynamical diffraction moves intensities by factors and fills weak reflections (F_0). I_0 and w are free. Scale, centre,
ellipticity and ln w have normal priors, and so has every s: what is seen lies near the Ewald sphere.

Levenberg-Marquardt in float64 with Jacobians by forward differentiation of the simulator; all hypotheses at once.
Standard errors are those of least squares, enlarged where the residuals exceed what the errors of the spots allow.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum, matmul
from physml_jax.simulators.diffraction import kinematic, orientations
from physml_jax.simulators.diffraction.compaction import WORD
from physml_jax.simulators.diffraction.reflections import Reflections
from physml_jax.simulators.diffraction.shape_factors import shape_factor
from physml_jax.typing import Array

#: Parameters: rotation vector (3), ln f, c (2), e1, e2, ln w, ln I_0.
NUM_PARAMETERS = 10
#: Standard deviation of ln I from what kinematic theory leaves out.
LOG_INTENSITY_ERROR = 1.0
#: F_0 as a share of the largest structure factor among the matched spots.
LEVEL = 0.3
#: Standard deviation of the excitation errors of spots that are seen, 1/angstrom.
_NEAR = 0.015
#: Hypotheses are refined in multiples of this number.
_BATCH = 16
#: Iterations; most converge within ten.
_ITERATIONS = 30
#: Width of the Lorentzian (as in ``shape_factors``) to start from, 1/angstrom, and the spread of its logarithm.
_WIDTH, _WIDTH_SPREAD = 0.03, 0.5


class Priors(NamedTuple):
    """Standard deviations of what is refined about its given value; 0 keeps it fixed.

    Attributes:
      scale: of ln f.
      centre: of either coordinate, 1/angstrom.
      ellipticity: of e1 and e2.
      tilt: of the rotation, radians: keeps what no spot decides.
    """

    scale: float
    centre: float
    ellipticity: float
    tilt: float = 0.1


class Refined(NamedTuple):
    """Refined hypotheses, NumPy float64 with one row per hypothesis.

    Attributes:
      rotations: [H, 3, 3], crystal to lab.
      factors: [H], the true scale over the given one.
      shifts: [H, 2], c in 1/angstrom of the given scale, y up.
      ellipticity: [H, 2], e1 and e2.
      width: [H], w, 1/angstrom.
      errors: [H, 10], standard errors of the parameters in the order of the module, 0 where fixed; rotations in radians
        about the lab's axes.
      predicted: [H, N, 2], positions of the matched spots in units of the observed ones.
      excitation_errors: [H, N], 1/angstrom.
      chi2: [H], mean square of the residuals of the positions over their errors.
    """

    rotations: np.ndarray
    factors: np.ndarray
    shifts: np.ndarray
    ellipticity: np.ndarray
    width: np.ndarray
    errors: np.ndarray
    predicted: np.ndarray
    excitation_errors: np.ndarray
    chi2: np.ndarray


def refine(
    plans: list[Reflections],
    hkl: np.ndarray,
    structure_factors: np.ndarray,
    matched: np.ndarray,
    rotations: np.ndarray,
    factors: np.ndarray,
    positions: np.ndarray,
    errors: np.ndarray,
    intensities: np.ndarray,
    *,
    priors: Priors,
    use_intensities: np.ndarray | None = None,
) -> Refined:
    """Refines hypotheses whose spots have been given indices.

    Args:
      plans: of every hypothesis' phase; basis and wave number are read.
      hkl: int [H, N, 3], indices of the N observed spots under each hypothesis.
      structure_factors: [H, N], abs(F).
      matched: bool [H, N], which of them count.
      rotations: [H, 3, 3], to start from.
      factors: [H], to start from.
      positions: [N, 2], observed, 1/angstrom.
      errors: [N], their standard deviations.
      intensities: [N], observed.
      priors: see ``Priors``.
      use_intensities: bool [H, N], spots whose intensity counts; ``None`` is all that are matched.

    Returns:
      ``Refined``.
    """
    padding, n, num = -len(positions) % WORD, len(positions), len(rotations)
    # Copies of the last hypothesis fill the batch: few shapes, few programs.
    batch = np.minimum(np.arange(-(-num // _BATCH) * _BATCH), num - 1)
    plans, hkl, structure_factors, matched = (
        [plans[i] for i in batch],
        hkl[batch],
        structure_factors[batch],
        matched[batch],
    )
    rotations, factors = rotations[batch], factors[batch]
    use_intensities = None if use_intensities is None else use_intensities[batch]
    rows = ((0, 0), (0, padding))
    use = matched if use_intensities is None else matched & use_intensities
    with jax.enable_x64(True):
        found = _program()(
            np.stack([np.asarray(p.basis, np.float64) for p in plans]),
            np.array([float(p.wave_number) for p in plans]),
            np.pad(hkl, (*rows, (0, 0))).astype(np.int32),
            np.pad(np.asarray(structure_factors, np.float64), rows, constant_values=1.0),
            np.pad(matched, rows).astype(np.float64),
            np.pad(use, rows).astype(np.float64),
            np.asarray(rotations, np.float64),
            np.log(np.asarray(factors, np.float64)),
            np.pad(np.asarray(positions, np.float64), (rows[1], (0, 0))),
            np.pad(np.asarray(errors, np.float64), rows[1], constant_values=1.0),
            np.pad(np.log(np.asarray(intensities, np.float64)), rows[1]),
            np.array(priors, np.float64),
        )
    parameters, turned, standard, predicted, s, chi2 = (np.asarray(x)[:num] for x in found)
    return Refined(
        rotations=turned,
        factors=np.exp(parameters[:, 3]),
        shifts=parameters[:, 4:6],
        ellipticity=parameters[:, 6:8],
        width=_WIDTH * np.exp(parameters[:, 8]),
        errors=standard,
        predicted=predicted[:, :n],
        excitation_errors=s[:, :n],
        chi2=chi2,
    )


@functools.cache
def _program():
    return jax.jit(jax.vmap(_refine_one, in_axes=(0,) * 8 + (None,) * 4))


def _refine_one(basis, wave_number, hkl, factors, matched, use, rotation, log_factor, positions, errors, log_i, priors):
    """Levenberg-Marquardt on one hypothesis."""
    plan = Reflections(
        hkl=hkl, structure_factors=factors, basis=basis, wave_number=wave_number,
        coupling=jnp.ones(()), count=jnp.asarray(hkl.shape[0]),
    )  # fmt: skip
    spread = jnp.concatenate([jnp.repeat(priors[3], 3), priors[jnp.array([0, 1, 1, 2, 2])]])
    free = jnp.concatenate([spread > 0, jnp.ones(2, bool)]).astype(basis.dtype)
    factors = jnp.hypot(factors, LEVEL * (matched * factors).max())
    level = (use * (log_i - 2 * jnp.log(factors))).sum() / jnp.maximum(use.sum(), 1)
    start = jnp.zeros(NUM_PARAMETERS).at[3].set(log_factor).at[9].set(level + 0.5)
    centre = jnp.zeros(NUM_PARAMETERS).at[9].set(level)
    wide = jnp.concatenate([jnp.where(spread > 0, spread, 1.0), jnp.array([_WIDTH_SPREAD, 10.0])])

    def model(x):
        turned = matmul(rodrigues(x[:3]), rotation)
        found = kinematic.all_reflections(plan, turned, max_excitation_error=1.0, shape="sharp")
        e = jnp.stack([jnp.stack([1 + x[6], x[7]]), jnp.stack([x[7], 1 - x[6]])])
        predicted = einsum("ij,nj->ni", e, found.positions) * jnp.exp(-x[3]) + x[None, 4:6]
        return predicted, found.excitation_errors, turned

    def residuals(x):
        predicted, s, _ = model(x)
        shape = shape_factor(s, shape="lorentzian", max_excitation_error=_WIDTH * jnp.exp(x[8]), thickness=1.0)
        off = (x[9] + 2 * jnp.log(factors) + jnp.log(shape) - log_i) / LOG_INTENSITY_ERROR
        return jnp.concatenate(
            [
                (matched[:, None] * (predicted - positions) / errors[:, None]).reshape(-1),
                use * _huber(off),
                matched * s / _NEAR,
                free * (x - centre) / wide,
            ]
        )

    def step(state, _):
        x, damping, value = state
        r, jacobian = residuals(x), jax.jacfwd(residuals)(x) * free[None]
        normal = einsum("ri,rj->ij", jacobian, jacobian)
        scale = jnp.diag(normal) + 1e-12
        move = jnp.linalg.solve(normal + jnp.diag(damping * scale + (1 - free)), -einsum("ri,r->i", jacobian, r))
        proposed = x + free * move
        new = (residuals(proposed) ** 2).sum()
        better = new < value
        x = jnp.where(better, proposed, x)
        return (x, jnp.where(better, damping / 5, damping * 4), jnp.where(better, new, value)), None

    first = (start, jnp.asarray(1e-2, basis.dtype), (residuals(start) ** 2).sum())
    (x, _, _), _ = jax.lax.scan(step, first, length=_ITERATIONS)
    predicted, s, turned = model(x)
    jacobian = jax.jacfwd(residuals)(x) * free[None]
    covariance = jnp.linalg.inv(einsum("ri,rj->ij", jacobian, jacobian) + jnp.diag(1 - free))
    squares = (matched[:, None] * ((predicted - positions) / errors[:, None]) ** 2).sum()
    chi2 = squares / jnp.maximum(2 * matched.sum(), 1.0)
    standard = jnp.sqrt(jnp.diag(covariance) * jnp.maximum(chi2, 1.0)) * free
    return x, turned, standard, predicted, s, chi2


def rodrigues(vector: Array) -> Array:
    """The rotation [3, 3] about ``vector`` [3] by twice the arctangent of half its length: its length, if small."""
    return orientations.from_quaternion(jnp.concatenate([jnp.ones(1, vector.dtype), 0.5 * vector]))


def _huber(r):
    """Residuals whose squares grow like abs(r) beyond about 1."""
    # Smooth and odd; the factor keeps the derivative 1 at 0.
    return r / (1.0 + r * r) ** 0.25
