"""Pure-function simulators: keys and arrays in, arrays out.

They import jax and numpy, and of the rest of the package only ``core`` and ``typing``.
"""
