"""Against patterns of the program Felix, from its own Fourier coefficients (source in the file)."""

from pathlib import Path

import numpy as np
import pytest

from physml_jax.simulators.diffraction import scattering
from physml_jax.simulators.diffraction.bloch import propagate

DATA = Path(__file__).parent.parent / "golden" / "felix_f43m.npz"


def fit_index(a, b):
    """R = (1 + ZNCC) / 2."""
    a, b = a - a.mean(), b - b.mean()
    return 0.5 + (a * b).sum() / (2 * np.sqrt((a**2).sum() * (b**2).sum()))


@pytest.mark.parametrize(
    ("entry", "expected"), [("152794", 0.9999), ("166923", 0.9999), ("246965", 0.9999), ("54390", 0.999)]
)
def test_bright_field_of_f43m_crystals(entry, expected):
    """Every pixel that the file holds in the quadrant of negative tilts; 293 beams by length, as many as Felix took."""
    with np.load(DATA) as data:
        a, hk, u = float(data[f"{entry}_a"]), data[f"{entry}_hk"].astype(int), data[f"{entry}_u"].astype(complex)
        reference = data[f"{entry}_pattern"]
    order = np.argsort((hk**2).sum(axis=1), kind="stable")
    hk, u = hk[order], u[order]
    limit = 2 * np.abs(hk).max()
    table = np.zeros((2 * limit + 1, 2 * limit + 1), complex)
    table[hk[:, 0] + limit, hk[:, 1] + limit] = u
    beams = hk[:293]
    delta = beams[:, None] - beams[None] + limit
    wave_number = 1 / scattering.wavelength(200.0)
    coupling = table[delta[..., 0], delta[..., 1]] / (2 * wave_number)
    half_width = 3 * np.linalg.norm(hk[1]) / a
    rows, columns = np.meshgrid(np.arange(0, 128, 4), np.arange(2, 128, 4), indexing="ij")
    chosen = (rows < 64) & (columns < 64)
    ky, kx = ((x[chosen] - 63.5) / 64 * half_width for x in (rows, columns))
    g = beams / a
    errors = -(2 * (kx[:, None] * g[:, 0] + ky[:, None] * g[:, 1]) + (g**2).sum(axis=1)) / (2 * wave_number)
    psi = np.asarray(propagate(coupling, errors, [450.0], outputs=(0,)))
    assert fit_index(np.abs(psi[0, :, 0]) ** 2, reference[chosen]) >= expected
