"""Certified eigenstates of one realisation or many: the entry point for NumPy and JAX arrays, and all methods."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.anderson import dissection
from physml_jax.simulators.anderson.diagonalization import dense_eigenstates
from physml_jax.simulators.anderson.filter import filtered_eigenstates
from physml_jax.simulators.anderson.hamiltonian import MAX_DENSE_SIZE, sparse
from physml_jax.simulators.anderson.krylov import Search, nearest_states
from physml_jax.simulators.anderson.states import RESIDUAL_TOLERANCE, Eigenstates, check_disorder, fix_sign

#: Size up to which all states are computed by default: at L = 6 both ways take 4 ms, at 7 LAPACK takes twice as long.
DENSE_SIZE = 6
#: Share of the machine's memory that may be taken.
MEMORY_SHARE = 0.8
#: Where the shifts of further attempts lie, relative to those of the first: at L = 40 one shift in ten or so has a
#: factorisation too inexact for its inertia to count.
RETRY_SPREADS = (0.7, 1.6, 2.4)
#: Backward errors from which a failure is blamed on the factorisation, and full pivoting tried.
SOUND_ERROR = 1e-8

METHODS = ("auto", "dense", "dissection", "filter", "superlu", "pardiso")


def eigenstates(
    disorder: np.ndarray,
    *,
    energy: float = 0.0,
    num_states: int = 1,
    method: str = "auto",
    tolerance: float = 1e-9,
    certify: bool | None = None,
    chunk_size: int | None = 1,
) -> Eigenstates:
    """The eigenstates nearest an energy.

    Every residual is computed in float64 with a stencil that shares nothing with the solvers. ``dense`` and
    ``dissection`` also prove that no nearer state was missed; a state that they cannot certify is an error. ``filter``,
    ``superlu`` and ``pardiso`` do not count eigenvalues: they are references, and return ``certified`` False unless
    ``certify`` asks for a count, which the dissection then does.

    Args:
      disorder: eps, NumPy or JAX [..., L, L, L], any floating dtype (computed in float64).
      energy: target, in units of the hopping.
      num_states: number k of states, at most an eighth of the sites.
      method: "dense" (all states, LAPACK, small L), "dissection" (shift-invert, nested dissection), "filter"
        (matrix-free), "superlu" (SciPy's ``eigsh`` with a shift), "pardiso" (the same with MKL's LDL^T; needs
        ``pypardiso``), or "auto": "dense" up to L = 6, and up to 16 if more states than an eighth of
        the sites are wanted, else "dissection".
      tolerance: residual at which iterations end, at most 1e-8.
      certify: count eigenvalues; ``None``: where the method does.
      chunk_size: realisations that are solved at the same time by ``dense`` and ``dissection``; 1 is best on a CPU.

    Returns:
      Eigenstates, NumPy float64, the nearest first, with the leading axes of ``disorder``.

    Raises:
      ValueError: for wrong arguments.
      MemoryError: if the prediction exceeds what the machine has.
      RuntimeError: if a state cannot be certified: a residual stays above 1e-8, or the number of eigenvalues within its
        distance from ``energy`` is not k (two states at the same distance, as without disorder).
      ImportError: if ``pypardiso`` is asked for and missing.

    Example:
      >>> import jax
      >>> from physml_jax.simulators import anderson
      >>> found = anderson.eigenstates(anderson.sample_disorder(jax.random.key(0), 16.5, size=5))
      >>> found.states.shape, bool(found.certified)
      ((1, 5, 5, 5), True)
    """
    disorder = np.asarray(disorder)
    size = check_disorder(disorder)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if not np.isfinite(energy):
        raise ValueError(f"energy: expected a finite number, got {energy}")
    if method == "auto":
        many = num_states > size**3 // 8 and size <= MAX_DENSE_SIZE
        method = "dense" if size <= DENSE_SIZE or many else "dissection"
    most = size**3 if method == "dense" else size**3 // 8
    if not 1 <= num_states <= most:
        raise ValueError(f"num_states: expected 1 to {most} for method {method!r} at L = {size}, got {num_states}")
    if not 0 < tolerance <= RESIDUAL_TOLERANCE:
        raise ValueError(f"tolerance: expected a number in (0, {RESIDUAL_TOLERANCE}], got {tolerance}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: expected None or an integer of at least 1, got {chunk_size}")
    lead = disorder.shape[:-3]
    rows = disorder.reshape(-1, size, size, size).astype(np.float64)
    chunk = max(1, min(chunk_size or len(rows), len(rows)))
    check_memory(size, num_states=num_states, method=method, chunk_size=chunk)
    counted = method in ("dense", "dissection") if certify is None else certify
    if method == "dense":
        found = dense_eigenstates(rows, energy=energy, num_states=num_states, chunk_size=chunk)
    elif method == "dissection":
        found = _dissect(rows, energy, num_states, tolerance, counted, chunk)
    else:
        solve = {"filter": _filter, "superlu": _superlu, "pardiso": _pardiso}[method]
        found = [solve(row, energy, num_states, tolerance) for row in rows]
        found = Eigenstates(*(np.stack(x) for x in zip(*found, strict=True)))
    found = found._replace(residuals=residuals(rows, found.energies, found.states))
    small = (found.residuals <= RESIDUAL_TOLERANCE).all(-1)
    if not small.all():
        row = int(np.argmin(small))
        raise RuntimeError(f"realisation {row}: residual {found.residuals[row].max():.1e}, at most 1e-8 wanted")
    if counted and method not in ("dense", "dissection"):
        found = found._replace(certified=_agree(rows, found, energy, num_states))
    certified = found.certified & small & counted
    if counted and not certified.all():
        row = int(np.argmin(certified))
        raise RuntimeError(
            f"realisation {row}: not certified that the {num_states} states found are those nearest E = {energy}"
            f" (energies {', '.join(f'{e:.9g}' for e in found.energies[row][:4])}): states at equal distances need"
            " another num_states or energy"
        )
    return Eigenstates(*(np.asarray(x).reshape((*lead, *x.shape[1:])) for x in found._replace(certified=certified)))


def residuals(disorder: np.ndarray, energies: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Norms of H psi - E psi in float64, [B, L, L, L], [B, k], [B, k, L, L, L] -> [B, k].

    Written with a padded array and slices, unlike the matrix, the rolls and the index tables that the solvers use.
    """
    out = np.empty(energies.shape)
    for row, (eps, levels, psis) in enumerate(zip(disorder, energies, states, strict=True)):
        for column, (level, psi) in enumerate(zip(levels, psis, strict=True)):
            p = np.pad(psi, 1, mode="wrap")
            hops = p[2:, 1:-1, 1:-1] + p[:-2, 1:-1, 1:-1] + p[1:-1, 2:, 1:-1] + p[1:-1, :-2, 1:-1]
            hops = hops + p[1:-1, 1:-1, 2:] + p[1:-1, 1:-1, :-2]
            out[row, column] = np.linalg.norm((eps - level) * psi - hops)
    return out


