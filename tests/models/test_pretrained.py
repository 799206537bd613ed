"""Weights of torchvision and timm: names, axes, damaged files; and the same answers as torch where it is installed."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from physml_jax.io import weights
from physml_jax.models import efficientnet, pretrained, resnet, vgg, vit

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def write_safetensors(path, tensors, *, cut=0, change=lambda header: header):
    """An independent writer of the format."""
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kinds[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(change(header)).encode()
    blob = len(text).to_bytes(8, "little") + text + data
    path.write_bytes(blob[: len(blob) - cut])
    return path


def test_safetensors_hold_every_kind_of_float(tmp_path):
    tensors = {"b": array(2, 3), "a": array(4).astype(np.float16), "c": array(2, 2).astype(ml_dtypes.bfloat16)}
    tensors |= {"d": np.asarray(3), "e": array(0, 5), "f": array(3).astype(np.float64)}
    found = weights.read_weights(write_safetensors(tmp_path / "x.safetensors", tensors))
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def header_entry(**changes):
    def change(header):
        return {**header, "a": {**header["a"], **changes}}

    return change


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": 1}, "cut off: 'b' ends at byte 40 of the arrays, the file has 39"),
        ({"cut": 10**6}, "cut off: 0 bytes"),
        ({"change": header_entry(shape=[7])}, "'a': 24 bytes do not hold F32"),
        ({"change": header_entry(dtype="F8_E4M3")}, "'a' has the dtype 'F8_E4M3'; known: F64"),
        ({"change": header_entry(shape=[-2, -3])}, "integers of at least 0"),
        ({"change": header_entry(data_offsets=[0])}, "lacks dtype, shape or data_offsets"),
        ({"change": header_entry(data_offsets=[4, 28])}, "overlap or leave a gap at 'a'"),
        ({"change": lambda header: {"a": header["a"]}}, "16 bytes behind the last array"),
        ({"change": lambda header: [1]}, "no JSON object"),
        ({"change": lambda header: {}}, "holds no arrays"),
    ],
)
def test_damaged_files_are_refused(tmp_path, options, message):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": array(2, 3), "b": array(4)}, **options)
    with pytest.raises(ValueError, match=message) as error:
        weights.read_weights(path)
    assert str(path) in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        weights.read_weights(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="not a safetensors file"):
        weights.read_weights(tmp_path / "x.safetensors")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected a \.safetensors or \.pth file"):
        weights.read_weights(tmp_path / "x.npz")


# --- names and shapes, written down by hand


def norm(name, n):
    tensors = {f"{name}.{part}": array(n) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**tensors, f"{name}.num_batches_tracked": np.asarray(7)}


def dense(name, outputs, inputs):
    return {f"{name}.weight": array(outputs, inputs), f"{name}.bias": array(outputs)}


def resnet10(w=4, classes=1000):
    """The names of a ResNet with one basic block per stage."""
    tensors = {"conv1.weight": array(w, 3, 7, 7), **norm("bn1", w)}
    for i in range(4):
        n, before, block = w * 2**i, w * 2 ** max(0, i - 1), f"layer{i + 1}.0"
        tensors |= {f"{block}.conv1.weight": array(n, before, 3, 3), **norm(f"{block}.bn1", n)}
        tensors |= {f"{block}.conv2.weight": array(n, n, 3, 3), **norm(f"{block}.bn2", n)}
        if i:
            shortcut = f"{block}.downsample"
            tensors |= {f"{shortcut}.0.weight": array(n, before, 1, 1), **norm(f"{shortcut}.1", n)}
    return tensors | dense("fc", classes, 8 * w)


def variables_of(model, shape):
    """Variables of the right shapes, zero."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


RESNET10 = resnet.make_model(depth=10, num_classes=9, width=4)


def load_resnet(tensors, channels=3, **options):
    return pretrained.load(variables_of(RESNET10, (1, 32, 32, channels)), tensors, family="resnet", **options)


