"""Crystal structures from diffraction patterns over tilts: what a measured image says about coordinates, thermal
factors, thickness, absorption.

The model of an image is counts = scale x intensity(parameters) + background; scale and background belong to each image
and are solved for linearly. Counts are Poisson numbers. A step solves the equations of maximum likelihood,

    sum_pixels (n - m) / m  dm/dp = 0,

by Fisher scoring: least squares with weights 1 / m from the current model, damped where it does not lower the deviance
(Levenberg and Marquardt). The columns dm/dp are exact, by forward-mode derivatives of the Bloch-wave chain
(``bloch.intensities``), so an iteration costs about 2 k + 1 patterns for k parameters. Uncertainties are those of the
inverse Fisher matrix at the solution, scale and background included.

The beams and the number of Chebyshev terms belong to a plan for the structure at the start; when the parameters have
settled the plan is made anew at their values and the refinement goes on, until a new plan changes nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from physml_jax.analysis import structure_parameters as structure
from physml_jax.analysis.structure_parameters import Directions, Parameter, Specimen
from physml_jax.simulators.diffraction import bloch
from physml_jax.simulators.diffraction.pattern import Conditions, Plan

#: A float32 model whose certificate is above this is calculated in float64; measured images are never that good.
GUARD_LIMIT = 1e-4
#: By how much thickness and spectrum may grow before a plan has to be made anew.
MARGIN = 0.15
#: A variance is at least this many counts: where the model says nothing arrives, a single count is no proof.
MIN_VARIANCE = 1.0
#: Eigenvalues of the scaled normal matrix below this are rounding: the images do not determine a parameter.
SINGULAR = 1e-10
#: New plans of one refinement at most.
MAX_PLANS = 4


class Fit(NamedTuple):
    """A model of the images at some values of the parameters.

    Attributes:
      counts: [T, R, H, W], the model.
      scale: [T, R], counts for an intensity of 1.
      background: [T, R], counts.
      variance: [T, R, H, W], counts squared.
      objective: deviance (with given variances: chi squared).
    """

    counts: np.ndarray
    scale: np.ndarray
    background: np.ndarray
    variance: np.ndarray
    objective: float


class State(NamedTuple):
    """Where a refinement stands; plain numbers, so that it can be stored and gone on from.

    Attributes:
      iteration: finished iterations.
      values: [k].
      damping: of the next step, relative to the diagonal of the normal matrix.
      history: one row per iteration, the first is the start: ``iteration``, ``objective``, ``damping``, ``step`` (the
        largest change of a value in its uncertainties), ``values``, ``new_plan``, ``seconds``.
      plan_values: [k], values that the plan was made for.
      converged: whether nothing is left to do.
    """

    iteration: int
    values: tuple[float, ...]
    damping: float
    history: tuple[dict[str, Any], ...]
    plan_values: tuple[float, ...]
    converged: bool = False


class Refinement(NamedTuple):
    """The result; k parameters, T thicknesses, R reflections.

    Attributes:
      parameters: the parameters, with their start values.
      values: [k].
      uncertainties: [k], standard deviations; of a value at its bound 0. Where variances were not given in counts they
        are scaled by sqrt(chi2 / degrees_of_freedom).
      correlation: [k, k].
      chi2: sum of squared residuals in units of their variance.
      degrees_of_freedom: pixels less parameters.
      fit: the model at the solution.
      residuals: [T, R, H, W], (counts - model) / standard deviation.
      specimen: the refined crystal and plate, float64.
      state: with the history.
    """

    parameters: tuple[Parameter, ...]
    values: np.ndarray
    uncertainties: np.ndarray
    correlation: np.ndarray
    chi2: float
    degrees_of_freedom: int
    fit: Fit
    residuals: np.ndarray
    specimen: Specimen
    state: State


def state_from(stored: Mapping[str, Any]) -> State:
    """The state that ``State._asdict`` gave, after JSON."""
    lists = {k: tuple(stored[k]) for k in ("values", "history", "plan_values")}
    return State(
        int(stored["iteration"]), damping=float(stored["damping"]), converged=bool(stored["converged"]), **lists
    )


def residuals(
    counts: np.ndarray, intensities: np.ndarray, *, variance: np.ndarray | None = None, common_scale: bool = False
) -> tuple[np.ndarray, Fit]:
    """Compares images with a model after the best scale and background of each.

    Args:
      counts: [T, R, H, W], the images.
      intensities: [T, R, H, W], fractions of the incident intensity.
      variance: of every pixel; ``None``: the images are counts of electrons, whose variance is their mean.
      common_scale: one scale for all images (one exposure); otherwise each has its own.

    Returns:
      [T, R, H, W], (counts - model) / standard deviation, and the model.
    """
    shape = counts.shape
    n, x = (np.asarray(a, np.float64).reshape(-1, shape[2] * shape[3]) for a in (counts, intensities))
    v = np.maximum(n, MIN_VARIANCE) if variance is None else np.asarray(variance, np.float64).reshape(n.shape)
    for _ in range(1 if variance is not None else 4):  # the weights are those of the model that they lead to
        scale, background = _linear(n, x, v, common_scale)
        m = scale[:, None] * x + background[:, None]
        if variance is None:
            v = np.maximum(m, MIN_VARIANCE)
    difference = n - m
    if variance is None:
        floor = np.maximum(m, 0.1 * MIN_VARIANCE)
        ratio = np.where(n > 0, n / floor, 1.0)
        objective = 2 * float(np.sum(floor - n + np.where(n > 0, n * np.log(ratio), 0.0)))
    else:
        objective = float(np.sum(difference**2 / v))
    fit = Fit(m.reshape(shape), scale.reshape(shape[:2]), background.reshape(shape[:2]), v.reshape(shape), objective)
    return (difference / np.sqrt(v)).reshape(shape), fit


def refine(
    counts: np.ndarray,
    plate: Specimen,
    names: Sequence[str],
    *,
    settings: Mapping[str, Any],
    variance: np.ndarray | None = None,
    known_variance: bool = True,
    common_scale: bool = False,
    max_iterations: int = 40,
    tolerance: float = 0.02,
    state: State | None = None,
    callback: Callable[[State], None] | None = None,
) -> Refinement:
    """Refines a structure against diffraction patterns over tilts.

    Args:
      counts: [T, R, H, W], images in electrons per pixel (or in any unit, with ``variance``).
      plate: the structure and the specimen to start from, arrays on the host.
      names: what to refine, see ``structure_parameters.parameters``.
      settings: of ``bloch.plan``: ``reflections`` (R of them), ``zone_axis``, ``voltage_kv``, ``half_width``,
        ``max_g``, ``num_strong``, ``form_factors``, ``dtype``, ``conventions``.
      variance: of every pixel, shape of ``counts``; ``None``: Poisson.
      known_variance: False where only the ratios of ``variance`` mean something.
      common_scale: see ``residuals``.
      max_iterations: a refinement that needs more stops with ``state.converged`` False.
      tolerance: steps below this many standard deviations end it.
      state: of an interrupted refinement with the same arguments.
      callback: called after every iteration.

    Returns:
      The refinement.

    Raises:
      ValueError: for images that are not finite or have another shape, a negative count, a parameter that the symmetry
        forbids, or one that the images do not determine; the message names it.
    """
    plate = plate._replace(thicknesses=tuple(float(t) for t in np.ravel(plate.thicknesses)))
    chosen = structure.parameters(plate, names)
    counts, variance = _check(counts, variance, plate, settings)
    _check_absorption(chosen, plate)
    directions = structure.stack(chosen)
    lower, upper = (np.array([getattr(p, f) for p in chosen]) for f in ("lower", "upper"))
    problem = _Problem(counts, variance, common_scale, plate, directions, dict(settings), lower, upper)
    if state is None:
        start = tuple(p.start for p in chosen)
        state = State(0, start, 1e-3, (), start)
    if len(state.values) != len(chosen):
        raise ValueError(f"state: expected {len(chosen)} values, got {len(state.values)}")
    begin = time.monotonic()
    plan = _plan(problem, state.plan_values)
    normal, plan = _normal(problem, plan, np.array(state.values))
    if not state.history:
        row = {"iteration": 0, "objective": normal.objective, "damping": state.damping, "step": 0.0, "new_plan": False}
        state = state._replace(history=(row | {"values": list(state.values), "seconds": time.monotonic() - begin},))
    while not state.converged and state.iteration < max_iterations:
        begin = time.monotonic()
        state, plan, normal = _iterate(problem, plan, state, normal, chosen, tolerance)
        state.history[-1]["seconds"] = time.monotonic() - begin
        if callback:
            callback(state)
    values = np.array(state.values)
    covariance = _covariance(normal, chosen, (values > lower) & (values < upper))
    maps, fit = residuals(counts, normal.intensities, variance=variance, common_scale=common_scale)
    chi2, free = float(np.sum(maps**2)), counts.size - len(values) - normal.num_linear
    if variance is not None and not known_variance:
        covariance = covariance * (chi2 / free)
    errors = np.sqrt(np.diag(covariance))
    with jax.enable_x64(True):
        solution = jax.tree.map(np.asarray, structure.apply(plate, directions, values))
    safe = np.where(errors > 0, errors, 1.0)
    return Refinement(chosen, values, errors, covariance / np.outer(safe, safe), chi2, free, fit, maps, solution, state)


def scan_thickness(
    counts: np.ndarray,
    plate: Specimen,
    thicknesses: Sequence[float],
    *,
    settings: Mapping[str, Any],
    variance: np.ndarray | None = None,
    common_scale: bool = False,
) -> np.ndarray:
    """Objective of every image at many thicknesses: where to start, since the intensity oscillates with thickness.

    Args:
      counts: [T, R, H, W].
      plate: structure and specimen; its thicknesses do not count.
      thicknesses: [N], angstrom; any number costs little more than the largest.
      settings: see ``refine``.
      variance: see ``refine``.
      common_scale: see ``residuals``.

    Returns:
      [T, N]; the smallest entry of a row is the best thickness of that image.
    """
    counts = np.asarray(counts, np.float64)
    found = bloch.lacbed(
        plate.crystal,
        num_pixels=counts.shape[-1],
        thicknesses=thicknesses,
        absorption=float(plate.absorption),
        num_checks=0,
        **settings,
    )
    out = np.empty((len(counts), len(thicknesses)))
    for i, image in enumerate(counts):
        for j, model in enumerate(found.intensities):
            v = None if variance is None else variance[i : i + 1]
            out[i, j] = residuals(image[None], model[None], variance=v, common_scale=common_scale)[1].objective
    return out


class _Problem(NamedTuple):
    counts: np.ndarray
    variance: np.ndarray | None
    common_scale: bool
    plate: Specimen
    directions: Directions
    settings: dict[str, Any]
    lower: np.ndarray
    upper: np.ndarray


class _Normal(NamedTuple):
    """Normal equations at one point: matrix and right side of k + q unknowns, q of scales and backgrounds."""

    matrix: np.ndarray
    right: np.ndarray
    num_linear: int
    objective: float
    intensities: np.ndarray


def _images(values, plate: Specimen, directions: Directions, plan: Plan):
    moved = structure.apply(plate, directions, values)
    absorbs = plan.static.absorption > 0
    conditions = Conditions(
        thicknesses=moved.thicknesses,
        absorption=moved.absorption if absorbs else None,
        tilt=None if plan.static.folded else moved.tilt,
    )
    return bloch.intensities(moved.crystal, plan, conditions, forward_mode=True)


def _with_jacobian(values, plate, directions, plan):
    """Intensities, certificate, and derivatives [..., k]."""

    def twice(v):
        images, guard = _images(v, plate, directions, plan)
        return images, (images, guard)

    jacobian, (images, guard) = jax.jacfwd(twice, has_aux=True)(values)
    return images, guard, jacobian


def _plan(problem: _Problem, values: Sequence[float], dtype: str | None = None) -> Plan:
    """The plan for some values of the parameters, with room for steps."""
    with jax.enable_x64(True):
        at = jax.jit(structure.apply)(_arrays(problem.plate), problem.directions, np.array(values, np.float64))
        at = jax.tree.map(np.asarray, at)
    settings = problem.settings if dtype is None else {**problem.settings, "dtype": dtype}
    return bloch.plan(
        at.crystal,
        num_pixels=problem.counts.shape[-1],
        thicknesses=at.thicknesses.tolist(),
        absorption=float(at.absorption),
        fold=not np.any(problem.directions.tilt) and not np.any(problem.plate.tilt),
        margin=MARGIN,
        **settings,
    )


def _arrays(plate: Specimen) -> Specimen:
    return jax.tree.map(np.asarray, plate._replace(thicknesses=np.array(plate.thicknesses), tilt=np.array(plate.tilt)))


def _evaluate(problem: _Problem, plan: Plan, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Intensities, certificate, Jacobian; ``None`` if the plan does not reach so far."""
    dtype = plan.detuning.dtype
    with jax.enable_x64(dtype == np.float64):
        # jit knows a function by its identity, so a second refinement of the same shapes compiles nothing.
        out = jax.jit(_with_jacobian)(np.asarray(values, dtype), _arrays(problem.plate), problem.directions, plan)
        out = tuple(np.asarray(x) for x in out)
    return out if out[1] < GUARD_LIMIT else None


