import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core import batching, resolve, rng


def test_example_keys_depend_on_seed_split_and_index_only():
    alone = jax.random.key_data(rng.example_key(3, "train", 17))
    batch = jax.random.key_data(rng.example_key(3, "train", jnp.arange(10, 30)))
    np.testing.assert_array_equal(batch[7], alone)
    assert (jax.random.key_data(rng.example_key(3, "test", 17)) != alone).any()
    assert (jax.random.key_data(rng.example_key(4, "train", 17)) != alone).any()


def test_example_keys_keep_the_shape_of_the_index():
    assert rng.example_key(0, "train", jnp.zeros((2, 3), jnp.int32)).shape == (2, 3)


def test_streams_are_the_same_in_every_process():
    """A regression value: a change of it means that every seeded result of the project changes."""
    assert jax.random.key_data(rng.stream_key(0, "init")).tolist() == [3020537540, 2946840664]


def test_bad_seed_is_refused():
    with pytest.raises(ValueError, match="seed"):
        rng.stream_key(-1, "init")


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 100, None])
def test_chunked_equals_plain(chunk_size, key):
    x = jax.random.normal(key, (7, 5), jnp.float32)

    def fn(row):
        return {"sin": jnp.sin(row), "first": row[0] * 2}

    chex.assert_trees_all_equal(batching.chunked_vmap(fn, chunk_size=chunk_size)(x), jax.vmap(fn)(x))


def test_chunk_size_zero_is_refused():
    with pytest.raises(ValueError, match="chunk_size"):
        batching.chunked_vmap(jnp.sin, chunk_size=0)


def test_a_name_is_a_module():
    assert resolve.factory("model", "resnet").__module__ == "physml_jax.models.resnet"
    assert "resnet" in resolve.available("model")


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"no model 'resnt'.*resnet"):
        resolve.module("model", "resnt")


def test_a_module_without_the_factory_is_refused():
    with pytest.raises(ValueError, match="has no function make_model"):
        resolve.module("model", "os.path")


def test_an_unknown_keyword_lists_the_signature():
    def make_model(*, depth, width=3): ...

    with pytest.raises(ValueError, match=r"model.kwargs: unknown widht.*takes: depth, width"):
        resolve.check_kwargs("model.kwargs", make_model, {"widht": 1})
    resolve.check_kwargs("model.kwargs", make_model, {"width": 1})
