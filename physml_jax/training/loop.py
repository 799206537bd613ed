"""The training loop: one readable function, and the evaluation that follows it.

Order at start: claim the work directory, compare configs, initialise on the mesh, restore. Every step is a function of
(state, step number), so a run that was killed, stopped or moved to other devices goes on exactly where its last
checkpoint stands. Rows of a step are written before its checkpoint.
"""

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import step_key, stream_key
from physml_jax.io import workdir as workdirs
from physml_jax.io.checkpoint import open_checkpoints
from physml_jax.io.writers import open_metrics, open_progress, read_metrics
from physml_jax.training import metrics as scoring
from physml_jax.training.ensemble import choose, members, step_of, summarised
from physml_jax.training.setup import Experiment
from physml_jax.training.sharding import abstract, replicated
from physml_jax.typing import Best, Run, Source, TrainState

METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"


class Interrupted(Exception):
    """A signal ended the run after a whole step; its state is saved. ``code`` is the exit status to leave with."""

    def __init__(self, step: int, signum: int):
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after step {step}; the state is saved, the same command goes on from here")
        self.code = 128 + signum


def train(experiment: Experiment, sources: Mapping[str, Source], mesh: jax.sharding.Mesh, workdir: Path) -> TrainState:
    """Trains to ``train.num_steps``, from the latest checkpoint of the work directory if there is one.

    The caller holds the work directory (``io.workdir.claimed``).

    Args:
      experiment: what ``setup.build`` returned.
      sources: what ``setup.open_sources`` returned; ``train`` and ``validation`` are used.
      mesh: the devices.
      workdir: folder of the run.

    Returns:
      The final state, replicated over the mesh.

    Raises:
      Interrupted: after SIGTERM or SIGINT.
      FloatingPointError: if the loss is not finite; names the step.
      ValueError: if the work directory belongs to another config.
    """
    config, task = experiment.config, experiment.task
    options, seed = config["train"], config["seed"]
    if options["reload_best"] and not options["keep_best"]:
        raise ValueError("train.reload_best: needs train.keep_best, the validation score that decides")
    first_process = jax.process_index() == 0
    if first_process:
        workdirs.prepare(workdir, config)
        workdirs.write_provenance(workdir, seed=seed, config=config)

    with contextlib.ExitStack() as stack:
        checkpoints = open_checkpoints(workdir / CHECKPOINTS, keep=options["keep_checkpoints"])
        stack.callback(checkpoints.close)
        state = _restore_or_init(experiment, sources["train"], mesh, checkpoints)
        step = step_of(state)
        record = _ignore
        if first_process:
            writer = open_metrics(workdir / METRICS, resume_step=step)
            stack.callback(writer.close)
            record = writer.write
        progress = open_progress(options["num_steps"], label="train", enabled=None if first_process else False)
        stack.callback(progress.close)
        stop = stack.enter_context(_Signals())
        evaluate = scoring.evaluator(task, seed)
        train_step = _make_step(task, mesh)
        keep_best, reload = jax.jit(_keep_best), jax.jit(_reload_best)
        bad_step = jax.device_put(np.int32(-1), replicated(mesh))
        text = ""
        progress.update(step, "finished already" if step >= options["num_steps"] else "")
        while step < options["num_steps"]:
            batch = sources["train"].batch(step)
            state, bad_step, values = train_step(state, bad_step, batch, step_key(seed, "train", step))
            step += 1
            last = step == options["num_steps"]
            if step % options["log_every"] == 0 or last:
                _raise_if_bad(bad_step)
                row = summarised(jax.device_get(values))
                text = f"loss {row['loss']:.4g}"
                record(step, row)
            progress.update(step, text)
            if step % options["eval_every"] == 0 or last:
                scores = evaluate(state._replace(best=None), sources["validation"])
                record(step, {f"validation/{k}": v for k, v in summarised(scores).items()})
                if options["keep_best"]:
                    state = keep_best(state, _score(options["keep_best"], scores))
                if options["reload_best"]:
                    state = reload(state)
            stopping = stop.signum  # read once: a signal between saving and leaving must not leave without saving
            if step % options["checkpoint_every"] == 0 or last or stopping:
                _raise_if_bad(bad_step)
                checkpoints.save(step, state)
            if stopping and not last:
                break
    if step < options["num_steps"]:
        raise Interrupted(step, stopping)
    return state


def finished_runs(
    experiment: Experiment, sources: Mapping[str, Source], state: TrainState, workdir: Path, *, labels=()
) -> list[Run]:
    """Predictions and scores of the report's split and of the probes, with everything else that a report needs.

    Args:
      experiment: what ``setup.build`` returned.
      sources: what ``setup.open_sources`` returned.
      state: the trained state.
      workdir: folder of the run; its metrics become the history.
      labels: short text per example of the report's split.

    Returns:
      One run per member of the ensemble; a single one without.
    """
    config, seed = experiment.config, experiment.config["seed"]
    answer = scoring.collector(experiment.member, members(state), seed)
    evaluated = answer(sources[config["report"]["split"]])
    names = [name.removeprefix("probe/") for name in sources if name.startswith("probe/")]
    probes = {name: answer(sources[f"probe/{name}"]) for name in names}
    reference = {}
    if "reference" in sources:
        reference = scoring.examples(sources["reference"], limit=config["report"]["max_reference"])
    history = read_metrics(workdir / METRICS)
    return [
        Run(
            name=f"{config['model']['name']}, {config['task']['name']}",
            config=config,
            history=history,
            **main._asdict(),
            reference=reference,
            labels=labels,
            probes={name: probe[i] for name, probe in probes.items()},
            member=i,
        )
        for i, main in enumerate(evaluated)
    ]