def _certain(problem: _Problem, plan: Plan, values: np.ndarray) -> tuple[tuple[np.ndarray, ...], Plan]:
    """``_evaluate``, with a plan made for the values where the given one does not do, then in float64."""
    name = plan.detuning.dtype.name
    out = _evaluate(problem, plan, values)
    for dtype in (name, "float64"):
        if out is None:
            plan = _plan(problem, values, dtype)
            out = _evaluate(problem, plan, values)
    if out is None:
        raise ValueError("refine: the Chebyshev series lost its precision; use less thickness or absorption")
    return out, plan


def _normal(problem: _Problem, plan: Plan, values: np.ndarray) -> tuple[_Normal, Plan]:
    (intensities, _, jacobian), plan = _certain(problem, plan, values)
    _, fit = residuals(problem.counts, intensities, variance=problem.variance, common_scale=problem.common_scale)
    num_images, num_pixels = fit.scale.size, intensities.shape[2] * intensities.shape[3]
    rows = jacobian.astype(np.float64).reshape(num_images, num_pixels, -1) * fit.scale.reshape(-1, 1, 1)
    weight = (1.0 / fit.variance).reshape(num_images, num_pixels)
    difference = (problem.counts - fit.counts).reshape(num_images, num_pixels)
    x = intensities.astype(np.float64).reshape(num_images, num_pixels)
    k, q = rows.shape[-1], num_images + (1 if problem.common_scale else num_images)
    matrix, right = np.zeros((k + q, k + q)), np.zeros(k + q)
    for i in range(num_images):
        columns = np.concatenate([rows[i], x[i, :, None], np.ones((num_pixels, 1))], axis=1)
        where = [*range(k), k + (0 if problem.common_scale else i), k + q - num_images + i]
        matrix[np.ix_(where, where)] += columns.T @ (columns * weight[i, :, None])
        right[where] += columns.T @ (difference[i] * weight[i])
    return _Normal(matrix, right, q, fit.objective, intensities), plan


