"""physml_jax: machine learning of phases and structures in physics, in JAX."""

__version__ = "0.1.0"
