"""An architecture search: candidates of a config's space, trained a little, judged by validation, halved, trained more.

Candidates that differ in the learning rate only are a group: one program trains them on the same batches, from the same
initial parameters. A rung trains its candidates from the start: what a step does depends on its number and not on
history, so a longer training repeats the shorter one exactly, and no states of networks that may never be asked again
lie on the disk. What is stored, whole or not at all, is what each group of each rung answered; a search that was
stopped goes on with the first group that lacks.

Selection sees the validation part of the training images and nothing else.
"""

import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from physml_jax.analysis import model_selection
from physml_jax.analysis.model_selection import Answers
from physml_jax.io import files
from physml_jax.io import workdir as workdirs
from physml_jax.training import candidates, groups, halving, setup
from physml_jax.training.candidates import Space

RESULTS, LABELS = "results", "labels.npz"
#: Groups whose parameters and whose arithmetic an estimate counts.
_MAX_SHOWN, _MAX_LOWERED = 200, 8


class Plan(NamedTuple):
    """What a config asks for.

    Attributes:
      config: nested plain dicts.
      space: its axes.
      numbers: int64 [n], the candidates of the first rung.
      counts: candidates of every rung.
      reference: number of the candidate that the config itself is.
      num_images: training images that all candidates see together, the last trainings included.
    """

    config: dict[str, Any]
    space: Space
    numbers: np.ndarray
    counts: tuple[int, ...]
    reference: int
    num_images: int


