"""Derivatives of patterns through the public functions, against central differences of the same functions in float64,
with the host's plan fixed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import bloch, scattering

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
SRTIO3, GAAS = "221_O3SrTi_COD9006864", "216_AsGa_COD9008845"
#: Steps that keep the error of a four-point difference below 1e-8 of the derivative.
STEPS = dict(
    thicknesses=0.05,
    voltage_kv=0.02,
    tilt=1e-5,
    absorption=1e-3,
    cell=1e-5,
    positions=3e-5,
    b_iso=3e-3,
    u_aniso=1e-4,
    occupancies=1e-3,
    factors=1e-3,
)
CASES = {
    # Real arithmetic with doubling, far beams as a perturbation; the middle pixel is the exact zone axis.
    "centre": (SRTIO3, dict(zone_axis=(0, 0, 1), max_g=1.4, num_strong=32, thicknesses=(200.0, 90.0))),
    # A dark field whose inversion centre a coordinate breaks: complex arithmetic.
    "broken": (
        SRTIO3,
        dict(zone_axis=(0, 0, 1), max_g=0.7, thicknesses=(150.0,), reflections=[(1, 0, 0)], use_inversion=False),
    ),
    # A matrix of no symmetry: no inversion centre, absorption.
    "general": (
        GAAS,
        dict(
            zone_axis=(1, 1, 0),
            max_g=0.9,
            absorption=0.08,
            thicknesses=(150.0,),
            reflections=[(1, -1, 1), (0, 0, 0), (0, 0, 2)],
        ),
    ),
    # Everything at once: thermal absorption, tilted foil, higher layers, refraction.
    "foil": (
        GAAS,
        dict(
            zone_axis=(1, 1, 1),
            max_g=0.6,
            absorption=1.0,
            thicknesses=(120.0,),
            reflections=[(2, -2, 0), (0, 0, 0)],
            conventions=bloch.Conventions(
                foil_normal=(1.0, 1.0, 2.0),
                laue_zones=1,
                max_holz_error=0.0005,
                absorption_model="thermal",
                mean_inner_potential=True,
                excitation_error="normal",
            ),
        ),
    ),
}


def functions(name, *, dtype="float64", factors=False):
    """A weighted sum of intensities as a function of all numbers, and those numbers."""
    file, settings = CASES[name]
    crystal = read_cif(CIFS / f"{file}.cif")
    settings = dict(settings, num_pixels=3, half_width=0.1, fold=False, dtype=dtype)
    plan = bloch.plan(crystal, **settings)
    # Float64 arrays that do not pass as static; the operations are of no use to the traced function.
    crystal = crystal._replace(rotations=np.zeros((0, 3, 3), np.int32), translations=np.zeros((0, 3)))

    def value(x, plan):  # the plan is an argument: XLA would calculate with its constants at length
        c = crystal._replace(**{k: x[k] for k in ("cell", "positions", "b_iso", "u_aniso", "occupancies")})
        conditions = bloch.Conditions(x["thicknesses"], x["voltage_kv"], x["tilt"], x.get("absorption"))
        given = {"structure_factors": jax.lax.complex(*x["factors"])} if factors else {}
        images, guard = bloch.intensities(c, plan, conditions, **given)
        weights = jnp.cos(jnp.arange(images.size, dtype=images.dtype)).reshape(images.shape)
        return (weights * images).sum(), guard

    numbers = {k: np.asarray(getattr(crystal, k), np.float64) for k in ("cell", "positions", "b_iso", "occupancies")}
    numbers["u_aniso"] = np.asarray(crystal.u_aniso, np.float64)
    numbers |= dict(thicknesses=np.array(settings["thicknesses"]), voltage_kv=np.array(200.0), tilt=np.zeros(2))
    if settings.get("absorption"):
        numbers["absorption"] = np.array(settings["absorption"])
    if factors:
        f = scattering.structure_factors(crystal, np.asarray(plan.hkl, float))
        numbers["factors"] = (np.asarray(f.real), np.asarray(f.imag))
    return value, numbers, plan


@pytest.mark.parametrize(
    "name", ["centre", "general", *(pytest.param(x, marks=pytest.mark.slow) for x in ("foil", "broken"))]
)
def test_every_derivative(name):
    """Of thickness, voltage, tilt, absorption, lattice, coordinates, thermal factors, occupancies, and of F_g."""
    with jax.enable_x64(True):
        for factors in (False, True) if name == "general" else (False,):
            value, numbers, plan = functions(name, factors=factors)
            (_, guard), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(numbers, plan)
            assert float(guard) < 1e-9
            run = jax.jit(lambda x, plan, value=value: value(x, plan)[0])
            rng = np.random.default_rng(0)
            wanted = ["factors"] if factors else list(numbers)
            for key in wanted:
                direction = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), numbers[key])
                h = STEPS[key]

                def at(step, key=key, direction=direction, plan=plan, run=run, numbers=numbers):
                    moved = jax.tree.map(lambda x, d: x + step * d, numbers[key], direction)
                    return float(run({**numbers, key: moved}, plan))

                numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
                ours = sum(
                    float(np.sum(np.asarray(a) * b))
                    for a, b in zip(jax.tree.leaves(gradient[key]), jax.tree.leaves(direction), strict=True)
                )
                assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(gradient[key])), key
                if (name, key) == ("centre", "positions"):  # every atom sits on an inversion centre of the bright field
                    np.testing.assert_allclose([ours, numeric], 0.0, atol=1e-9)
                    continue
                assert abs(ours) > 1e-8, key
                np.testing.assert_allclose(ours, numeric, rtol=1e-6, err_msg=key)
