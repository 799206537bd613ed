"""Anderson model of localization on the simple cubic lattice.

Conventions: H = diag(eps) - sum over the 6 nearest neighbours, real symmetric, periodic in all directions, L >= 3. The
site energies are eps = W (u - 1/2) with u uniform in (0, 1): a box of FULL width W. Energies are in units of the
hopping, lengths in lattice constants. Arrays are ``[..., L, L, L]``; the number of a site is i = (x L + y) L + z (C
order). Eigenstates are real, normalised to one, and their component of largest modulus is positive. For even L the
sign of the hopping changes neither energies nor abs(psi)^2 (it is undone by the sign of psi on one sublattice); for odd
L there are no two sublattices.

The transition at E = 0 is at W_c = 16.530 (16.524 to 16.536), with nu = 1.590 (A. Rodriguez, L. J. Vasquez, K. Slevin
and R. A. Roemer, Phys. Rev. B 84, 134209 (2011)).

States are wanted in float64: a host function enters ``jax.enable_x64`` itself and returns NumPy arrays, a traced one
follows its input.
"""

from physml_jax.simulators.anderson.diagonalization import dense_eigenstates
from physml_jax.simulators.anderson.disorder import sample_disorder
from physml_jax.simulators.anderson.filter import filtered_eigenstates
from physml_jax.simulators.anderson.hamiltonian import (
    clean_spectrum,
    dense,
    hamiltonian_matvec,
    hopping_matvec,
    residual_norms,
    sparse,
    spectral_interval,
)
from physml_jax.simulators.anderson.localization import bar_localization_length, decay_length, second_moment_length
from physml_jax.simulators.anderson.multifractal import (
    box_probabilities,
    box_sums,
    ensemble_exponent,
    inverse_participation_ratio,
    one_size_alpha0,
    participation_number,
    typical_exponent,
)
from physml_jax.simulators.anderson.rendering import cube_view, maximum_projection
from physml_jax.simulators.anderson.solvers import eigenstates
from physml_jax.simulators.anderson.spectrum import density_of_states, gap_ratio
from physml_jax.simulators.anderson.states import Eigenstates, fix_sign

#: Critical disorder at E = 0.
CRITICAL_WIDTH = 16.530

__all__ = [
    "CRITICAL_WIDTH",
    "Eigenstates",
    "bar_localization_length",
    "box_probabilities",
    "box_sums",
    "clean_spectrum",
    "cube_view",
    "decay_length",
    "dense",
    "dense_eigenstates",
    "density_of_states",
    "eigenstates",
    "ensemble_exponent",
    "filtered_eigenstates",
    "fix_sign",
    "gap_ratio",
    "hamiltonian_matvec",
    "hopping_matvec",
    "inverse_participation_ratio",
    "maximum_projection",
    "one_size_alpha0",
    "participation_number",
    "residual_norms",
    "sample_disorder",
    "second_moment_length",
    "sparse",
    "spectral_interval",
    "typical_exponent",
]