class Found(NamedTuple):
    """A finished search.

    Attributes:
      config: nested plain dicts.
      names: of the axes.
      values: of every candidate by number.
      rungs: answers at the end of every rung.
      labels: true classes by name of the set: ``validation``, ``test`` and the probes.
      selected: number of the candidate that validation picked.
      reference: number of the candidate that the config itself is.
      finals: answers of trainings with other seeds, of the selected candidate and of the reference.
    """

    config: dict[str, Any]
    names: tuple[str, ...]
    values: dict[int, dict[str, Any]]
    rungs: tuple[Answers, ...]
    labels: dict[str, np.ndarray]
    selected: int
    reference: int
    finals: dict[int, Answers]


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Reads and checks the section ``search`` of a config.

    Raises:
      ValueError: for a space, a number or a fraction that makes no sense; names the option.
    """
    config = setup.plain(config)
    options = config.get("search")
    if not options:
        raise ValueError("search: expected a config with a section 'search'; see configs/saed_search.py")
    space = candidates.read_space(config)
    halving.check_rungs(options["rungs"], options["keep"])
    if options["score"] not in model_selection.KINDS:
        known = ", ".join(model_selection.KINDS)
        raise ValueError(f"search.score: expected one of {known}, got {options['score']!r}")
    if options["map_members"] not in groups.METHODS:
        raise ValueError(
            f"search.map_members: expected one of {', '.join(groups.METHODS)}, got {options['map_members']!r}"
        )
    if options["final_seeds"] < 1:
        raise ValueError(f"search.final_seeds: expected at least 1, got {options['final_seeds']}")
    if config["data"]["source"] != "simulate":
        raise ValueError(f"data.source: a search simulates its images, got {config['data']['source']!r}")
    numbers = candidates.sample(space, options["num_candidates"], seed=config["seed"])
    counts = [len(numbers)]
    while len(counts) < len(options["rungs"]):
        counts.append(halving.num_survivors(counts[-1], options["keep"]))
    images = sum(n * budget for n, budget in zip(counts, options["rungs"], strict=True))
    images += 2 * options["final_seeds"] * options["rungs"][-1]
    return Plan(config, space, numbers, tuple(counts), candidates.number_of(space, config), images)


def run(
    config: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    workdir: Path,
    *,
    progress: Callable[[int, str], None] = lambda done, text: None,
) -> Found:
    """Searches, from what the work directory holds.

    The caller holds the work directory (``io.workdir.claimed``).

    Args:
      config: nested mapping with a section ``search``.
      mesh: the devices.
      workdir: folder of the search.
      progress: called with the number of images seen so far and a text.

    Raises:
      ValueError: for a bad config, or if the work directory belongs to another one.
    """
    plan = make_plan(config)
    options, space = plan.config["search"], plan.space
    workdirs.prepare(workdir, plan.config, ignore=("report", "train.log_every"))
    workdirs.write_provenance(workdir, seed=plan.config["seed"], config=plan.config)
    opened: list[groups.Bench] = []

    def bench() -> groups.Bench:
        """Opened when the first group asks for it: a finished search only reads."""
        if not opened:
            progress(0, "opening the data")
            opened.append(groups.open_bench(plan.config, mesh))
            _save(workdir / LABELS, opened[0].labels)
        return opened[0]

    done = 0

    def trained(path: Path, group: int, digits: Sequence[int], replicas: Sequence[int], budget: int, text: str):
        """Answers of members of a group, from the disk or trained now. ``numbers`` are replicas where these differ."""
        nonlocal done
        values = candidates.candidate(space, group * candidates.num_rates(space))
        wanted = np.array([group * candidates.num_rates(space) + d for d in digits], np.int64)
        found = _read(path, wanted, np.asarray(replicas), budget)
        if found is None:
            rates = [space.values[-1][d] for d in digits]
            answers, seconds, num_params = groups.train_members(
                plan.config, values, rates, replicas, budget=budget, bench=bench(), mesh=mesh
            )
            _write(path, wanted, np.asarray(replicas), budget, answers, num_params, seconds)
            found = _read(path, wanted, np.asarray(replicas), budget)
        done += len(wanted) * budget
        progress(done, text)
        return found

    numbers, rungs = plan.numbers, []
    for i, budget in enumerate(options["rungs"]):
        together = by_group(space, numbers)
        found = []
        for j, (group, digits) in enumerate(together.items()):
            text = f"rung {i + 1} of {len(options['rungs'])}, group {j + 1} of {len(together)}"
            path = workdir / RESULTS / f"rung{i}" / f"group{group}.npz"
            found.append(trained(path, group, digits, [0] * len(digits), budget, text))
        rungs.append(_joined(found))
        labels = _load(workdir / LABELS) or bench().labels
        kept = 1 if i + 1 == len(plan.counts) else plan.counts[i + 1]
        chosen = halving.survivors(*judged(rungs[-1], labels, options["score"]), num_kept=kept)
        numbers = np.sort(np.array(chosen, np.int64))
    selected = chosen[0]
    replicas = list(range(1, options["final_seeds"] + 1))  # seed 0 is the one that was selected
    finals = {}
    for number in dict.fromkeys((selected, plan.reference)):
        group, digit = divmod(number, candidates.num_rates(space))
        path = workdir / RESULTS / "final" / f"candidate{number}.npz"
        text = f"{len(replicas)} seeds of " + ("the selected network" if number == selected else "the reference")
        again = trained(path, group, [digit] * len(replicas), replicas, options["rungs"][-1], text)
        finals[number] = again._replace(numbers=np.array(replicas, np.int64))
    known = sorted({*map(int, plan.numbers), plan.reference})
    values = {n: candidates.candidate(space, n) for n in known}
    return Found(plan.config, space.names, values, tuple(rungs), labels, selected, plan.reference, finals)


def describe(plan: Plan, mesh: jax.sharding.Mesh) -> list[str]:
    """Lines about what a search will cost, from two steps of the reference on zeros; nothing is trained."""
    space, options = plan.space, plan.config["search"]
    together = list(by_group(space, plan.numbers))
    values = {g: candidates.candidate(space, g * candidates.num_rates(space)) for g in together}
    shown = together[:: -(-len(together) // _MAX_SHOWN)]
    names, sizes = set(), []
    for group in shown:
        experiment = groups.group_experiment(plan.config, values[group])
        names.add(groups.program_name(experiment))
        sizes.append(groups.make_programs(experiment, mesh).num_params)
    lines = [
        f"space: {candidates.size(space):,} candidates on {len(space.names)} axes",
        f"first rung: {len(plan.numbers):,} candidates in {len(together):,} groups",
        f"parameters of a candidate: {min(sizes):,} to {max(sizes):,}" + _of(shown, together),
    ]
    num_programs = round(len(names) * len(together) / len(shown))
    for i, (count, budget) in enumerate(zip(plan.counts, options["rungs"], strict=True)):
        lines.append(f"rung {i + 1}: {count:,} candidates see {budget:,} images each")
    lines.append(f"then {options['final_seeds']} seeds of the selected network and of the reference, {budget:,} images")

    flops, reference = [], candidates.candidate(space, plan.reference)
    for group in together[:: -(-len(together) // _MAX_LOWERED)]:
        lowered, size = _lowered_step(plan.config, values[group], mesh)[:2]
        flops.append(lowered.cost_analysis()["flops"] / size)
    lowered, size, arguments = _lowered_step(plan.config, reference, mesh)
    ratio = np.mean(flops) / (lowered.cost_analysis()["flops"] / size)
    start = time.monotonic()
    step = lowered.compile()
    compiled = time.monotonic() - start
    state, finite, *rest = arguments
    state, finite = step(state, finite, *rest)
    start = time.monotonic()
    jax.block_until_ready(step(state, finite, *rest))
    once = (time.monotonic() - start) / size
    lines.append(f"programs: about {num_programs:,}; that of the reference took {compiled:.0f} s to compile")
    lines.append(
        f"images in all: {plan.num_images:,}; the reference takes {1e3 * once:.1f} ms for one, and on average a "
        f"candidate does {ratio:.2f} times its arithmetic"
    )
    minutes = (plan.num_images * once * ratio + num_programs * compiled) / 60
    return [*lines, f"about {minutes:,.0f} min in all, without data and evaluation"]


def _lowered_step(config, values, mesh):
    """(lowered step of one member, its batch size, arguments of zeros)"""
    alone = candidates.candidate_config(config, {"search.map_members": "loop"})
    experiment = groups.group_experiment(alone, values)
    programs = groups.make_programs(experiment, mesh)
    batch = {k: jnp.zeros(s.shape, s.dtype) for k, s in setup.train_spec(experiment).items()}
    state = programs.init(jnp.int32(0))
    arguments = (state, jnp.bool_(True), jnp.float32(1e-3), jnp.int32(0), batch, jax.random.key(0))
    return programs.step.lower(*arguments), experiment.config["data"]["batch_size"], arguments


def _of(shown, everything):
    return "" if len(shown) == len(everything) else f" ({len(shown)} of the groups asked)"


def by_group(space: Space, numbers: Sequence[int]) -> dict[int, list[int]]:
    """Group -> digits of the learning rate of its members among ``numbers``."""
    found: dict[int, list[int]] = {}
    for number in numbers:
        group, digit = divmod(int(number), candidates.num_rates(space))
        found.setdefault(group, []).append(digit)
    return found


def judged(found: Answers, labels: Mapping[str, np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(numbers, scores, losses) of a rung on the validation images."""
    answers = found.answers["validation"]
    score = model_selection.scores(answers, labels["validation"], kind=kind)
    failed = (answers < 0).any(axis=1)
    return found.numbers, np.where(failed, -np.inf, score), found.losses["validation"].mean(axis=1, dtype=np.float64)


