"""W_c and nu from bars: ``python experiments/anderson_scaling.py --workdir=workdirs/anderson_scaling``.

Lyapunov exponents of bars of a few widths M at a few disorders W, then finite-size scaling. Nothing is trained.
``--num_bars`` makes the intervals narrower, ``--sizes=4,6,8,10`` the corrections smaller.
"""

import functools
import time

import session
from absl import flags

WORKDIR = flags.DEFINE_string("workdir", "workdirs/anderson_scaling", "Folder of the report.")
SIZES = flags.DEFINE_list("sizes", ["4", "6", "8"], "Widths M of the bars, at least three.")
WIDTHS = flags.DEFINE_list("widths", ["14", "15", "15.75", "16.5", "17.25", "18", "19"], "Disorders W.")
BARS = flags.DEFINE_integer(
    "num_bars", 32, "Bars at every disorder; with few their scatter is a poor error.", lower_bound=4
)
SLICES = flags.DEFINE_integer("num_slices", 2000, "Slices of every bar, a multiple of 8.", lower_bound=8)
OMEGA = flags.DEFINE_float("omega", 3.0, "Exponent of the correction to scaling.")
SEED = flags.DEFINE_integer("seed", 0, "Of the disorder.")


def numbers(name, texts, kind):
    """The values of a list on the command line."""
    try:
        return [kind(t) for t in texts]
    except ValueError:
        raise ValueError(f"{name}: expected numbers with commas between them, got {','.join(texts)}") from None


def main():
    """Simulates the bars and writes the report."""
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    import numpy as np

    from physml_jax.core.rng import stream_key
    from physml_jax.io.workdir import claimed
    from physml_jax.reports import anderson_scaling
    from physml_jax.simulators import anderson

    sizes, widths = numbers("sizes", SIZES.value, int), numbers("widths", WIDTHS.value, float)
    if len(sizes) < 3:
        raise ValueError(f"sizes: expected at least three widths of bars, got {', '.join(SIZES.value)}")
    found = []
    for size in sizes:
        start = time.monotonic()
        bars = functools.partial(
            anderson.bar_localization_length, size=size, num_slices=SLICES.value, num_bars=BARS.value
        )
        keys = jax.random.split(stream_key(SEED.value, f"bars/{size}"), len(widths))
        found.append(jax.tree.map(np.asarray, jax.jit(jax.vmap(bars))(keys, jnp.asarray(widths, jnp.float32))))
        print(f"M = {size}: {time.monotonic() - start:.0f} s", flush=True)
    length, error = (np.concatenate([getattr(f, k) for f in found]) for k in ("value", "error"))
    report = anderson_scaling.make_report(
        np.tile(widths, len(sizes)), np.repeat(sizes, len(widths)), length, error, omega=OMEGA.value
    )
    with claimed(Path(WORKDIR.value)) as folder:
        session.publish(report, folder)


if __name__ == "__main__":
    session.run(main, required=())