def test_every_leaf_but_the_head_is_loaded():
    tensors = resnet10()
    found = load_resnet(tensors)
    block = found["params"]["BasicBlock_2"]
    np.testing.assert_array_equal(block["Conv_1"]["kernel"][1, 2, 3, 4], tensors["layer3.0.conv2.weight"][4, 3, 1, 2])
    np.testing.assert_array_equal(block["Conv_2"]["kernel"][0, 0].T, tensors["layer3.0.downsample.0.weight"][..., 0, 0])
    np.testing.assert_array_equal(block["BatchNorm_2"]["scale"], tensors["layer3.0.downsample.1.weight"])
    stats = found["batch_stats"]["BasicBlock_3"]["BatchNorm_0"]
    np.testing.assert_array_equal(stats["var"], tensors["layer4.0.bn1.running_var"])
    untouched = {k for k, v in traverse_util.flatten_dict(found).items() if not np.any(v)}
    assert untouched == {("params", "Dense_0", "kernel"), ("params", "Dense_0", "bias")}
    with_head = load_resnet({**tensors, **dense("fc", 9, 32)}, keep=())
    assert all(np.any(leaf) for leaf in jax.tree.leaves(with_head))


def test_one_grey_channel_is_three_equal_ones():
    """The same answer to a grey picture and to its copy in three channels."""
    tensors = {n: np.abs(t) if n.endswith("var") else t for n, t in resnet10(classes=9).items()}
    apply = jax.jit(lambda v, x: RESNET10.apply(v, x, train=False))
    x = jnp.asarray(array(2, 32, 32, 1))
    grey, coloured = (load_resnet(tensors, channels, keep=()) for channels in (1, 3))
    expected = apply(coloured, jnp.tile(x, (1, 1, 1, 3)))
    np.testing.assert_allclose(apply(grey, x), expected, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected).max()))


def without(name):
    return {k: v for k, v in resnet10().items() if k != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            without("layer2.0.bn2.running_mean"),
            "there is no 'layer2.0.bn2.running_mean' for batch_stats/BasicBlock_1/Ba",
        ),
        (resnet10() | {"layer1.1.conv1.weight": array(4, 4, 3, 3)}, "no place for 1 of the .* layer1.1.conv1.weight"),
        (
            resnet10() | {"bn1.bias": array(5)},
            r"'bn1.bias' for params/BatchNorm_0/bias: expected the shape \[4\], got \[5",
        ),
        (resnet10() | {"bn1.bias": np.asarray([1, np.inf, np.nan, 0], np.float32)}, "2 values are not finite"),
        (resnet10() | {"conv1.weight": array(4)}, r"'conv1.weight' for params/Conv_0/kernel: axes \[4\] do not fit"),
        (resnet10() | {"bn1.bias": np.arange(4)}, "expected floating-point numbers, got int64"),
    ],
)
def test_what_does_not_fit_is_named(tensors, message):
    with pytest.raises(ValueError, match=message):
        load_resnet(tensors)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="family: expected one of resnet, vgg, efficientnet, vit, got 'unet'"):
        pretrained.load({}, {}, family="unet")
    with pytest.raises(ValueError, match="keep: the model has no module tail; it has BasicBlock_0"):
        load_resnet(resnet10(), keep=("tail",))


def test_the_head_of_a_vgg_reads_channels_last():
    """A dense layer that picks one channel at one position of the last map picks it after the change of axes."""
    model = vgg.make_model(depth=11, num_classes=3, head="flatten", width=1, hidden=5)
    variables = variables_of(model, (1, 64, 96, 3))  # last map 2 x 3 x 8
    tensors, before = {}, 3
    for n, channels in zip((0, 3, 6, 8, 11, 13, 16, 18), (1, 2, 4, 4, 8, 8, 8, 8), strict=True):
        tensors |= {f"features.{n}.weight": array(channels, before, 3, 3), f"features.{n}.bias": array(channels)}
        before = channels
    first = np.zeros((5, 8 * 2 * 3), np.float32)
    first[4, np.ravel_multi_index((7, 1, 0), (8, 2, 3))] = 1.0
    tensors |= dense("classifier.3", 5, 5) | dense("classifier.6", 1000, 5)
    tensors |= {"classifier.0.weight": first, "classifier.0.bias": array(5)}
    kernel = pretrained.load(variables, tensors, family="vgg")["params"]["dense1"]["kernel"]
    assert [tuple(map(int, where)) for where in np.argwhere(kernel)] == [
        (np.ravel_multi_index((1, 0, 7), (2, 3, 8)), 4)
    ]
    # Another size of picture: the first dense layers can be left as they are.
    small = variables_of(model, (1, 32, 32, 1))
    with pytest.raises(ValueError, match=r"classifier.0.weight.*expected the shape \[8, 5\], got \[48, 5\]"):
        pretrained.load(small, tensors, family="vgg")
    kept = pretrained.load(small, tensors, family="vgg", keep=("dense1", "dense2", "head"))["params"]
    assert not np.any(kept["dense1"]["kernel"]) and np.any(kept["stage5_conv2"]["conv"]["kernel"])


