"""Which sites are joined to the first row, and does a cluster span the lattice? Read from one map of sites.

The model gives a logit per site: "joined to the first row by occupied sites". A state spans vertically if an occupied
site of the last row is joined to the first, so the probability of spanning is the largest one there; spanning in either
direction is the larger value of a state and its transpose. Nothing but the map is learned, and the readout has no
parameters.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Array, Task

SUPERVISION = ("mask", "bit")
LABELS = ("vertical", "spanning")

#: Logit of spanning where the last row holds no occupied site: such a state cannot span.
_NEVER = -20.0
_SMALLEST = 1e-30  # probability whose logarithm is still finite in float32


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: str = "image",
    mask: str = "connected",
    label: str = "vertical",
    supervision: str = "mask",
    hardest: float = 1.0,
    ema_decay: float = 0.0,
) -> Task:
    """Connectivity by binary cross entropy, of every site or of the spanning label alone.

    Args:
      models: ``model`` maps float32 [B, H, W, 1] to logits per site [B, H, W, 1].
      tx: the optimizer.
      inputs: batch key of the lattice, 1 where a site is occupied.
      mask: batch key of the sites joined to the first row, float32 [B, H, W, 1]; the target of ``"mask"``.
      label: ``"vertical"`` (first row to last row) or ``"spanning"`` (either direction); batch key of the label, int32
        [B], as well. It is the target of ``"bit"`` and scored in any case.
      supervision: ``"mask"`` trains on every site, ``"bit"`` on the label alone.
      hardest: share of the batch that is learned from, the examples of largest loss; 1 for all. A share of a larger
        batch sharpens a network that is nearly right, and ruins one that is not.
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss`` and ``accuracy`` (of what is supervised: occupied sites, or labels); predictions
      ``probabilities`` [B, 2] of the label, ``connected`` [B, H, W, 1] (probability per site) and ``arrival`` [B, H, W,
      1] if the model sows it; scores ``accuracy`` and ``loss`` of the label, ``site_accuracy`` over the occupied sites
      if the batch has the mask, all [B].

    Raises:
      ValueError: for an unknown label or supervision, or a share outside (0, 1].
    """
    if label not in LABELS:
        raise ValueError(f"task.kwargs.label: expected one of {', '.join(LABELS)}, got {label!r}")
    if supervision not in SUPERVISION:
        raise ValueError(f"task.kwargs.supervision: expected one of {', '.join(SUPERVISION)}, got {supervision!r}")
    if not 0 < hardest <= 1:
        raise ValueError(f"task.kwargs.hardest: expected a share above 0 and at most 1, got {hardest}")
    model = models["model"]

    orientations = 2 if label == "spanning" else 1

    def oriented(lattice):
        """The lattices, followed by their transposes where the label asks for both directions."""
        if orientations == 1:
            return lattice
        if lattice.shape[1] != lattice.shape[2]:
            raise ValueError(f"{inputs}: either direction needs square lattices, got {list(lattice.shape)}")
        return jnp.concatenate([lattice, lattice.swapaxes(1, 2)])

    def spanning_logit(sites, lattice):
        """[B] from logits and occupancy [orientations * B, H, W, 1]."""
        last_row = jnp.where(lattice[:, -1, :, 0] > 0, sites[:, -1, :, 0], _NEVER).max(axis=-1)
        return last_row.reshape(orientations, -1).max(axis=0)

    def init(key, batch):
        variables = model.init(key, batch[inputs], train=False)
        mutable = {k: v for k, v in variables.items() if k != "params"}
        return create(variables["params"], mutable, tx, ema_decay=ema_decay)

    def step(state, batch, key):
        lattice = batch[inputs] if supervision == "mask" else oriented(batch[inputs])

        def loss_of(params):
            sites, mutable = model.apply(
                {"params": params, **state.mutable},
                lattice,
                train=True,
                mutable=list(state.mutable),
                rngs={"dropout": key},
            )
            if supervision == "mask":
                losses = optax.sigmoid_binary_cross_entropy(sites, batch[mask])
                accuracy = _site_accuracy(sites > 0, batch[mask], lattice)
            else:
                logit, target = spanning_logit(sites, lattice), batch[label]
                losses = optax.sigmoid_binary_cross_entropy(logit, target.astype(logit.dtype))
                accuracy = (logit > 0) == (target > 0)
            losses = losses.mean(axis=tuple(range(1, losses.ndim)))
            if hardest < 1:
                losses = jax.lax.top_k(losses, max(1, round(hardest * len(losses))))[0]
            return losses.mean(), (accuracy.mean(), mutable)

        (loss, (accuracy, mutable)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = apply_gradients(state, grads, tx, mutable=mutable, ema_decay=ema_decay)
        return state, {"loss": loss, "accuracy": accuracy}

    def predict(state, batch, key):
        del key
        params, mutable = evaluation_variables(state)
        lattice = oriented(batch[inputs])
        sites, sown = model.apply({"params": params, **mutable}, lattice, train=False, mutable=["intermediates"])
        logit, size = spanning_logit(sites, lattice), len(batch[inputs])
        probabilities = jnp.stack([jax.nn.sigmoid(-logit), jax.nn.sigmoid(logit)], axis=-1)
        # Of the lattices as given, not of their transposes.
        sown = {k: v[0][:size] for k, v in sown.get("intermediates", {}).items() if k == "arrival"}
        return {"probabilities": probabilities, "connected": jax.nn.sigmoid(sites[:size]), **sown}

    def score(predictions, batch):
        probabilities, target = predictions["probabilities"], batch[label] > 0
        of_truth = jnp.where(target, probabilities[:, 1], probabilities[:, 0])
        scores = {
            "accuracy": ((probabilities[:, 1] > 0.5) == target).astype(jnp.float32),
            "loss": -jnp.log(jnp.maximum(of_truth, _SMALLEST)),
            "weight": batch["weight"],
        }
        if mask in batch:
            scores["site_accuracy"] = _site_accuracy(predictions["connected"] > 0.5, batch[mask], batch[inputs])
        return scores

    def evaluate(state, batch, key):
        return score(predict(state, batch, key), batch)

    return Task(init=init, step=step, predict=predict, evaluate=evaluate, score=score)


def _site_accuracy(joined: Array, mask: Array, lattice: Array) -> Array:
    """Share of the occupied sites of each state that are judged rightly, [B]; 1 for a state without any."""
    occupied = lattice > 0
    wrong = ((joined != (mask > 0.5)) & occupied).sum(axis=(1, 2, 3))
    return 1 - wrong / jnp.maximum(occupied.sum(axis=(1, 2, 3)), 1)
