"""What everything else stands on: keys, batching, precision, name resolution. Imports only jax and numpy."""
