r"""Eigenstates nearest an energy from products with H alone: a folded Chebyshev filter inside block Lanczos.

With B = (H - sigma)^2 the wanted states are the lowest ones of B. The Chebyshev polynomial T_d of B, scaled such that
w^2 <= B <= b maps to [-1, 1] (b bounds the spectrum), is at most 1 there and grows to cosh(2 d w / sqrt(b)) at B = 0:
it lifts out the few states with \|E - sigma\| < w, those nearest sigma the most. Block Lanczos with F = T_d(B), fully
reorthogonalised, then needs a basis of little more than these states. Since E and 2 sigma - E have the same F, the
best Ritz vectors of F are diagonalised once more, in H.

The cost is about 20 products with H per eigenstate of the whole spectrum, over any number of states near sigma; memory
is that of the basis, a few hundred vectors. There is no factorisation, hence no count of eigenvalues: the residuals are
checked, but nothing proves that no nearer state was missed.

References:
  Y. Zhou, Y. Saad, M. L. Tiago and J. R. Chelikowsky, J. Comput. Phys. 219, 172 (2006), Chebyshev filters.
  H.-r. Fang and Y. Saad, SIAM J. Sci. Comput. 34, A2220 (2012), filtered Lanczos.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.simulators.anderson.hamiltonian import residual_norms
from physml_jax.simulators.anderson.spectrum import density_of_states
from physml_jax.simulators.anderson.states import Eigenstates, check_disorder, fix_sign

#: Vectors that are filtered together; sixteen doubles fill two cache lines.
BLOCK = 16


class FilterPlan(NamedTuple):
    """What fixes the cost of a filter, decided on the host.

    Attributes:
      half_width: w, half the energy window that is lifted out.
      bound: b, upper bound of (H - sigma)^2.
      degree: d, of the polynomial in (H - sigma)^2, even.
      lifted: number of states expected in the window.
      num_blocks: largest number of blocks in the basis.
    """

    half_width: float
    bound: float
    degree: int
    lifted: int
    num_blocks: int


def filter_plan(
    disorder: np.ndarray, energy: float, *, num_states: int = 1, lifted: int | None = None, log_growth: float = 5.0
) -> FilterPlan:
    """Window and degree for one realisation.

    Args:
      disorder: [L, L, L].
      energy: sigma.
      num_states: number of states wanted.
      lifted: number of states in the window; by default 64 and at least four times those wanted.
      log_growth: logarithm of the amplification at sigma.

    Raises:
      ValueError: if there are fewer than 8 sites per state wanted, or ``lifted`` is smaller than ``num_states``.
    """
    disorder = np.asarray(disorder)
    num_sites = check_disorder(disorder, rank=3) ** 3
    if not 1 <= num_states <= num_sites // 8:
        raise ValueError(f"num_states: expected 1 to {num_sites // 8} (an eighth of the sites), got {num_states}")
    lifted = min(max(64, 4 * num_states), max(num_sites // 6, num_states)) if lifted is None else lifted
    if lifted < num_states:
        raise ValueError(f"lifted: expected at least the {num_states} states wanted, got {lifted}")
    low, high = float(disorder.min()) - 6, float(disorder.max()) + 6
    bound = max(energy - low, high - energy) ** 2
    key = stream_key(0, "anderson/filter/density")
    found = _density(key, jnp.asarray(disorder, jnp.float32), jnp.asarray([energy], jnp.float32))
    # Outside the spectrum the density is zero, and the window must reach in; half the half-width of a band is plenty.
    half_width = min(lifted / (2 * num_sites * max(float(found.value[0]), 1e-9)), 0.5 * math.sqrt(bound))
    at_zero = (bound + half_width**2) / (bound - half_width**2)
    degree = 2 * math.ceil(log_growth / math.acosh(at_zero) / 2)
    return FilterPlan(half_width, bound, degree, lifted, min(num_sites, 5 * lifted + 4 * BLOCK) // BLOCK)


def filtered_eigenstates(
    disorder: np.ndarray,
    *,
    energy: float = 0.0,
    num_states: int = 1,
    tolerance: float = 1e-10,
    plan: FilterPlan | None = None,
    seed: int = 0,
) -> Eigenstates:
    """The eigenstates nearest an energy, matrix-free.

    Args:
      disorder: NumPy or JAX [L, L, L].
      energy: sigma, in units of the hopping.
      num_states: number k of states, at most an eighth of the sites.
      tolerance: largest residual norm.
      plan: window and degree; ``None``: ``filter_plan``.
      seed: of the random start vectors.

    Returns:
      Eigenstates as NumPy float64 arrays, k states, ``certified`` False: nothing counts the eigenvalues.

    Raises:
      ValueError: for a wrong disorder, energy or number of states.
      RuntimeError: if the residuals do not reach ``tolerance``.
    """
    disorder = np.asarray(disorder)
    size = check_disorder(disorder, rank=3)
    if not np.isfinite(energy):
        raise ValueError(f"energy: expected a finite number, got {energy}")
    disorder = disorder.astype(np.float64)
    plan = filter_plan(disorder, energy, num_states=num_states) if plan is None else plan
    with jax.enable_x64(True):
        field = jnp.asarray(disorder)
        scale = jnp.asarray([energy, plan.half_width**2, plan.bound], jnp.float64)
        neighbours = _neighbours(size)
        basis = jnp.zeros((plan.num_blocks, size**3, BLOCK), jnp.float64)
        key = stream_key(seed, "anderson/filter/start")
        start, _ = jnp.linalg.qr(jax.random.normal(key, (size**3, BLOCK), jnp.float64))
        basis = basis.at[0].set(start)
        images = np.zeros((plan.num_blocks * BLOCK,) * 2)
        check = max(1, plan.lifted // BLOCK)
        for block in range(plan.num_blocks):
            basis, projection = _extend(field, neighbours, scale, basis, block, plan.degree)
            images[:, block * BLOCK : (block + 1) * BLOCK] = projection
            if block + 1 < plan.num_blocks and (block + 1 < check or block % 2):
                continue
            used = (block + 1) * BLOCK
            found = _ritz(field, neighbours, basis, images[:used, :used], energy, num_states, plan)
            if found.residuals.max() <= tolerance:
                return found
    raise RuntimeError(
        f"the filter did not converge: residual {found.residuals.max():.1e} after {plan.num_blocks} blocks of {BLOCK}"
        f" vectors, {tolerance:.1e} wanted; raise lifted or log_growth of its plan"
    )


def _neighbours(size):
    sites = np.arange(size**3).reshape(size, size, size)
    return jnp.asarray(np.stack([np.roll(sites, s, a).reshape(-1) for a in range(3) for s in (1, -1)]), jnp.int32)


def _apply(disorder, neighbours, x):
    """H x for columns x [N, k]; rows of neighbours are fetched whole, the fastest form on a CPU for k = 16."""
    return disorder.reshape(-1, 1) * x - sum(x[neighbours[i]] for i in range(6))


@jax.jit
def _extend(disorder, neighbours, scale, basis, block, degree):
    """Filters one block, makes it orthogonal to the basis and appends it; its projection on the basis is F's column."""
    energy, low, high = scale

    def scaled(x):
        def shifted(y):
            return _apply(disorder, neighbours, y) - energy * y

        return (2 * shifted(shifted(x)) - (high + low) * x) / (high - low)

    start = basis[block]
    first = scaled(start)
    _, lifted = jax.lax.fori_loop(1, degree, lambda _, pair: (pair[1], 2 * scaled(pair[1]) - pair[0]), (start, first))
    projection = jnp.zeros((basis.shape[0], BLOCK, BLOCK), basis.dtype)
    # Once is not enough: the first pass leaves rounding of the size of what it takes away.
    for _ in range(2):
        part = jnp.einsum("bnk,nj->bkj", basis, lifted, precision="highest")
        lifted = lifted - jnp.einsum("bnk,bkj->nj", basis, part, precision="highest")
        projection = projection + part
    new, _ = jnp.linalg.qr(lifted)
    # Beyond the last block the update would be clamped onto it.
    full = block + 1 >= basis.shape[0]
    place = jnp.minimum(block + 1, basis.shape[0] - 1)
    basis = basis.at[place].set(jnp.where(full, basis[place], new))
    return basis, projection.reshape(-1, BLOCK)


