"""Lattices with their clusters in colours, and how a network floods them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

#: The spanning cluster: the one strong, warm colour of these figures.
ACCENT = "#D55E00"
#: Other clusters: cool or grey, apart in lightness as well as in hue.
CLUSTER_COLOURS = ("#5B9BC8", "#A9D4EE", "#4FB495", "#B5E0CF", "#8A8FA3", "#D3D6E0", "#2F5F87")
EMPTY = "#FFFFFF"
#: Occupied sites that a flood never reached.
DRY = "#D9D9D9"
MISSED, INVENTED = "#0072B2", "#000000"
FLOOD_MAP = "viridis"


def clusters(
    labels: np.ndarray,
    spanning: Sequence[np.ndarray],
    *,
    titles: Sequence[str],
    columns: int = 3,
    key: bool = True,
) -> Any:
    """Lattices with every cluster in a colour that no touching cluster has, spanning clusters in the accent colour.

    Args:
      labels: int ``[n, L, L]``, 0 where empty; row 0 is drawn at the top.
      spanning: labels of the spanning clusters of every lattice, possibly none.
      titles: text above every lattice.
      columns: lattices per row.
      key: draw the legend.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if lengths differ or there is no lattice.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or not len(labels):
        raise ValueError(f"labels: expected at least one lattice [n, L, L], got shape {labels.shape}")
    for x, name in ((spanning, "spanning"), (titles, "titles")):
        if len(x) != len(labels):
            raise ValueError(f"{name}: expected {len(labels)} entries as in labels, got {len(x)}")
    n = len(labels)
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    lines = max(t.count("\n") for t in titles) + 1
    side = style.WIDTH / max(columns, 2)
    with style.styled():
        figure = style.new_figure(side * columns, rows * (side - 0.05 + 0.15 * lines) + (0.3 if key else 0))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, lattice, joined, title in zip(axes, labels, spanning, titles, strict=False):
            ax.imshow(coloured(lattice, joined))
            _frame(ax)
            ax.set_title(title, pad=4)
        for ax in axes[n:]:
            ax.set_axis_off()
        if key:
            _key(
                figure,
                [(ACCENT, "spanning cluster"), (CLUSTER_COLOURS[0], "other clusters, a colour each"), (EMPTY, "empty")],
            )
        return figure


def flood(
    states: np.ndarray,
    joined: np.ndarray,
    arrival: np.ndarray,
    *,
    titles: Sequence[str],
    truth_title: str = "joined to the top row",
    arrival_title: str = "iteration at which the network says so",
) -> Any:
    """The sites joined to the top row beside the iteration at which a network marked each site, one lattice per row.

    Args:
      states: bool ``[n, L, L]``, occupied sites.
      joined: bool ``[n, L, L]``, sites truly joined to the top row.
      arrival: float ``[n, L, L]``, iteration at which a site was marked, negative for never.
      titles: text at the left of every row.
      truth_title: of the first column.
      arrival_title: of the second; the third shows where the two disagree in the end.

    Returns:
      A matplotlib figure with three panels per lattice.

    Raises:
      ValueError: if shapes or lengths differ, there is no lattice, or an iteration is not finite.
    """
    states, joined, arrival = np.asarray(states, bool), np.asarray(joined, bool), np.asarray(arrival, np.float64)
    if states.ndim != 3 or not len(states):
        raise ValueError(f"states: expected at least one lattice [n, L, L], got shape {states.shape}")
    for x, name in ((joined, "joined"), (arrival, "arrival")):
        if x.shape != states.shape or not np.all(np.isfinite(x)):
            raise ValueError(f"{name}: expected finite values of shape {states.shape} as states, got {x.shape}")
    if len(titles) != len(states):
        raise ValueError(f"titles: expected {len(states)} entries as in states, got {len(titles)}")
    n = len(states)
    with style.styled():
        from matplotlib import colormaps

        figure = style.new_figure(style.WIDTH, n * 2.3 + 0.7)
        axes = figure.subplots(n, 3, squeeze=False)
        for i in range(n):
            truth = np.where(states[i], np.where(joined[i], 2, 1), 0)
            axes[i, 0].imshow(_painted(truth, (EMPTY, DRY, ACCENT)))
            axes[i, 0].set_ylabel(titles[i])
            marked = states[i] & (arrival[i] >= 0)
            axes[i, 1].imshow(_painted(states[i].astype(int), (EMPTY, DRY)))
            last = max(1.0, arrival[i][marked].max(initial=1.0))
            image = axes[i, 1].imshow(
                np.ma.masked_where(~marked, arrival[i]), cmap=colormaps[FLOOD_MAP], vmin=0, vmax=last
            )
            bar = figure.colorbar(image, cax=axes[i, 1].inset_axes([1.03, 0.0, 0.045, 1.0]))
            bar.outline.set_linewidth(0.4)
            bar.ax.tick_params(labelsize=6.5, length=2, pad=1.5)
            bar.ax.locator_params(nbins=5)
            wrong = np.where(
                states[i], 1 + np.where(joined[i] & ~marked, 1, 0) + np.where(~joined[i] & marked, 2, 0), 0
            )
            axes[i, 2].imshow(_painted(wrong, (EMPTY, DRY, MISSED, INVENTED)))
            count = int(np.sum(wrong > 1))
            axes[i, 2].set_xlabel("no site wrong" if not count else f"{count} of {int(states[i].sum())} sites wrong")
            for ax in axes[i]:
                _frame(ax)
        for ax, title in zip(axes[0], (truth_title, arrival_title, "where they disagree"), strict=True):
            ax.set_title(title, pad=4)
        _key(
            figure,
            [
                (ACCENT, "joined to the top"),
                (DRY, "not joined, or never marked"),
                (MISSED, "missed by the network"),
                (INVENTED, "marked though not joined"),
            ],
        )
        return figure