def _write(path, numbers, replicas, budget, answers, num_params, seconds):
    arrays = {"numbers": numbers, "replicas": replicas, "budget": np.int64(budget)}
    arrays |= {"num_params": np.full(len(numbers), num_params, np.int64)}
    arrays |= {"seconds": np.full(len(numbers), seconds / len(numbers))}
    for name, (said, losses) in answers.items():
        arrays |= {f"answers/{name}": said.astype(np.int16), f"losses/{name}": losses.astype(np.float32)}
    _save(path, arrays)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, buffer.getvalue())


def _load(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of a file, ``None`` if it is absent or damaged; ``zipfile`` holds every array against its CRC."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {k: stored[k] for k in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s); it is made again", path, error)
        return None


def _read(path: Path, numbers: np.ndarray, replicas: np.ndarray, budget: int) -> Answers | None:
    arrays = _load(path)
    if arrays is None:
        return None
    try:
        same = (arrays["numbers"], arrays["replicas"], arrays["budget"])
        if all(np.array_equal(a, b) for a, b in zip(same, (numbers, replicas, budget), strict=True)):
            parts = [{k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(p)} for p in ("ans", "los")]
            return Answers(arrays["numbers"], budget, *parts, arrays["num_params"], arrays["seconds"])
    except KeyError:
        pass
    logging.warning("%s holds other candidates than wanted; it is made again", path)
    return None


def _joined(found: Sequence[Answers]) -> Answers:
    def join(pick):
        return np.concatenate([pick(f) for f in found])

    return Answers(
        numbers=join(lambda f: f.numbers),
        budget=found[0].budget,
        answers={k: join(lambda f, k=k: f.answers[k]) for k in found[0].answers},
        losses={k: join(lambda f, k=k: f.losses[k]) for k in found[0].losses},
        num_params=join(lambda f: f.num_params),
        seconds=join(lambda f: f.seconds),
    )
