"""Records on disk: array_record files that TFDS writes and reads, without TensorFlow.

This module imports TensorFlow Datasets when it is imported; import it inside the function that needs it.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.utils import tqdm_utils

from physml_jax.typing import Batch

Record = Mapping[str, np.ndarray]

_READ_ROWS = 256  # records decoded at a time, which bounds the memory beside the result


class _OwnInfo(tfds.core.DatasetInfo):
    """TFDS would ask its public bucket about every data set, and leave an empty temporary folder behind."""

    def initialize_from_bucket(self) -> None:
        """Asks nobody."""


class Records(tfds.core.GeneratorBasedBuilder):
    """The one builder of this package: numbered records of fixed shapes, one TFDS split per file.

    Splits are used as files because TFDS keeps a whole split in memory while writing, and needs TensorFlow above 1 GB.
    """

    name = "records"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, spec: Batch, files: Mapping[str, Callable[[], Iterator[Record]]], **kwargs: Any):
        self._spec = spec
        self._files = files
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            key: tfds.features.Tensor(shape=tuple(s.shape), dtype=np.dtype(s.dtype), encoding="bytes")
            for key, s in self._spec.items()
        }
        return _OwnInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True, description="records"
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Record]]]:
        return {name: self._generate_examples(make) for name, make in self._files.items()}

    def _generate_examples(self, make: Callable[[], Iterator[Record]]) -> Iterator[tuple[int, Record]]:
        yield from enumerate(make())


def write_records(
    directory: Path, *, spec: Batch, lengths: Sequence[int], read: Callable[[int], Iterator[Record]]
) -> None:
    """Writes a data set of records into a new folder.

    Args:
      directory: the folder to make; it appears under this name only when it is whole. Its parent must exist.
      spec: ``ShapeDtypeStruct`` of one record by key; real dtypes only.
      lengths: number of records of every file.
      read: file number -> its records in order; called once per file, in order.

    Raises:
      OSError: if the disk is full or the folder cannot be written.

    """
    directory = Path(directory)
    files = {_split(i): (lambda i=i: read(i)) for i in range(len(lengths))}
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        with _quiet():
            builder = Records(spec=spec, files=files, data_dir=str(work), file_format="array_record")
            builder.download_and_prepare()
        written = [builder.info.splits[name].num_examples for name in files]
        if written != list(lengths):
            raise ValueError(f"{directory}: expected files of {list(lengths)} records, wrote {written}")
        os.rename(builder.data_dir, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def open_records(directory: Path, *, spec: Batch) -> tuple[int, Callable[[Sequence[int]], dict[str, np.ndarray]]]:
    """Opens a folder that :func:`write_records` made.

    Args:
      directory: the folder.
      spec: ``ShapeDtypeStruct`` of one record by key.

    Returns:
      The number of records, and a function from record numbers [n] to arrays [n, ...] by key.

    Raises:
      OSError: if the folder cannot be read as a data set; reading a damaged record raises it too.

    """
    try:
        builder = tfds.builder_from_directory(str(directory))
        source = builder.as_data_source(split="+".join(sorted(builder.info.splits)))
        length = len(source)
    except Exception as error:
        raise OSError(f"{directory}: cannot be read as a data set of records ({_one_line(error)})") from error

    def gather(rows: Sequence[int]) -> dict[str, np.ndarray]:
        arrays = {key: np.empty((len(rows), *s.shape), s.dtype) for key, s in spec.items()}
        try:
            for start in range(0, len(rows), _READ_ROWS):
                chunk = [int(r) for r in rows[start : start + _READ_ROWS]]
                for j, record in enumerate(source.__getitems__(chunk), start):
                    for key, array in arrays.items():
                        array[j] = record[key]
        except Exception as error:
            raise OSError(f"{directory}: cannot read its records ({_one_line(error)})") from error
        return arrays

    return length, gather


def _split(i: int) -> str:
    return f"file{i:05d}"


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS prints, logs and draws bars; whoever asked for the records has a way of his own to show progress."""
    bars, verbosity = getattr(tqdm_utils, "_active", True), logging.get_verbosity()
    tqdm_utils.display_progress_bar(False)
    logging.set_verbosity(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(bars)
        logging.set_verbosity(verbosity)