def predicted_bytes(size: int, *, num_states: int = 1, method: str = "dissection", chunk_size: int = 1) -> int:
    """Memory that a method is expected to take at its peak, in bytes."""
    num_sites = size**3
    if method == "dense":
        return 4 * 8 * num_sites**2 * chunk_size
    if method == "filter":
        lifted = max(64, 4 * num_states)
        return 8 * num_sites * 2 * (5 * lifted + 64)
    return dissection.predicted_bytes(size) * chunk_size


def check_memory(size: int, *, num_states: int, method: str, chunk_size: int) -> None:
    """Raises MemoryError if the prediction exceeds ``MEMORY_SHARE`` of the machine's memory."""
    needed = predicted_bytes(size, num_states=num_states, method=method, chunk_size=chunk_size)
    stats = jax.devices()[0].memory_stats() if method in ("dense", "dissection", "filter") else None
    present = (stats or {}).get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * present:
        raise MemoryError(
            f"method {method!r} at L = {size} with chunk_size {chunk_size} needs about {needed / 1e9:.1f} GB, of"
            f" {present / 1e9:.1f} GB present; use a smaller chunk_size or method='filter'"
        )


@functools.lru_cache(maxsize=2)
def _device_plan(size):
    return jax.tree.map(jnp.asarray, dissection.plan(size))


@functools.partial(jax.jit, static_argnames=("num_states", "certify", "whole"))
def _search(disorder, energy, plan, tolerance, spread, *, num_states, certify, whole):
    options = {"num_states": num_states, "certify": certify, "whole": whole}

    def one(row):
        return nearest_states(row, energy, plan, tolerance=tolerance, spread=spread, **options)

    if disorder.shape[0] == 1:  # a mapped loop would compute both branches
        return jax.tree.map(lambda x: x[None], one(disorder[0]))
    return jax.vmap(one)(disorder)