def _ritz(disorder, neighbours, basis, images, energy, num_states, plan):
    """The best pairs in the basis: first the largest of F, then H among these."""
    # A column ends with its own block; what F makes of it beyond stands in the next column.
    values, vectors = np.linalg.eigh(images, UPLO="U")
    # Half of the lifted states are well inside the window.
    kept = min(max(num_states, plan.lifted // 2), len(values))
    coefficients = np.zeros((basis.shape[0] * BLOCK, kept))
    coefficients[: len(values)] = vectors[:, ::-1][:, :kept]
    energies, states = _rotate(disorder, neighbours, basis, jnp.asarray(coefficients))
    nearest = np.argsort(np.abs(np.asarray(energies) - energy), kind="stable")[:num_states]
    states = fix_sign(jnp.moveaxis(states[:, nearest], 0, -1).reshape(-1, *disorder.shape))
    energies = energies[nearest]
    residuals = residual_norms(disorder, energies, states)
    return Eigenstates(np.asarray(energies), np.asarray(states), np.asarray(residuals), np.asarray(False))


@jax.jit
def _rotate(disorder, neighbours, basis, coefficients):
    shaped = coefficients.reshape(basis.shape[0], BLOCK, -1)
    x = jnp.einsum("bnk,bkp->np", basis, shaped, precision="highest")
    small = jnp.matmul(x.T, _apply(disorder, neighbours, x), precision="highest")
    energies, rotation = jnp.linalg.eigh((small + small.T) / 2)
    states = jnp.matmul(x, rotation, precision="highest")
    return energies, states / jnp.linalg.norm(states, axis=0, keepdims=True)


_density = jax.jit(functools.partial(density_of_states, num_moments=64, num_vectors=4))
