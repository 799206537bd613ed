"""Tables of a report as files: CSV for programs, aligned text for people."""

import csv
import io
from pathlib import Path

from physml_jax.io.files import write_atomic
from physml_jax.typing import Report, Table

TEXT = "report.txt"


def write_tables(folder: str | Path, report: Report) -> list[Path]:
    """Writes every table of a report as ``<name>.csv``, and all of it but the figures as ``report.txt``.

    Args:
      folder: existing folder.
      report: as for ``page.write_report``.

    Returns:
      Paths of the files.

    Raises:
      OSError: if the folder does not exist or cannot be written.
    """
    folder, paths = Path(folder), []
    for name, table in report.tables.items():
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([["" if v is None else v for v in row] for row in table.rows])
        write_atomic(folder / f"{name}.csv", buffer.getvalue())
        paths.append(folder / f"{name}.csv")
    parts = [report.title, "", *report.summary]
    for table in report.tables.values():
        parts += ["", table.caption, as_text(table)]
    write_atomic(folder / TEXT, "\n".join(parts) + "\n")
    return [*paths, folder / TEXT]


def as_text(table: Table) -> str:
    """A table in columns of equal width, numbers to the right.

    Example:
      >>> print(as_text(Table("", ("name", "value"), [["a", 1.5], ["bc", None]])))
      name  value
      a       1.5
      bc        -
    """
    rows = [[_cell(v) for v in row] for row in table.rows]
    number = [all(not isinstance(r[j], str) for r in table.rows) for j in range(len(table.columns))]
    widths = [max(len(r[j]) for r in [list(map(str, table.columns)), *rows]) for j in range(len(table.columns))]
    lines = []
    for row in [list(map(str, table.columns)), *rows]:
        cells = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, number, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