def _reduced(normal: _Normal) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the parameters, [k, k] and [k], after scales and backgrounds are eliminated."""
    k = len(normal.right) - normal.num_linear
    pp, pq, qq = normal.matrix[:k, :k], normal.matrix[:k, k:], normal.matrix[k:, k:]
    solved = np.linalg.lstsq(qq, np.concatenate([pq.T, normal.right[k:, None]], axis=1), rcond=None)[0]
    return pp - pq @ solved[:, :k], normal.right[:k] - pq @ solved[:, k]


def _covariance(normal: _Normal, chosen: Sequence[Parameter], inside: np.ndarray) -> np.ndarray:
    """Inverse of the Fisher matrix; rows of parameters at a bound are zero."""
    matrix, _ = _reduced(normal)
    out = np.zeros_like(matrix)
    rows = np.flatnonzero(inside)
    part = matrix[np.ix_(rows, rows)]
    size = np.sqrt(np.maximum(np.diag(part), 1e-30))
    values, vectors = np.linalg.eigh(part / np.outer(size, size))
    inverse = (vectors / np.maximum(values, SINGULAR)) @ vectors.T
    out[np.ix_(rows, rows)] = inverse / np.outer(size, size)
    return out


def _iterate(problem: _Problem, plan: Plan, state: State, normal: _Normal, chosen, tolerance):
    """One accepted step, or one new plan."""
    values, damping = np.array(state.values), state.damping
    matrix, right = _reduced(normal)
    # At a bound and pushed outwards: stays there.
    held = ((values <= problem.lower) & (right < 0)) | ((values >= problem.upper) & (right > 0))
    covariance = _covariance(normal, chosen, ~held)
    per_pixel = normal.objective / problem.counts.size if problem.variance is not None else 1.0
    errors = np.sqrt(np.diag(covariance) * per_pixel)
    unknown = [p.name for p, e in zip(chosen, errors, strict=True) if e > p.spread]
    if unknown:
        raise ValueError(
            f"refine: these images do not determine {', '.join(unknown)} (it moves atoms along the beam, or does what"
            " another parameter does, or there are too few counts); leave it out"
        )
    rows = np.flatnonzero(~held)
    accepted, size = None, 0.0
    for _ in range(10):
        damped = matrix[np.ix_(rows, rows)]
        damped = damped + damping * np.diag(np.diag(damped))
        step = np.zeros_like(values)
        step[rows] = np.linalg.solve(damped, right[rows])
        trial = np.clip(values + step, problem.lower, problem.upper)
        size = float(np.max(np.abs(trial - values)[rows] / errors[rows], initial=0.0))
        if size < tolerance:
            break
        found, new_plan = _normal(problem, plan, trial)
        if found.objective <= normal.objective * (1 + 1e-9):
            accepted = trial
            break
        damping = max(10 * damping, 1e-3)
    row = {"iteration": state.iteration + 1, "damping": damping, "step": size, "new_plan": False}
    if accepted is not None:
        normal, plan, values, damping = found, new_plan, accepted, max(damping / 10, 1e-7)
        converged = False
    else:
        # Settled with this plan: is a plan made for these values the same?
        moved = np.abs(values - np.array(state.plan_values)) > np.maximum(errors, 1e-12)
        plans = sum(r["new_plan"] for r in state.history)
        converged = not np.any(moved) or plans >= MAX_PLANS
        if not converged:
            row["new_plan"] = True
            plan = _plan(problem, values, plan.detuning.dtype.name)
            normal, plan = _normal(problem, plan, values)
            damping = 1e-3
    row |= {"objective": normal.objective, "values": values.tolist()}
    plan_values = tuple(values.tolist()) if row["new_plan"] else state.plan_values
    return (
        State(row["iteration"], tuple(values.tolist()), damping, (*state.history, row), plan_values, converged),
        plan,
        normal,
    )


def _linear(n, x, v, common_scale) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of scales and backgrounds, [images] each; n, x, v are [images, pixels]."""
    w = 1.0 / v
    s0, sx, sn, sxx, sxn = (np.sum(w * a, axis=1) for a in (1.0, x, n, x * x, x * n))
    numerator, denominator = sxn - sx * sn / s0, sxx - sx * sx / s0
    if common_scale:
        numerator, denominator = np.sum(numerator), np.sum(denominator)
    # A model without contrast has no scale: counts are then all background.
    scale = np.where(denominator > 1e-12 * np.sum(sxx), numerator / np.where(denominator > 0, denominator, 1.0), 0.0)
    scale = np.broadcast_to(scale, s0.shape)
    return scale, (sn - scale * sx) / s0


