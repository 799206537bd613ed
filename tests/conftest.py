"""Every test runs on four virtual CPU devices, with rank promotion an error, warnings as errors and compiled
programs kept between runs."""

import gc
import os
import sys
from pathlib import Path

# Must be in the environment before jax starts. One thread per BLAS call: two workers share two cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # configs/ is no part of the installed package

# Tracing makes many small objects that die by reference count: the collector finds little, at a tenth of the time.
gc.set_threshold(100_000, 20, 20)

import jax
import pytest

from physml_jax.io.files import cache_dir

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Programs that start processes of their own (training runs) use the same cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_dir("xla")))

_QUICK = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config):
    """What takes the time of the default lane is compilation, so it compiles without optimisation, in the processes
    that it starts as well. The slow lane runs the programs that users run."""
    if "not slow" in config.option.markexpr:
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        # XLA parses its flags when the backend starts. These halve the time of compilation: fused loops are compiled
        # the old way, and no program is cut into parts for threads. An unknown flag would be fatal, so only where
        # they are known to exist.
        if _QUICK not in os.environ["XLA_FLAGS"] and jax.__version_info__ < (0, 13):
            os.environ["XLA_FLAGS"] += _QUICK


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)
