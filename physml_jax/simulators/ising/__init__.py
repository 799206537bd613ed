"""J1-J2 Ising model on the square lattice.

Conventions: H = -J1 sum_nn s s + J2 sum_nnn s s - h sum s. J1 = 1 favours parallel neighbours, J2 >= 0 antiparallel
spins across the diagonals; every bond counts once (2 L^2 of each kind); boundaries are periodic, L is even and at least
4. Temperatures and energies are in units of J1 with k_B = 1, energies per site unless a name says total. A state is
int8 ``[..., L, L]`` of -1 and +1. Where states are stored, 32 replicas share uint32 words ``[..., L, L]``: bit r of
word w is replica 32 w + r, and 1 is spin up.

Two kernels offer ``sweeps`` with the same arguments: ``metropolis`` (one int8 per spin, to be read) and ``packed``
(words, to be fast). ``exact`` has what they are compared with.
"""

from physml_jax.simulators.ising.annealing import Annealed, anneal, equilibrate
from physml_jax.simulators.ising.equilibrium import Evidence, not_equilibrated
from physml_jax.simulators.ising.hamiltonian import (
    BondSums,
    StripeOrder,
    bond_sums,
    energy,
    ground_state_energy,
    magnetization,
    staggered_magnetization,
    stripe_order,
)
from physml_jax.simulators.ising.ladder import ladder_sweeps
from physml_jax.simulators.ising.observables import (
    Blocking,
    Estimate,
    binder_cumulant,
    blocked_mean,
    blocking,
    connected_susceptibility,
    correlation_function,
    integrated_autocorrelation_time,
    jackknife,
    mean,
    specific_heat,
    susceptibility,
)
from physml_jax.simulators.ising.packing import pack, unpack

__all__ = [
    "Annealed",
    "Blocking",
    "BondSums",
    "Estimate",
    "Evidence",
    "StripeOrder",
    "anneal",
    "binder_cumulant",
    "blocked_mean",
    "blocking",
    "bond_sums",
    "connected_susceptibility",
    "correlation_function",
    "energy",
    "equilibrate",
    "ground_state_energy",
    "integrated_autocorrelation_time",
    "jackknife",
    "ladder_sweeps",
    "magnetization",
    "mean",
    "not_equilibrated",
    "pack",
    "specific_heat",
    "staggered_magnetization",
    "stripe_order",
    "susceptibility",
    "unpack",
]