# --- against torch

ViT = {"patch": 16, "num_classes": 9, "position": "learned", "pool": "cls", "exact_gelu": True}
CASES = {
    "torchvision resnet18": ("resnet", lambda: resnet.make_model(depth=18, num_classes=9)),
    "torchvision resnet34": ("resnet", lambda: resnet.make_model(depth=34, num_classes=9)),
    "torchvision resnet50": ("resnet", lambda: resnet.make_model(depth=50, num_classes=9)),
    "timm resnet50": ("resnet", lambda: resnet.make_model(depth=50, num_classes=9)),
    "torchvision vgg16": ("vgg", lambda: vgg.make_model(num_classes=9)),
    "timm vgg16": ("vgg", lambda: vgg.make_model(num_classes=9)),
    "torchvision efficientnet_b3": ("efficientnet", lambda: efficientnet.make_model(num_classes=9)),
    "timm efficientnet_b3": ("efficientnet", lambda: efficientnet.make_model(num_classes=9)),
    "timm efficientnet_b0": ("efficientnet", lambda: efficientnet.make_model(width=1, depth=1, num_classes=9)),
    "torchvision vit_b_16": ("vit", lambda: vit.make_model(dim=768, depth=12, num_heads=12, **ViT)),
    "timm vit_tiny_patch16_224": ("vit", lambda: vit.make_model(dim=192, depth=12, num_heads=3, **ViT)),
    "timm vit_small_patch16_224": ("vit", lambda: vit.make_model(dim=384, depth=12, num_heads=6, **ViT)),
}


def torch_model(torch, name, x):
    """The model of the library with 9 classes and random parameters and the statistics of ``x``, in evaluation mode.

    Without the statistics the signal would fade through the depth and every picture get the same answer.
    """
    library, name = name.split()
    module = pytest.importorskip("torchvision.models" if library == "torchvision" else "timm")
    torch.manual_seed(0)
    if library == "torchvision":
        model = getattr(module, name)(weights=None, num_classes=9)
    else:
        model = module.create_model(name, pretrained=False, num_classes=9)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith(("weight", "bias")) and tensor.ndim == 1:
                tensor.add_(0.1 * torch.randn(tensor.shape))
            elif key.endswith(
                ("head.weight", "head.fc.weight", "pos_embedding", "pos_embed", "class_token", "cls_token")
            ):
                tensor.normal_(0.0, 0.2)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over what was seen
        model.train()(x)
    return model.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_answers_are_those_of_torch(name, suffix, tmp_path):
    """Random weights, 224 x 224 x 3; float32 on both sides, so they differ by rounding only."""
    if suffix == "pth" and name not in ("torchvision resnet18", "timm vit_tiny_patch16_224"):
        pytest.skip("the other format is enough")
    torch = pytest.importorskip("torch")
    family, make = CASES[name]
    x = array(2, 224, 224, 3)
    theirs = torch_model(torch, name, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        save_file = pytest.importorskip("safetensors.torch").save_file
        save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, path)
    model = make()
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(x), train=False))
    variables = pretrained.load(shapes, weights.read_weights(path), family=family, keep=())
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, jnp.asarray(x))
    # The pictures differ in their answers, or nothing would have been compared.
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_pth_file_that_runs_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")

    class Harmful:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": Harmful()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="torch cannot read it as weights only"):
        weights.read_weights(tmp_path / "x.pth")