def restore(experiment: Experiment, source: Source, mesh: jax.sharding.Mesh, workdir: Path) -> TrainState:
    """The latest whole checkpoint of a work directory.

    Raises:
      FileNotFoundError: if the folder holds no checkpoint.
    """
    restored = open_checkpoints(workdir / CHECKPOINTS).restore(_abstract_state(experiment, source, mesh))
    if restored is None:
        raise FileNotFoundError(f"{workdir}: no checkpoint here; train first")
    return restored[1]


def init_state(experiment: Experiment, spec: Mapping) -> TrainState:
    """The initial state of an experiment; traceable, so that ``jax.eval_shape`` costs nothing."""
    zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in spec.items()}
    state = experiment.task.init(stream_key(experiment.config["seed"], "init"), zeros)
    if experiment.config["train"]["keep_best"]:
        state = state._replace(best=Best(jnp.full(state.step.shape, -jnp.inf), _params(state), state.mutable))
    return state


def _abstract_state(experiment, source, mesh):
    return abstract(jax.eval_shape(lambda: init_state(experiment, source.spec)), replicated(mesh))


def _restore_or_init(experiment, source, mesh, checkpoints):
    restored = checkpoints.restore(_abstract_state(experiment, source, mesh))
    if restored is None:
        # Random initialisers are long programs that run once: optimising them costs ten times what it saves.
        quick = {"xla_backend_optimization_level": "0"}
        init = jax.jit(
            lambda: init_state(experiment, source.spec), out_shardings=replicated(mesh), compiler_options=quick
        )
        origin = experiment.config["train"]["init_from"]
        return _warm_start(init(), Path(origin)) if origin else init()
    # The step donates its state, and a restored array may share its memory with Orbax' buffers: copy once.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=replicated(mesh))(restored[1])


def _warm_start(state, workdir):
    """The initial state with the parameters of another run; its optimizer, step and best score are not taken over."""
    try:
        found = open_checkpoints(workdir / CHECKPOINTS).restore(state)
    except OSError as error:
        raise ValueError(
            f"train.init_from: {workdir} cannot be used; its run must have the same model, optimizer and number of "
            f"seeds ({error})"
        ) from error
    if found is None:
        raise ValueError(f"train.init_from: there is no checkpoint in {workdir}")
    other = found[1]
    start = state._replace(params=other.params, mutable=other.mutable, ema=other.ema)
    if state.best is not None:
        start = start._replace(best=state.best._replace(params=_params(other), mutable=other.mutable))
    return jax.tree.map(jnp.copy, start)  # nothing shares memory when the first step donates it


def _ignore(step, row):
    """The record of a process that is not the first."""
    del step, row


def _make_step(task, mesh):
    """The jitted step (state, bad_step, batch, key) -> (state, bad_step, metrics); the state is donated.

    ``bad_step`` is the number of the first step whose loss was not finite, -1 for none: kept on the device, so that
    looking for it costs no round trip per step. Layouts are stated, or the second call would compile again.
    """

    def step(state, bad_step, batch, key):
        new, values = task.step(state, batch, key)
        bad = (bad_step < 0) & ~jnp.all(jnp.isfinite(values["loss"]))
        return new, jnp.where(bad, jnp.max(new.step), bad_step).astype(jnp.int32), values

    return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def _raise_if_bad(bad_step):
    if (step := int(bad_step)) >= 0:
        raise FloatingPointError(
            f"the loss of step {step} is not finite; checkpoints before it are whole. "
            "Try a smaller optim.learning_rate or a gradient bound (optim.clip_norm)"
        )


def _score(name, scores):
    sign, key = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    if key not in scores:
        available = ", ".join(sorted(scores))
        raise ValueError(f"train.keep_best: there is no validation score {key!r}; available: {available}")
    return np.asarray(sign * np.asarray(scores[key]), np.float32)


def _params(state):
    return state.params if state.ema is None else state.ema


def _keep_best(state, score):
    new = Best(score, _params(state), state.mutable)
    return state._replace(best=choose(score > state.best.score, new, state.best))


def _reload_best(state):
    """Training goes on from the best parameters; the optimizer keeps its state, as in the published protocols."""
    best = jax.tree.map(jnp.copy, state.best)  # two leaves of a donated state must not share memory
    return state._replace(params=best.params, mutable=best.mutable)


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying at once; a second SIGINT interrupts immediately."""

    signum = 0

    def __enter__(self):
        self._old = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: its owner handles signals
            pass
        return self

    def _note(self, signum, frame):
        del frame
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
