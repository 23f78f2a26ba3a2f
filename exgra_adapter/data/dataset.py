"""Records with their images as PyTorch datasets: in memory, or as a stream."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from exgra_adapter.data.files import file_samples, in_fraction, parse_raw_sample, record_files, require_fraction
from exgra_adapter.data.formats import EncodedImage, RawSample, read_encoded
from exgra_adapter.data.images import ImageError, MissingImageError, decode_image, require_safe_name
from exgra_adapter.data.records import Record
from exgra_adapter.data.stores import FolderStore, ImageStore

BadSamples: TypeAlias = Literal["raise", "skip"]
"""What happens to a sample whose image cannot be read."""


class Sample:
    """One record with its image.

    Args:
        record: The record.
        image: The decoded image, or None where it cannot be read.
        problem: Why there is no image.

    Example:
        >>> from exgra_adapter.data.records import Turn
        >>> Sample(Record("7", "a.png", (Turn("?", "yes"),)), problem="broken").image is None
        True
    """

    def __init__(self, record: Record, image: Image.Image | None = None, problem: str | None = None) -> None:
        self.record = record
        self._image = image
        self._problem = problem
        self._load: Callable[[], Image.Image] | None = None
        self._bad_samples: BadSamples = "raise"

    @classmethod
    def deferred(cls, record: Record, load: Callable[[], Image.Image], bad_samples: BadSamples) -> Sample:
        """Makes a sample whose image is decoded when it is first asked for: samples that nobody takes cost little."""
        sample = cls(record)
        sample._load, sample._bad_samples = load, bad_samples
        return sample

    @property
    def image(self) -> Image.Image | None:
        """The image in 8-bit RGB; None where it cannot be read and `problem` says why.

        Raises:
            ImageError: The image cannot be read and bad samples are not skipped; the message names the record.
        """
        if self._load is not None:
            try:
                self._image = self._load()
            except ImageError as error:
                if self._bad_samples == "raise":
                    raise ImageError(f"record {self.record.id!r}: {error}") from None
                self._problem = str(error)
            self._load = None
        return self._image

    @property
    def problem(self) -> str | None:
        """Why there is no image, else None. Raises what `image` raises."""
        return None if self.image is not None else self._problem


class RecordDataset(Dataset[Sample]):
    """Records in memory, whose images are decoded when they are asked for.

    Args:
        records: The records.
        store: Where the images are; a path is a folder of images.
        bad_samples: `"raise"`, or `"skip"`: a sample whose image cannot be read then has the image None and a
            `problem`, and whoever makes batches leaves it out and counts it. It never becomes another sample.

    Raises:
        ValueError: A setting is wrong.
        ImageError: On access with `"raise"`, where an image cannot be read; the message names the record.
    """

    def __init__(self, records: Sequence[Record], store: ImageStore | Path, bad_samples: BadSamples = "raise") -> None:
        self.records = list(records)
        self.store: ImageStore = FolderStore(store) if isinstance(store, Path) else store
        self.bad_samples = _require_bad_samples(bad_samples, "RecordDataset")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        sample = Sample.deferred(record, functools.partial(self.store.open, record.image), self.bad_samples)
        _ = sample.image  # decoded here, in the worker that was asked for it
        return sample


class StreamingRecordDataset(IterableDataset[Sample]):
    """Records read from files while training runs, in constant memory.

    Order: with `shuffle_buffer`, the files are shuffled, and samples are drawn at random from a buffer that the stream
    refills; both follow from the seed and the epoch alone.

    Workers of a data loader take disjoint parts that cover everything: whole files where there are at least as many as
    workers, else every n-th sample of the stream.

    Ranks: every rank iterates over the same stream and a wrapper keeps its part, as accelerate's `IterableDatasetShard`
    does (`dispatch_batches=False`). Images are therefore decoded on first access only: those of other ranks never are.
    The wrapper completes the last batch with samples from the beginning, so that every rank takes the same steps.

    The dataset has no length: training needs a number of steps. Samples are checked as they come; a sample that breaks
    the format ends the stream with an error whatever `bad_samples` says, as `read_records` does.

    Args:
        path: The file or files, as `exgra_adapter.data.files` takes them.
        store: Where the images are; a path is a folder of images; None for the images in the files of the records.
        bad_samples: As in `RecordDataset`; a sample without any image is bad, too.
        shuffle_buffer: Samples in the buffer, at least 0; 0 keeps the order of the files. Where parquet files hold the
            images, the buffer holds them as well, still encoded.
        seed: Chooses the order and, with `fraction`, the part.
        fraction: Part of the records to keep, see `exgra_adapter.data.files.in_fraction`.
        transform: Changes every record after it was read, such as adding extended answers. To be picklable where
            workers are spawned.

    Raises:
        ValueError: A setting is wrong; while iterating, a file or a sample is broken.

    Example:
        >>> import tempfile
        >>> from exgra_adapter.data.records import Turn, write_records
        >>> data = Path(tempfile.mkdtemp()) / "train.json"
        >>> write_records(data, [Record(str(i), f"{i}.png", (Turn("?", "yes"),)) for i in range(3)])
        >>> stream = StreamingRecordDataset(data, data.parent, shuffle_buffer=0)
        >>> [sample.record.id for sample in stream]
        ['0', '1', '2']
    """

    def __init__(
        self,
        path: Path,
        store: ImageStore | Path | None = None,
        bad_samples: BadSamples = "raise",
        shuffle_buffer: int = 1000,
        seed: int = 0,
        fraction: float = 1.0,
        transform: Callable[[Record], Record] | None = None,
    ) -> None:
        if shuffle_buffer < 0:
            raise ValueError(
                f"StreamingRecordDataset: shuffle_buffer must be at least 0; got {shuffle_buffer}. 0 is file order."
            )
        require_fraction(fraction, "StreamingRecordDataset")
        self.path = Path(path)
        self.files = record_files(self.path, "StreamingRecordDataset")
        self.store: ImageStore | None = FolderStore(store) if isinstance(store, Path) else store
        self.bad_samples = _require_bad_samples(bad_samples, "StreamingRecordDataset")
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.fraction = fraction
        self.transform = transform
        # Shared memory: workers that live on from epoch to epoch see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; the same epoch has the same order."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        order = f"{self.seed} {int(self._epoch)}"
        files = list(self.files)
        if self.shuffle_buffer:
            random.Random(order).shuffle(files)
        by_file = len(files) >= workers
        chosen = files[worker::workers] if by_file else files
        raw: Iterator[RawSample] = itertools.chain.from_iterable(
            file_samples(file, "StreamingRecordDataset", with_images=self.store is None) for file in chosen
        )
        if not by_file:
            raw = itertools.islice(raw, worker, None, workers)
        samples = (sample for sample in map(self._sample, raw) if sample is not None)
        return _shuffled(samples, self.shuffle_buffer, random.Random(f"{order} {worker}"))

    def _sample(self, raw: RawSample) -> Sample | None:
        record = parse_raw_sample(raw, "StreamingRecordDataset")
        if self.fraction < 1 and not in_fraction(record, self.fraction, self.seed):
            return None
        if self.transform is not None:
            record = self.transform(record)
        load = (
            functools.partial(_decode_embedded, raw.image, record.image, raw.where)
            if self.store is None
            else functools.partial(self.store.open, record.image)
        )
        return Sample.deferred(record, load, self.bad_samples)


def _decode_embedded(image: EncodedImage | None, name: str, where: str) -> Image.Image:
    require_safe_name(name, "open_image", where)
    if image is None:
        raise MissingImageError(
            f"open_image: {where} must have its image beside it, because no folder or archive of images is given; got "
            f"the name {name!r} only. Name the images."
        )
    return decode_image(read_encoded(image, f"{name!r} of {where}"), f"{name!r} of {where}")


def _shuffled(samples: Iterator[Sample], size: int, generator: random.Random) -> Iterator[Sample]:
    buffer = list(itertools.islice(samples, size))
    for sample in samples:
        if not buffer:
            yield sample
            continue
        index = generator.randrange(len(buffer))
        yield buffer[index]
        buffer[index] = sample
    generator.shuffle(buffer)
    yield from buffer


def _require_bad_samples(value: BadSamples, caller: str) -> BadSamples:
    if value not in ("raise", "skip"):
        raise ValueError(f"{caller}: bad_samples must be 'raise' or 'skip'; got {value!r}. Choose one.")
    return value