def coloured(labels: np.ndarray, spanning: np.ndarray) -> np.ndarray:
    """A picture of one lattice, float64 ``[L, L, 3]``: clusters that touch across an empty site differ in colour.

    Clusters choose in order of size the first colour that no neighbour has taken; a cluster whose neighbours have
    all colours takes the one that they use least.

    Args:
      labels: int ``[L, L]``, 0 where empty.
      spanning: labels drawn in the accent colour.

    Returns:
      Red, green, blue from 0 to 1.
    """
    names, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(np.shape(labels))
    neighbours = _neighbours(flat, flat[labels == 0][0] if np.any(labels == 0) else -1)
    colour = np.zeros(len(names), np.int64)  # 0 empty, 1 accent, then the palette
    special = np.isin(names, spanning) & (names != 0)
    colour[special] = 1
    count = np.bincount(flat.ravel(), minlength=len(names))
    for i in np.argsort(-count, kind="stable"):
        if names[i] == 0 or special[i]:
            continue
        taken = np.bincount([colour[j] - 2 for j in neighbours.get(i, ()) if colour[j] > 1], minlength=1)
        use = np.zeros(len(CLUSTER_COLOURS), np.int64)
        use[: len(taken)] = taken
        # Start at a place of its own: else the largest clusters would all be blue.
        order = (np.arange(len(use)) + int(names[i])) % len(use)
        colour[i] = 2 + order[np.argmin(use[order])]
    return _painted(colour[flat], (EMPTY, ACCENT, *CLUSTER_COLOURS))


def _neighbours(labels, empty):
    """Sets of clusters that share an empty site as a neighbour (edge or corner)."""
    padded = np.pad(labels, 1, constant_values=empty)
    size = labels.shape
    around = np.stack(
        [padded[1 + a : 1 + a + size[0], 1 + b : 1 + b + size[1]] for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    )
    found: dict[int, set[int]] = {}
    rows = np.unique(np.sort(around[:, labels == empty].T, axis=1), axis=0)
    for row in rows:
        here = [i for i in dict.fromkeys(row.tolist()) if i != empty]
        for i in here:
            found.setdefault(i, set()).update(j for j in here if j != i)
    return found


def _painted(codes, colours):
    table = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    return table[codes]


def _frame(ax):
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)


def _key(figure, entries):
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, edgecolor="#555555", linewidth=0.4, label=t) for c, t in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.1, handleheight=1.1)
