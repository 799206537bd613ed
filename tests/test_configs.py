"""Every config: its variants build, every value fits its factory, and the smoke variant takes two steps."""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core import resolve
from physml_jax.training import loop, setup

NAMES = sorted(
    p.stem for p in (Path(__file__).parent.parent / "configs").glob("*.py") if p.stem not in ("base", "__init__")
)
VARIANTS = ("", "smoke", "paper")


def get_config(name, arg):
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", [pytest.param(a, marks=pytest.mark.slow) if a == "smoke" else a for a in VARIANTS])
def test_variant_builds_and_traces(name, arg):
    if arg == "paper" and "paper" not in importlib.import_module(f"configs.{name}").VARIANTS:
        pytest.skip("a check of the machinery has no published protocol")
    experiment = setup.build(get_config(name, arg))
    spec = setup.train_spec(experiment)
    state = jax.eval_shape(lambda: loop.init_state(experiment, spec))
    new, metrics = jax.eval_shape(experiment.task.step, state, spec, jax.random.key(0))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert metrics["loss"].shape in ((), (experiment.config["num_seeds"],))


@pytest.mark.parametrize(  # continuous integration trains every config at :smoke
    "name", [n if n == "ising_ferromagnet" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_smoke_takes_two_steps(name):
    experiment = setup.build(get_config(name, "smoke"))
    spec = setup.train_spec(experiment)
    quick = {"xla_backend_optimization_level": "0"}  # two steps do not pay for an optimised program
    state = jax.jit(lambda: loop.init_state(experiment, spec), compiler_options=quick)()
    noise = {
        k: jax.random.uniform(jax.random.key(1), s.shape, s.dtype)
        if s.dtype == jnp.float32
        else jnp.zeros(s.shape, s.dtype)
        for k, s in spec.items()
    }
    step = jax.jit(experiment.task.step, compiler_options=quick)
    for i in range(2):
        state, metrics = step(state, noise, jax.random.key(i))
    assert np.all(np.asarray(state.step) == 2)
    assert all(np.all(np.isfinite(v)) for v in jax.device_get(metrics).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_states_what_a_user_may_set(name):
    """config_flags refuses options that the config does not hold, so every argument of the factories must be in it."""
    c = setup.plain(get_config(name, ""))
    for kind, section in (
        ("data", c["data"]),
        ("model", c["model"]),
        ("model", c["discriminator"]),
        ("task", c["task"]),
    ):
        if not section["name"]:
            continue
        known = set(inspect.signature(resolve.factory(kind, section["name"])).parameters) - {"models", "tx", "split"}
        missing = known - set(section["kwargs"]) - set(section.get("eval_kwargs", ()))
        assert not missing, f"{name}: {kind}.kwargs lacks {sorted(missing)}"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_variant_lists_the_known(name):
    with pytest.raises(ValueError, match=r"no variant 'nonsense'.*smoke"):
        get_config(name, "nonsense")


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_holds_the_command(name):
    assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__
