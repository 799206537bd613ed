"""Checkpoints of several processes over loopback, restored by one."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from physml_jax.io.checkpoint import open_checkpoints

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    """
    import sys
    import jax
    import jax.numpy as jnp
    from absl import logging
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from physml_jax.io.checkpoint import leaf_digests, open_checkpoints

    port, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), (AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec())

    def make(step):
        return jax.jit(lambda: {"w": jnp.arange(6.0) * step, "step": jnp.int32(step)}, out_shardings=sharding)()

    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), make(0))
    checkpoints = open_checkpoints(folder)
    assert checkpoints.restore(abstract) is None
    for step in (1, 2, 3):
        checkpoints.save(step, make(step))
    checkpoints.close()

    checkpoints = open_checkpoints(folder)
    step, state = checkpoints.restore(abstract)
    assert step == 3 and leaf_digests(state) == leaf_digests(make(3))
    checkpoints.close()
    if process == 0:
        open(f"{folder}/3/meta/metadata", "w").write("{}")
    jax.experimental.multihost_utils.sync_global_devices("damaged")
    checkpoints = open_checkpoints(folder)
    step, state = checkpoints.restore(abstract)
    assert step == 2 and leaf_digests(state) == leaf_digests(make(2))
    checkpoints.save(4, make(4))
    checkpoints.close()

    spread = jax.device_put(jnp.zeros(len(jax.devices())), NamedSharding(mesh, PartitionSpec("data")))
    try:
        open_checkpoints(folder).save(5, {"w": spread})
    except ValueError as error:
        print("refused:", error)
    print("done", process)
    """
)


@pytest.mark.slow
def test_two_processes_save_and_one_restores(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path / "c"
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port), str(i), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=ROOT,
        )
        for i in range(2)
    ]
    try:
        for i, child in enumerate(children):
            output, _ = child.communicate(timeout=120)
            assert child.returncode == 0, output
            assert f"done {i}" in output
            assert "refused: state: w is spread over several processes" in output
    finally:
        for child in children:
            child.kill()
            child.wait()
    checkpoints = open_checkpoints(folder)
    step, state = checkpoints.restore({"w": np.zeros(6, np.float32), "step": np.zeros((), np.int32)})
    checkpoints.close()
    assert step == 4
    np.testing.assert_array_equal(state["w"], 4 * np.arange(6, dtype=np.float32))
