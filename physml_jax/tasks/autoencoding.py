"""Reconstruction of spin states by a variational autoencoder.

A network that was trained on the states of one phase reconstructs those and no others, so the share of wrong spins is
a map of that phase: with spins s = +-1 and reconstructed mean spins s' in (-1, 1)

    epsilon = mean over sites of (s - s')^2 / 4,

0 for a perfect reconstruction, 1/2 where the spins of s' are unrelated to those of s, 1 for the inverted state.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from physml_jax.tasks.augmentation import augment as mirrored
from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Array, Key, Task

#: Symmetries of a Hamiltonian without field on a periodic square lattice.
SYMMETRIES = ("flip", "translation", "dihedral")
GENERATORS = ("sample", "sign")


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: str = "spins",
    beta: float = 1.0,
    augment: Sequence[str] = (),
    generate: str = "sample",
    ema_decay: float = 0.0,
) -> Task:
    """A variational autoencoder with the spin-adapted squared error.

    The loss of a state is ``epsilon + beta KL / N``: the reconstruction from a latent vector that is drawn from the
    encoder's Gaussian, and the divergence of that Gaussian from the standard normal one, in nats per site (N sites).
    The choice between two states that differ everywhere costs log(2)/N and saves 1/4 of epsilon, so ignoring the state
    pays only above beta = N/(4 log 2); trainings get stuck there from about a tenth of that (N = 900). With beta near 1
    it is too dear to encode where single spins are turned: log N nats each, to save 1/N.

    Scores and predictions use the mean of the encoder's Gaussian, without noise.

    Args:
      models: ``model`` has the methods ``encode`` ([B, L, L, 1] -> mean and log-variance, [B, Z] each) and ``decode``
        ([B, Z] -> mean spins [B, L, L, 1]).
      tx: the optimizer.
      inputs: batch key of the states, -1 or +1, int8 [B, L, L, 1].
      beta: weight of the divergence per site.
      augment: symmetries from which an operation per training state is drawn: ``"flip"`` (all spins), ``"translation"``
        (by any vector), ``"dihedral"`` (quarter turns and mirrors).
      generate: how a state is made from decoded mean spins: ``"sample"``, every spin is drawn on its own with that
        mean, or ``"sign"``, the likelier one.
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss``, ``epsilon``, ``kl`` (nats per state); scores of these names [B]; predictions

      - ``epsilon``, ``epsilon_sign`` float32 [B]: with the decoded mean spins, and with their signs;
      - ``latent``, ``latent_std`` float32 [B, Z]: mean and standard deviation of the encoder's Gaussian;
      - ``reconstruction`` int8 [B, L, L, 1]: signs of the decoded mean spins;
      - ``generated`` int8 [B, L, L, 1]: a state made from a latent vector that is standard normal.

    Raises:
      ValueError: for an unknown symmetry or generator, or a negative beta; when called, for states of another shape.

    References:
      D. P. Kingma, M. Welling, Auto-encoding variational Bayes (2014), section 3 and appendix B.
      I. Higgins et al., beta-VAE (2017), equation 4.
    """
    if unknown := sorted(set(augment) - set(SYMMETRIES)):
        raise ValueError(f"task.kwargs.augment: expected names from {', '.join(SYMMETRIES)}, got {', '.join(unknown)}")
    if generate not in GENERATORS:
        raise ValueError(f"task.kwargs.generate: expected one of {', '.join(GENERATORS)}, got {generate!r}")
    if not beta >= 0:
        raise ValueError(f"task.kwargs.beta: expected a number of at least 0, got {beta}")
    model = models["model"]

    def states(batch):
        spins = batch[inputs]
        if spins.ndim != 4 or spins.shape[3] != 1:
            raise ValueError(f"{inputs}: expected states [B, L, L, 1], got {list(spins.shape)}")
        return spins

    def losses_of(spins, decoded, mean, log_variance):
        epsilon, kl = reconstruction_error(spins, decoded), divergence(mean, log_variance)
        return {"loss": epsilon + beta / (spins.shape[1] * spins.shape[2]) * kl, "epsilon": epsilon, "kl": kl}

    def init(key, batch):
        variables = model.init(key, states(batch), train=False)
        mutable = {k: v for k, v in variables.items() if k != "params"}
        return create(variables["params"], mutable, tx, ema_decay=ema_decay)

    def step(state, batch, key):
        augment_key, noise_key = jax.random.split(key)
        spins = transformed(augment_key, states(batch), augment)

        def loss_of(params):
            variables = {"params": params, **state.mutable}
            mean, log_variance = model.apply(variables, spins, method="encode")
            noise = jax.random.normal(noise_key, mean.shape, jnp.float32)
            decoded = model.apply(variables, mean + jnp.exp(0.5 * log_variance) * noise, method="decode")
            metrics = jax.tree.map(jnp.mean, losses_of(spins, decoded, mean, log_variance))
            return metrics["loss"], metrics

        grads, metrics = jax.grad(loss_of, has_aux=True)(state.params)
        return apply_gradients(state, grads, tx, ema_decay=ema_decay), metrics

    def variables_of(state):
        params, mutable = evaluation_variables(state)
        return {"params": params, **mutable}

    def predict(state, batch, key):
        spins, variables = states(batch), variables_of(state)
        mean, log_variance = model.apply(variables, spins, method="encode")
        decoded = model.apply(variables, mean, method="decode")
        latent_key, spin_key = jax.random.split(key)
        drawn = model.apply(variables, jax.random.normal(latent_key, mean.shape, jnp.float32), method="decode")
        sign = _sign(decoded)
        return {
            "epsilon": reconstruction_error(spins, decoded),
            "epsilon_sign": reconstruction_error(spins, sign),
            "latent": mean,
            "latent_std": jnp.exp(0.5 * log_variance),
            "reconstruction": sign,
            "generated": _drawn(spin_key, drawn) if generate == "sample" else _sign(drawn),
        }

    def evaluate(state, batch, key):
        del key
        spins, variables = states(batch), variables_of(state)
        mean, log_variance = model.apply(variables, spins, method="encode")
        decoded = model.apply(variables, mean, method="decode")
        return {**losses_of(spins, decoded, mean, log_variance), "weight": batch["weight"]}

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)


def reconstruction_error(spins: Array, reconstruction: Array) -> Array:
    """epsilon, the mean over sites of (s - s')^2 / 4: two arrays [B, L, L, 1] of any dtype -> float32 [B]."""
    difference = spins.astype(jnp.float32) - reconstruction.astype(jnp.float32)
    return jnp.square(difference).mean(axis=(1, 2, 3)) / 4


def divergence(mean: Array, log_variance: Array) -> Array:
    """Kullback-Leibler divergence of a diagonal Gaussian from the standard normal one, nats: [B, Z] twice -> [B]."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(axis=-1)


def transformed(key: Key, spins: Array, symmetries: Sequence[str]) -> Array:
    """Every state under an operation of its own, drawn from the named symmetries: [B, L, L, 1] -> the same."""
    flip_key, shift_key, dihedral_key = jax.random.split(key, 3)
    if "dihedral" in symmetries:
        spins = mirrored(dihedral_key, {"spins": spins}, ("spins",), group="dihedral")["spins"]
    if "translation" in symmetries:
        shifts = jax.random.randint(shift_key, (spins.shape[0], 2), 0, spins.shape[1], jnp.int32)
        spins = jax.vmap(lambda state, shift: jnp.roll(state, shift, axis=(0, 1)))(spins, shifts)
    if "flip" in symmetries:
        up = jax.random.bernoulli(flip_key, 0.5, (spins.shape[0], 1, 1, 1))
        spins = jnp.where(up, spins, -spins)
    return spins


def _sign(mean: Array) -> Array:
    """The likelier spin, int8; up where both are equally likely."""
    return jnp.where(mean >= 0, 1, -1).astype(jnp.int8)


def _drawn(key: Key, mean: Array) -> Array:
    """Spins int8, each drawn on its own with the given mean."""
    uniform = jax.random.uniform(key, mean.shape, jnp.float32, minval=-1.0, maxval=1.0)
    return jnp.where(uniform < mean, 1, -1).astype(jnp.int8)
