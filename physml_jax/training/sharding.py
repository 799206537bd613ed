"""Process start-up and the one-axis mesh: the only place that sets JAX's global options."""

import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from physml_jax.io.files import cache_dir
from physml_jax.typing import Tree


def start(*, distributed: bool = False) -> None:
    """Prepares this process; call once, before the first array is made.

    Compiled programs are kept in the cache folder, so a second run of the same command starts at once
    (``JAX_COMPILATION_CACHE_DIR`` overrides the place).

    Args:
      distributed: connect to the other processes of the job (``jax.distributed``); the addresses come from the
        cluster's environment.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if distributed:
        jax.distributed.initialize()


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh with the single axis ``data`` over all devices of all processes, or over the first ``num_devices``."""
    devices = jax.devices()[:num_devices]
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def abstract(tree: Tree, sharding: NamedSharding) -> Tree:
    """``ShapeDtypeStruct`` leaves of a tree of arrays or structs, laid out by ``sharding``."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
