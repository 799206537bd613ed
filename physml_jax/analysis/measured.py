"""From files of patterns to the input of a refinement: counts and variances, settings of the calculation, a start."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import refinement, structure_parameters
from physml_jax.analysis.structure_parameters import Specimen
from physml_jax.simulators.diffraction import bloch
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import Conventions

_CONVENTIONS = tuple(Conventions.__dataclass_fields__)


class Measured(NamedTuple):
    """What is refined against.

    Attributes:
      counts: float64 [T, R, N, N].
      variance: ``None`` for electrons; else ones: intensities whose noise is not known.
      plate: the crystal of the structure file, with thicknesses and absorption as the images' file has them.
      settings: of ``bloch.plan``.
      truth: of a simulation, by name of parameter; else empty.
    """

    counts: np.ndarray
    variance: np.ndarray | None
    plate: Specimen
    settings: dict[str, Any]
    truth: dict[str, float]


def prepare(
    crystal: Crystal,
    arrays: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    *,
    dose: float | None = None,
    absorption: float | None = None,
    num_strong: int | None = None,
) -> Measured:
    """Images and settings as a refinement wants them.

    Args:
      crystal: the structure to start from.
      arrays: see ``io.patterns``.
      about: of the same file.
      dose: electrons per pixel at intensity 1, for images that are fractions; ``None``: as the file says. Where nobody
        says, all pixels get the same weight, and the scatter gives the uncertainties.
      absorption: ``None``: as the file says, else 0.
      num_strong: beams of the model; ``None``: as the file says, else the default of ``bloch.plan``.

    Raises:
      ValueError: for rocking curves, or a dose that is not positive.
    """
    images = np.asarray(arrays["images"], np.float64)
    if images.ndim != 4:
        raise ValueError(f"images: expected patterns [T, R, N, N], got shape {images.shape} (rocking curves?)")
    if dose is not None and not (np.isfinite(dose) and dose > 0):
        raise ValueError(f"dose: expected a positive number, got {dose!r}")
    is_counted = float(arrays.get("dose", 0.0)) > 0
    if dose is not None and not is_counted:
        images = images * dose
    variance = None if is_counted or dose is not None else np.ones(images.shape)
    stored = dict(about.get("settings", {}))
    conventions = Conventions(**{k: _tuple(stored.pop(k)) for k in _CONVENTIONS if k in stored})
    settings = {
        "reflections": [tuple(int(i) for i in r) for r in arrays["reflections"]],
        "zone_axis": tuple(int(i) for i in arrays["zone_axis"]),
        "voltage_kv": float(arrays["voltage_kv"]),
        "half_width": float(arrays["half_width"]),
        "conventions": conventions,
        **stored,
    }
    if num_strong is not None:
        settings["num_strong"] = num_strong
    given = about.get("absorption", 0.0) if absorption is None else absorption
    plate = Specimen(crystal, tuple(float(t) for t in arrays["thicknesses"]), float(given))
    return Measured(images, variance, plate, settings, dict(about.get("truth", {})))


def model_error(result: refinement.Refinement, measured: Measured) -> tuple[float, float]:
    """How far the refined model is from convergence in the number of beams.

    Returns:
      The estimated largest error of an intensity, and the same in standard deviations of a pixel (of the median of
      each image, the largest).
    """
    found = bloch.lacbed(
        result.specimen.crystal,
        num_pixels=measured.counts.shape[-1],
        thicknesses=np.asarray(result.specimen.thicknesses).tolist(),
        absorption=float(result.specimen.absorption),
        **measured.settings,
    )
    noise = np.sqrt(np.median(result.fit.variance, axis=(2, 3)))
    return found.convergence_error, float(np.max(found.convergence_error * np.abs(result.fit.scale) / noise))


def start(
    measured: Measured,
    names: Sequence[str],
    *,
    values: Sequence[str] = (),
    shake: float = 0.0,
    seed: int = 0,
    scan: tuple[float, float] = (50.0, 1500.0),
    common_scale: bool = False,
) -> Specimen:
    """The specimen that a refinement starts from.

    Args:
      measured: see ``prepare``.
      names: of what will be refined.
      values: texts ``name=value`` of single parameters.
      shake: see ``structure_parameters.shaken``; 0 leaves the structure.
      seed: of the shaking.
      scan: thicknesses between which the best one is looked for in steps of about 10 angstrom, where thickness is
        refined and ``values`` does not set it.
      common_scale: see ``refinement.residuals``.

    Raises:
      ValueError: for a text or a number that makes no sense.
    """
    low, high = scan
    if not (np.isfinite(low) and np.isfinite(high) and 0 < low < high):
        raise ValueError(f"scan: expected two increasing positive thicknesses, got {low:g},{high:g}")
    if not (np.isfinite(shake) and 0 <= shake <= 1):
        raise ValueError(f"shake: expected 0 to 1 angstrom, got {shake!r}")
    wanted = {}
    for text in values:
        name, sign, value = text.partition("=")
        try:
            wanted[name.strip()] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise ValueError(f"start: expected name=value, got {text!r}")
    plate = structure_parameters.changed(measured.plate, wanted)
    if shake:
        plate = structure_parameters.shaken(plate, names, shake, seed=seed)
    structure_parameters.parameters(plate, names)  # a wrong name fails before the calculation
    if "thickness" in names and not any(n.startswith("thickness") for n in wanted):
        grid = np.linspace(low, high, max(2, round((high - low) / 10)))
        found = refinement.scan_thickness(
            measured.counts,
            plate,
            grid,
            settings=measured.settings,
            variance=measured.variance,
            common_scale=common_scale,
        )
        plate = plate._replace(thicknesses=tuple(float(t) for t in grid[found.argmin(axis=1)]))
    return plate


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
