"""The looped network: shapes, the fixed point, independence of rows, and a rule set by hand that floods exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from physml_jax.models import looped


def lattices(rows=3, size=9, density=0.65, seed=0):
    return (np.random.default_rng(seed).random((rows, size, size, 1)) < density).astype(np.float32)


def joined(states):
    """Sites joined to the first row, from labels of scipy."""
    out = np.zeros(states.shape, bool)
    for row, state in zip(out, states, strict=True):
        labels, _ = ndimage.label(state[..., 0] > 0)
        row[..., 0] = np.isin(labels, np.setdiff1d(labels[0], [0]))
    return out


def flood_parameters():
    """Weights that flood: on if occupied and (in the first row or beside a site that is on)."""
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    for i, j in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1)):
        kernel[i, j, 0] = 1.0
    kernel[1, 1, 1] = 5.0  # occupied
    kernel[1, 1, 2] = 1.0  # first row
    # relu(5 + sources - 5) is 0 without a source or on an empty site with all five of them.
    return {
        "kernel": kernel,
        "bias": np.full(1, -5.0, np.float32),
        "readout": np.full((1, 1), 40.0, np.float32),
        "offset": np.float32(-10.0),
    }


def run(model, params, x, **kwargs):
    return jax.jit(lambda p, x: model.apply({"params": p}, x, train=False, **kwargs))(params, x)


def test_published_number_of_parameters(key):
    model = looped.make_model()
    variables = jax.eval_shape(lambda: model.init(key, jnp.zeros((1, 5, 5, 1)), train=False))
    assert set(variables) == {"params"}
    assert sum(v.size for v in jax.tree.leaves(variables)) == 233


@pytest.mark.parametrize("shape", [(2, 6, 6, 1), (1, 4, 9, 1), (3, 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_and_types(shape, dtype, key):
    model = looped.make_model(hidden=3, num_iterations=4, max_iterations=20, dtype=dtype)
    x = jax.random.bernoulli(key, 0.6, shape).astype(jnp.float32)
    variables = jax.jit(lambda: model.init(key, x, train=True))()
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    for train in (False, True):
        out = jax.jit(lambda v, t=train: model.apply(v, x, train=t))(variables)
        assert out.shape == shape and out.dtype == jnp.float32 and bool(jnp.isfinite(out).all())


def test_rule_by_hand_floods_exactly():
    """With weights set by hand the fixed point is the set of joined sites, at any size."""
    for size, density in ((9, 0.65), (33, 0.6), (33, 0.9)):
        x = lattices(size=size, density=density)
        out = run(looped.make_model(hidden=1), flood_parameters(), x)
        np.testing.assert_array_equal(np.asarray(out) > 0, joined(x))


def test_arrival_is_the_distance_from_the_first_row():
    """A comb: down the left column, along the bottom row, up the right one."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, :, 0] = x[0, -1] = x[0, 1:, -1] = 1
    out, sown = run(looped.make_model(hidden=1), flood_parameters(), x, mutable=["intermediates"])
    arrival = np.asarray(sown["intermediates"]["arrival"][0])[0, ..., 0]
    np.testing.assert_array_equal(arrival[:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(arrival[-1], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(arrival[:, -1], [-1, 12, 11, 10, 9])
    assert arrival.dtype == np.float32 and ((arrival < 0) == ~joined(x)[0, ..., 0]).all()
    np.testing.assert_array_equal(np.asarray(out)[0, ..., 0] > 0, arrival > 0)


def test_training_ends_where_evaluation_does():
    """After as many iterations as the flood needs, the scan and the loop to the fixed point agree."""
    x, params = lattices(), flood_parameters()
    model = looped.make_model(hidden=1, num_iterations=60)
    scanned = jax.jit(lambda p: model.apply({"params": p}, x, train=True))(params)
    np.testing.assert_allclose(scanned, run(model, params, x), rtol=1e-5)
    short = looped.make_model(hidden=1, num_iterations=2)
    reached = np.asarray(jax.jit(lambda p: short.apply({"params": p}, x, train=True))(params)) > 0
    assert not reached[:, 2:].any()  # two iterations see two rows


def test_chunks_are_the_whole(monkeypatch):
    """Evaluation a few rows at a time, with a padded last chunk, gives what it gives at once."""
    x, params = lattices(rows=5), flood_parameters()
    whole, sown = run(looped.make_model(hidden=1), params, x, mutable=["intermediates"])
    monkeypatch.setattr(looped, "_CHUNK_SITES", 2 * 81)
    parts, sown_parts = run(looped.make_model(hidden=1), params, x, mutable=["intermediates"])
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    np.testing.assert_array_equal(*(s["intermediates"]["arrival"][0] for s in (sown, sown_parts)))


@pytest.mark.parametrize("monotone", [True, False])
def test_rows_do_not_depend_on_their_neighbours(monotone, key):
    """Also with random weights, where rows stand still at different times."""
    model = looped.make_model(hidden=4, max_iterations=300, tolerance=1e-3, monotone=monotone)
    x = np.concatenate([lattices(rows=5), np.zeros((1, 9, 9, 1), np.float32)])
    params = jax.tree.map(lambda w: 2 * w, model.init(key, x, train=False)["params"])
    together = run(model, params, x)
    alone = np.concatenate([run(model, params, x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_states_only_grow(key):
    """The maximum: more iterations never lower a logit. Without it they do."""
    x, lowered = lattices(), {}
    for monotone in (True, False):
        outs = []
        for n in (3, 7):
            model = looped.make_model(hidden=4, num_iterations=n, monotone=monotone)
            params = model.init(key, x, train=False)["params"]
            params = {**params, "readout": -3 * params["readout"]}  # neighbours that inhibit
            outs.append(np.asarray(model.apply({"params": params}, x, train=True)))
        lowered[monotone] = bool((outs[1] < outs[0] - 1e-6).any())
    assert lowered == {True: False, False: True}


def test_gradients_reach_the_first_iteration(key):
    """The kernel that sees the flag matters only through what the first row starts."""
    x, model = lattices(), looped.make_model(hidden=4, num_iterations=12)
    params = model.init(key, x, train=False)["params"]
    grads = jax.jit(jax.grad(lambda p: model.apply({"params": p}, x, train=True)[:, 4:].sum()))(params)
    assert all(bool(jnp.isfinite(g).all()) and bool((g != 0).any()) for g in jax.tree.leaves(grads))
    assert bool((grads["kernel"][:, :, 2] != 0).any())


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"hidden": 0}, "hidden"),
        ({"num_iterations": 0}, "num_iterations"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_bad_options_are_named(kwargs, name):
    with pytest.raises(ValueError, match=name):
        looped.make_model(**kwargs)


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match=r"inputs.*\[B, H, W, 1\]"):
        looped.make_model().init(key, jnp.zeros((2, 5, 5, 3)), train=False)
