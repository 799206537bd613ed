"""Training from a weight file: the first state holds its arrays, only the head moves, other files are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.tasks import classification
from physml_jax.training import freezing, optim, pretrained
from physml_jax.training.ensemble import ensemble

OPTIONS = {"depth": 1, "patch": 4, "dim": 8, "num_heads": 2, "num_classes": 3, "position": "learned", "pool": "cls"}
BATCH = {"image": jnp.linspace(0, 1, 2 * 64, dtype=jnp.float32).reshape(2, 8, 8, 1), "label": jnp.array([0, 2])}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A vision transformer of one block under timm's names, in a file of an independent writer."""
    rng = np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, 8), "pos_embed": (1, 5, 8), "patch_embed.proj.weight": (8, 3, 4, 4)}
    shapes |= {"patch_embed.proj.bias": (8,), "head.weight": (1000, 8), "head.bias": (1000,)}
    for name in ("norm", "blocks.0.norm1", "blocks.0.norm2"):
        shapes |= {f"{name}.weight": (8,), f"{name}.bias": (8,)}
    for name, outputs, inputs in (("attn.qkv", 24, 8), ("attn.proj", 8, 8), ("mlp.fc1", 32, 8), ("mlp.fc2", 8, 32)):
        shapes |= {f"blocks.0.{name}.weight": (outputs, inputs), f"blocks.0.{name}.bias": (outputs,)}
    tensors = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    header, data = [], b""
    for name, t in tensors.items():
        where = f"[{len(data)}, {len(data) + t.nbytes}]"
        header.append(f'"{name}": {{"dtype": "F32", "shape": {list(t.shape)}, "data_offsets": {where}}}')
        data += t.tobytes()
    text = ("{" + ", ".join(header) + "}").encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path, tensors


def test_the_first_state_is_the_file_and_only_the_head_moves(file):
    path, tensors = file
    frozen = ("(?!head/)",)
    model = pretrained.make_model(family="vit", weights=str(path), options=OPTIONS)
    tx = optim.make_optimizer(
        {
            "name": "adam",
            "learning_rate": 0.1,
            "kwargs": {},
            "schedule": {"name": "constant"},
            "clip_norm": 0.0,
            "accumulate": 1,
            "frozen": frozen,
        },
        5,
    )
    task = classification.make_task(models={"model": freezing.frozen_model(model, frozen)}, tx=tx)
    task = ensemble(task, 2, shared_batches=True, method="scan")
    state = jax.jit(task.init)(jax.random.key(0), BATCH)
    block = state.params["block1"]["query"]["kernel"]
    for member in range(2):
        np.testing.assert_array_equal(block[member], tensors["blocks.0.attn.qkv.weight"][:8].T)
    assert state.params["head"]["kernel"].shape == (2, 8, 3)
    new, _ = jax.jit(task.step)(state, BATCH, jax.random.key(1))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, new.params)
    assert moved.pop("head") == {"kernel": True, "bias": True}
    assert not any(jax.tree.leaves(moved))


def test_what_does_not_fit_is_named(file):
    path, _ = file
    with pytest.raises(ValueError, match=r"model\.kwargs\.weights: there is no file nothing\.pth"):
        pretrained.make_model(family="vit", weights="nothing.pth", options=OPTIONS)
    with pytest.raises(ValueError, match=r"model\.kwargs\.family: expected one of resnet"):
        pretrained.make_model(family="unet", weights=str(path), options=OPTIONS)
    with pytest.raises(ValueError, match=r"model\.kwargs\.options: unknown widht"):
        pretrained.make_model(family="vit", weights=str(path), options={"widht": 1})
    model = pretrained.make_model(family="vit", weights=str(path), options=OPTIONS | {"dim": 12})
    with pytest.raises(ValueError, match=r"expected the shape \[16, 12\], got \[16, 8\]"):
        classification.make_task(models={"model": model}, tx=optax.sgd(0.1)).init(jax.random.key(0), BATCH)
