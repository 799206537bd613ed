"""What a trained network says of a measured diffraction pattern, shown to it as its training images were."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import ndimage

from physml_jax.analysis.pattern_spots import Pattern
from physml_jax.data.saed_phases import load_phases
from physml_jax.io.workdir import read_config
from physml_jax.training import loop, setup, sharding
from physml_jax.training.ensemble import members
from physml_jax.typing import Source


def probabilities(folder: str | Path, image: np.ndarray, pattern: Pattern) -> dict[str, float]:
    """Probabilities of the nine phases from a run of a ``saed`` classification; an ensemble's are averaged.

    Args:
      folder: work directory of the run.
      image: [H, W].
      pattern: of ``read_pattern``, for centre, scale and spots.

    Returns:
      Probability by name of the phase, as the softmax of the logits has it: not calibrated.

    Raises:
      ValueError: if there is no such run, or it is no classification of the data ``saed``.
      FileNotFoundError: if the run has no checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"network: there is no work directory {folder}")
    config = read_config(folder)
    if (config["data"]["name"], config["task"]["name"]) != ("saed", "classification"):
        found = f"{config['task']['name']} of {config['data']['name']}"
        raise ValueError(f"network: expected a run of classification of saed, got {found} in {folder}")
    experiment = setup.build(config)
    source = Source(batch=None, spec=setup.train_spec(experiment), num_examples=None)
    state = loop.restore(experiment, source, sharding.make_mesh(), folder)
    dataset = experiment.datasets["train"]
    batch = network_input(image, pattern, config["data"]["kwargs"], dataset.spec)
    answers = []
    for member in members(state):
        logits = experiment.member.predict(member, batch, jax.random.key(0))["logits"][0]
        answers.append(np.asarray(jax.nn.softmax(logits), np.float64))
    names = [phase.label for phase in load_phases()]
    return dict(zip(names, np.mean(answers, axis=0).tolist(), strict=True))


def network_input(
    image: np.ndarray, pattern: Pattern, settings: Mapping[str, Any], spec: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A batch of one example as ``data.saed`` would have made it of this pattern.

    The image is resampled about the centre to half a side of ``grid`` in 1/angstrom (without: the middle of
    ``extent``), its background level taken for black, and its grey values raised to ``exponent``.

    Args:
      image: [H, W].
      pattern: of ``read_pattern``.
      settings: arguments of ``data.saed.make_dataset``.
      spec: of one example.

    Returns:
      Arrays [1, ...] by batch key; what is not known of a measured pattern is zero.
    """
    batch = {k: np.zeros((1, *s.shape), s.dtype) for k, s in spec.items() if s.dtype in (np.float32, np.int32)}
    pixels = spec["image"].shape[0]
    half = settings.get("grid") or float(np.mean(settings.get("extent") or (0.8, 1.2)))
    scale = 2 * half / pixels
    ratio = scale / pattern.scale  # pixels of the image per pixel of the input
    step = (np.arange(pixels) - 0.5 * (pixels - 1)) * ratio
    rows, columns = np.meshgrid(pattern.centre.position[1] + step, pattern.centre.position[0] + step, indexing="ij")
    # Light of several pixels falls into one.
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float64), 0.4 * max(0.0, ratio - 1))
    level = np.percentile(smooth, 5)
    grey = ndimage.map_coordinates(np.maximum(smooth - level, 0.0), [rows, columns], order=1, cval=0.0)
    grey = (grey / max(grey.max(), 1e-12)) ** settings.get("exponent", 0.5)
    batch["image"] = grey[None, :, :, None].astype(np.float32)
    if "scale" in batch:
        batch["scale"] = np.array([scale], np.float32)
    if "spots" in batch:
        places = batch["spots"].shape[1]
        order = np.argsort(-pattern.spots.intensities, kind="stable")[:places]
        found = np.concatenate([pattern.spots.positions, pattern.spots.intensities[:, None]], axis=1)[order]
        batch["spots"][0, : len(order)] = found / [1.0, 1.0, found[:, 2].max()]
    return batch
