r"""Eigenstates nearest an energy by block Krylov iteration with (H - sigma)^-1, and the proof that none was missed.

The iteration keeps an orthonormal basis of the block Krylov space of a random start, fully reorthogonalised, and takes
Ritz values theta of the inverse, lambda = sigma + 1 / theta, until the residuals of the wanted states, in H itself, are
small enough.

**The certificate.** That exactly k eigenvalues lie in (E - s, E + s), with s between the k-th and the next distance
from E, takes the inertia at both ends: two factorisations besides the one that the iteration uses. One of them is
saved as follows. The iteration works at sigma = E - a, with a about the distance of the k-th state. Eigenvalues in
(E - a, E + s) are counted with the inertia at sigma and at E + s; those in (E - a, E - s) are among the Ritz values,
which orthonormal vectors with small residuals prove to exist. What is left, between E - s and E + s, is an upper bound
for the number of eigenvalues there: if it is k, nothing is missing. Otherwise, or if s > a, E - s is factorised too.
An inertia counts only if the backward error of its factorisation is far below the distance of the shift from the
spectrum. No shift is an eigenvalue if E is one.

References:
  T. Ericsson and A. Ruhe, Math. Comput. 35, 1251 (1980), spectral transformation.
  R. G. Grimes, J. G. Lewis and H. D. Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994), shifted block Lanczos, inertia.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.core.precision import einsum
from physml_jax.core.rng import stream_key
from physml_jax.simulators.anderson.dissection import Plan
from physml_jax.simulators.anderson.factorization import Factors, check_error, factorize, solve
from physml_jax.simulators.anderson.hamiltonian import hopping_matvec
from physml_jax.simulators.anderson.states import RESIDUAL_TOLERANCE, Eigenstates, check_disorder, fix_sign
from physml_jax.typing import Array

#: Ritz pairs beyond the wanted ones that are looked at: those below E - s are subtracted from the count.
SPARE = 5
#: A shift's distance from the spectrum, over the backward error of its factorisation, from which its inertia counts.
MARGIN = 100.0
#: Vectors, and blocks, before Ritz pairs are looked at, since fewer are hardly ever enough.
EARLIEST_VECTORS, EARLIEST_BLOCKS = 10, 6


class Search(NamedTuple):
    """What the search found, certified or not.

    Attributes:
      states: the k states.
      steps: int32 [], solves with a block.
      shift_errors: float64 [3], backward errors at E - a, E + s and E - s (zero if not needed).
      count: int32 [], eigenvalues in (E - s, E + s), or an upper bound.
      radius: float64 [], s.
    """

    states: Eigenstates
    steps: Array
    shift_errors: Array
    count: Array
    radius: Array


class _Pairs(NamedTuple):
    """Ritz pairs, nearest first: energies [n], vectors [n, N], residuals [n]; radius s and solves so far."""

    energies: Array
    vectors: Array
    residuals: Array
    radius: Array
    steps: Array


def level_spacing(disorder: Array) -> Array:
    """Rough mean distance of eigenvalues in the middle of the band: a box of the same variance, 6 + var(eps)."""
    return jnp.sqrt(12 * (6 + disorder.var())) / disorder.size


def block_sizes(num_states: int) -> tuple[int, int]:
    """Vectors per block and largest number of blocks for k states."""
    # One state alone takes more solves with one vector than with two (about 15 and 12), but half as long ones.
    width = 1 if num_states == 1 else min(num_states + 1, 16)
    return width, (40 if width == 1 else 24) + -(-3 * num_states // width)


def nearest_states(
    disorder: Array,
    energy: Array | float,
    plan: Plan,
    *,
    num_states: int = 1,
    tolerance: Array | float = 1e-9,
    spread: Array | float = 1.0,
    certify: bool = True,
    whole: bool = False,
) -> Search:
    """The k eigenstates nearest an energy, traced; map over realisations with ``jax.vmap``.

    Args:
      disorder: eps, float64 [L, L, L].
      energy: E, a scalar, in units of the hopping.
      plan: ``dissection.plan(L)``.
      num_states: k.
      tolerance: residual norm at which the iteration ends.
      spread: factor that moves the shifts: of a, and of the place of s between the k-th and the next distance, 0 to 4.
      certify: count the eigenvalues; otherwise ``certified`` is False.
      whole: see ``factorization.factorize``.

    Raises:
      ValueError: for another dtype, or a number of states outside 1 to N / 8.
    """
    check_disorder(disorder, rank=3, double=True)
    if not 1 <= num_states <= disorder.size // 8:
        raise ValueError(f"num_states: expected 1 to {disorder.size // 8} (an eighth of the sites), got {num_states}")
    energy = jnp.asarray(energy, disorder.dtype)
    offset = level_spacing(disorder) * (0.25 + 0.5 * num_states) * spread
    probe = jax.random.normal(stream_key(0, "anderson/krylov/probe"), (disorder.size, 1), disorder.dtype)

    def matvec(x):
        return _matvec(disorder, x.T).T

    def stage(carry, i):
        pairs, counts, errors = carry

        def work(_):
            shift = energy + jnp.where(i == 0, -offset, jnp.where(i == 1, 1, -1) * pairs.radius)
            factors = factorize(disorder, shift, plan, whole=whole)
            error = check_error(factors, matvec, probe, plan)
            found = jax.lax.cond(
                i == 0,
                lambda: _iterate(disorder, energy, offset, factors, error, plan, num_states, tolerance, spread),
                lambda: pairs,
            )
            return found, counts.at[i].set(factors.num_below), errors.at[i].set(error)

        needed = (i < 2) | ~_complete(pairs, counts, energy, offset, num_states)[0]
        return jax.lax.cond(needed, work, lambda _: carry, None), None

    width, most = block_sizes(num_states)
    start = _no_pairs(min(num_states + SPARE, width * min(most, disorder.size // width)), disorder)
    carry = start, jnp.zeros(3, jnp.int32), jnp.zeros(3, disorder.dtype)
    (pairs, counts, errors), _ = jax.lax.scan(stage, carry, jnp.arange(3 if certify else 1, dtype=jnp.int32))
    residuals = pairs.residuals[:num_states]
    small, count = _complete(pairs, counts, energy, offset, num_states)
    third = ~small
    count = jnp.where(third, counts[1] - counts[2], count)
    shifts = jnp.stack([energy - offset, energy + pairs.radius, energy - pairs.radius])
    distance = jnp.abs(shifts[:, None] - pairs.energies[None, :]).min(1)
    used = jnp.stack([~third, jnp.ones((), bool), third])
    sound = jnp.where(used, MARGIN * errors < distance, True).all()
    certified = (residuals <= RESIDUAL_TOLERANCE).all() & (count == num_states) & sound & certify
    states = fix_sign(pairs.vectors[:num_states].reshape(num_states, *disorder.shape))
    found = Eigenstates(pairs.energies[:num_states], states, residuals, certified)
    return Search(found, pairs.steps, errors, count, pairs.radius)


def _matvec(disorder, x):
    """H x for rows x [p, N]."""
    cubes = x.reshape(-1, *disorder.shape)
    return (disorder[None] * cubes - hopping_matvec(cubes)).reshape(x.shape)


def _complete(pairs, counts, energy, offset, num_states):
    """Whether the inertia at E - a and E + s is enough, and the bound on the number within s that it gives."""
    # A Ritz value proves an eigenvalue within its residual; it must lie clearly between the two ends.
    low, high = energy - offset, energy - pairs.radius
    between = (pairs.energies - pairs.residuals > low) & (pairs.energies + pairs.residuals < high)
    count = counts[1] - counts[0] - between.sum(dtype=jnp.int32)
    return (pairs.radius < offset) & (count == num_states), count


def _iterate(disorder, energy, offset, factors: Factors, error, plan, num_states, tolerance, spread):
    """Block Krylov iteration until the wanted pairs have converged."""
    width, most = block_sizes(num_states)
    num_sites, dtype = disorder.size, disorder.dtype
    most = min(most, num_sites // width)
    total = width * most
    shown = min(num_states + SPARE, total)
    earliest = min(max(EARLIEST_BLOCKS, -(-EARLIEST_VECTORS // width)), most - 1)
    # The inverse of a slightly wrong matrix has slightly wrong eigenvectors; refined solves do not.
    passes = jnp.where(error > 0.1 * tolerance, 2, 1)

    def invert(rows):
        b = rows.T

        def correct(_, x):
            return x + solve(factors, b - (_matvec(disorder, x.T).T - factors.shift * x), plan)

        return jax.lax.fori_loop(0, passes, correct, jnp.zeros_like(b)).T

    def step(state):
        basis, images, pairs, block, _ = state
        place = block * width
        x = invert(jax.lax.dynamic_slice_in_dim(basis, place, width))
        projection = einsum("mn,jn->mj", basis, x)
        x = _orthonormal(x - einsum("mj,mn->jn", projection, basis))
        # Again, since rounding is left, and nothing else where the Krylov space is exhausted (degenerate energies).
        x = _orthonormal(x - einsum("mj,mn->jn", einsum("mn,jn->mj", basis, x), basis))
        images = jax.lax.dynamic_update_slice_in_dim(images, projection, place, axis=1)
        # The block after the last one is room for what is not used.
        basis = jax.lax.dynamic_update_slice_in_dim(basis, x, place + width, axis=0)
        none = lambda *_: (pairs, jnp.zeros((), bool))  # noqa: E731
        pairs, done = jax.lax.cond(block >= earliest, ritz, none, basis, images, block)
        return basis, images, pairs, block + 1, done

    def ritz(basis, images, block):
        # Columns were projected on the blocks before their successor: the upper triangle is complete.
        values, vectors = _lapack(_upper_eigh, images[:total])
        # Unused rows of the basis have the value zero, an energy at infinity.
        away = jnp.where(values == 0, jnp.inf, jnp.abs(factors.shift + 1 / values - energy))
        nearest = jnp.argsort(away)[:shown]
        used = jnp.arange(total) < (block + 1) * width
        rotation = jnp.where(used[:, None], vectors[:, nearest], 0.0)
        x = einsum("mj,mn->jn", rotation, basis[:total])
        norms = jnp.linalg.norm(x, axis=1)
        x = x / jnp.where(norms > 0, norms, 1.0)[:, None]
        image = _matvec(disorder, x)
        energies = (x * image).sum(1)
        residuals = jnp.linalg.norm(image - energies[:, None] * x, axis=1)
        residuals = jnp.where(norms > 0.5, residuals, jnp.inf)
        sort = jnp.argsort(jnp.where(jnp.isfinite(residuals), jnp.abs(energies - energy), jnp.inf))
        energies, residuals, x = energies[sort], residuals[sort], x[sort]
        distances = jnp.abs(energies - energy)
        gap = distances[num_states] - distances[num_states - 1]
        # The others need to be known well enough to place s, and to be counted.
        near = distances <= distances[num_states]
        counted = near | ((energies < energy) & (energies > energy - offset))
        fine = (residuals[:num_states] <= tolerance).all()
        rough = jnp.where(counted, residuals <= jnp.maximum(0.05 * gap, tolerance), True).all()
        radius = distances[num_states - 1] + 0.25 * spread * gap
        return _Pairs(energies, x, residuals, radius, block + 1), fine & rough

    key = stream_key(0, "anderson/krylov/start")
    start = _orthonormal(jax.random.normal(key, (width, num_sites), dtype))
    basis = jnp.zeros((total + width, num_sites), dtype).at[:width].set(start)
    images = jnp.zeros((total + width, total), dtype)
    state = basis, images, _no_pairs(shown, disorder), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return jax.lax.while_loop(lambda s: (s[3] < most) & ~s[4], step, state)[2]


def _no_pairs(shown, disorder):
    none = jnp.zeros((), disorder.dtype)
    vectors = jnp.zeros((shown, disorder.size), disorder.dtype)
    return _Pairs(vectors[:, 0], vectors, jnp.full(shown, jnp.inf, disorder.dtype), none, jnp.zeros((), jnp.int32))


def _upper_eigh(matrix):
    return tuple(jnp.linalg.eigh(matrix, UPLO="U", symmetrize_input=False))


def _orthonormal(x):
    """Orthonormal rows of the same span."""
    return _lapack(lambda a: jnp.linalg.qr(a)[0], x.T).T


def _lapack(fn, x):
    """``fn`` of one matrix; mapped on a CPU it goes matrix by matrix, as batched LAPACK calls do, but on their own."""
    return jax.lax.platform_dependent(x, cpu=jax.custom_batching.sequential_vmap(fn), default=fn)