def _check(counts, variance, plate: Specimen, settings) -> tuple[np.ndarray, np.ndarray | None]:
    counts = np.asarray(counts, np.float64)
    shape = (len(plate.thicknesses), len(settings.get("reflections", ((0, 0, 0),))))
    if counts.ndim != 4 or counts.shape[:2] != shape or counts.shape[2] != counts.shape[3] or counts.size == 0:
        raise ValueError(f"counts: expected shape ({shape[0]}, {shape[1]}, N, N), got {counts.shape}")
    bad = ~np.isfinite(counts)
    if np.any(bad):
        raise ValueError(f"counts: expected finite numbers, {int(bad.sum())} of {counts.size} are not")
    if variance is not None:
        variance = np.asarray(variance, np.float64)
        if variance.shape != counts.shape or not np.all(np.isfinite(variance)) or not np.all(variance > 0):
            raise ValueError(f"variance: expected positive numbers of shape {counts.shape}, got {variance.shape}")
    elif counts.min() < 0:
        raise ValueError(f"counts: expected no negative counts (or a variance), got {counts.min():g}")
    if counts.max() == counts.min():
        raise ValueError("counts: the images are constant")
    return counts, variance


def _check_absorption(chosen: Sequence[Parameter], plate: Specimen) -> None:
    if any(p.name == "absorption" for p in chosen) and not float(plate.absorption) > 0:
        raise ValueError("refine: absorption needs a start above 0, for example 0.05")