def search(
    disorder: np.ndarray,
    *,
    energy: float = 0.0,
    num_states: int = 1,
    tolerance: float = 1e-9,
    spread: float = 1.0,
    certify: bool = True,
    whole: bool = False,
) -> Search:
    """``krylov.nearest_states`` of a batch [B, L, L, L], compiled, in float64; NumPy arrays, and nothing is raised."""
    with jax.enable_x64(True):
        rows, plan = jnp.asarray(disorder, jnp.float64), _device_plan(disorder.shape[-1])
        numbers = (jnp.float64(x) for x in (energy, tolerance, spread))
        energy, tolerance, spread = numbers
        options = {"num_states": num_states, "certify": certify, "whole": whole}
        return jax.tree.map(np.asarray, _search(rows, energy, plan, tolerance, spread, **options))


def _dissect(rows, energy, num_states, tolerance, certify, chunk):
    """All rows, chunk by chunk; what was not certified is tried at other shifts, then with pivots over whole fronts."""
    options = {"energy": energy, "num_states": num_states, "tolerance": tolerance, "certify": certify}
    found = []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        padded = np.concatenate([part, np.repeat(part[-1:], chunk - len(part), axis=0)])
        found.append(search(padded, **options))
    found = jax.tree.map(lambda *x: np.concatenate(x)[: len(rows)], *found)
    states = Eigenstates(*(np.array(x) for x in found.states))
    for row in np.nonzero(~states.certified & certify)[0]:
        for spread in RETRY_SPREADS:
            again = search(rows[row : row + 1], spread=spread, **options)
            if again.states.certified[0]:
                break
        if not again.states.certified[0] and not again.shift_errors.max() < SOUND_ERROR:
            again = search(rows[row : row + 1], spread=RETRY_SPREADS[0], whole=True, **options)
        for old, new in zip(states, again.states, strict=True):
            old[row] = new[0]
    return states


def _filter(row, energy, num_states, tolerance):
    return filtered_eigenstates(row, energy=energy, num_states=num_states, tolerance=tolerance)


def _superlu(row, energy, num_states, tolerance):
    return _shift_invert(row, energy, num_states, None)


def _pardiso(row, energy, num_states, tolerance):
    try:
        import pypardiso
    except ImportError as error:
        raise ImportError("method 'pardiso' needs the package pypardiso (and MKL): pip install pypardiso") from error
    import scipy.sparse

    size = row.size
    # LDL^T of a real symmetric indefinite matrix takes the upper triangle; pypardiso's own default is a general LU.
    shifted = sparse(row) - energy * scipy.sparse.identity(size, format="csr")
    upper = scipy.sparse.triu(shifted, format="csr")
    solver = pypardiso.PyPardisoSolver(mtype=-2)
    try:
        solver.factorize(upper)
        operator = scipy.sparse.linalg.LinearOperator(
            (size, size), matvec=lambda b: solver.solve(upper, b), dtype=np.float64
        )
        return _shift_invert(row, energy, num_states, operator)
    finally:
        solver.free_memory(everything=True)


def _shift_invert(row, energy, num_states, inverse):
    """SciPy's Lanczos iteration (ARPACK) with the inverse of H - E: its own SuperLU, or the one given."""
    import scipy.sparse.linalg

    matrix = sparse(row)
    start = np.cos(np.arange(row.size))  # the default is drawn at random
    values, vectors = scipy.sparse.linalg.eigsh(
        matrix if inverse is not None else matrix.tocsc(), k=num_states, sigma=energy, OPinv=inverse, v0=start
    )
    nearest = np.argsort(np.abs(values - energy), kind="stable")
    states = vectors.T[nearest].reshape(num_states, *row.shape)
    with jax.enable_x64(True):
        states = np.asarray(fix_sign(jnp.asarray(states)))
    return Eigenstates(values[nearest], states, np.zeros(num_states), np.asarray(False))


def _agree(rows, found, energy, num_states):
    """Whether energies found by a method without count are those that the dissection certifies, [B]."""
    counted = _dissect(rows, energy, num_states, 1e-9, True, 1)
    same = np.abs(found.energies - counted.energies) <= found.residuals + counted.residuals + 1e-12
    return counted.certified & same.all(-1)
