"""Pure-function simulators: keys and arrays in, arrays out. They import jax and numpy and nothing of the rest of the package but ``core`` and ``typing``."""
