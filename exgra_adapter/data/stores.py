"""Where images come from: a folder, tar archives, or the files of the records themselves.

A store is made once, cheap to fork and to pickle, and safe to use from several threads and processes: it holds
names and places only, and every image is opened, read and closed on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from exgra_adapter.data.files import raw_samples, record_files
from exgra_adapter.data.formats import EncodedImage, FileRange, read_encoded, tar_members
from exgra_adapter.data.images import MissingImageError, decode_image, open_image, require_safe_name


class ImageStore(Protocol):
    """Images by name."""

    def open(self, name: str) -> Image.Image:
        """Opens and fully decodes an image as 8-bit RGB.

        Args:
            name: The image's name as a record has it.

        Raises:
            ImageError: The name leaves the store, or the image is unreadable, truncated or too large;
                `MissingImageError` where the store has none of that name.
        """

    def describe(self) -> str:
        """Says in a few words what the store is."""


@dataclass(frozen=True)
class FolderStore:
    """A folder of image files; names are relative to it.

    Symbolic links are followed wherever they lead: names come with the data, links were made by the folder's owner.

    Raises:
        ValueError: There is no such folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("L", (2, 2), 9).save(folder / "a.png")
        >>> FolderStore(folder).open("a.png").getpixel((0, 0))
        (9, 9, 9)
    """

    folder: Path

    def __post_init__(self) -> None:
        if not Path(self.folder).is_dir():
            raise ValueError(f"FolderStore: folder must be an existing folder; got {self.folder}. Check the path.")

    def open(self, name: str) -> Image.Image:
        """Opens a file of the folder, see `ImageStore.open`."""
        return open_image(self.folder, name)

    def describe(self) -> str:
        """Says which folder it is."""
        return f"folder {self.folder}"


@dataclass(frozen=True)
class IndexedStore:
    """Images inside tar archives or parquet files, each in a known place. Made by `open_image_store`.

    Attributes:
        places: Where the image of a name lies.
        source: What messages call the files.
    """

    places: Mapping[str, EncodedImage]
    source: str

    def open(self, name: str) -> Image.Image:
        """Reads and decodes the image of that name, see `ImageStore.open`."""
        require_safe_name(name, "open_image", self.source)
        place = self.places.get(_plain(name))
        if place is None:
            example = next(iter(self.places), None)
            raise MissingImageError(
                f"open_image: image name must be one of the {len(self.places)} in {self.source}; got {name!r}, while "
                f"the first there is {example!r}. Correct the names or the files."
            )
        label = f"{name!r} in {self.source}"
        return decode_image(read_encoded(place, label), label)

    def describe(self) -> str:
        """Says how many images there are and where."""
        return f"{len(self.places)} images in {self.source}"


def open_image_store(images: Path | None, data: Path) -> ImageStore:
    """Opens the images that belong to a file of records.

    Args:
        images: A folder of images; an uncompressed tar archive, or several by a pattern or by a folder that holds
            nothing but archives; or None for the images inside the files of the records.
        data: The file of records, as `exgra_adapter.data.files` takes it. Looked into only where `images` is None.

    Returns:
        The store. Archives are indexed by their headers, once; nothing is unpacked.

    Raises:
        ValueError: There are no images, an archive is compressed or damaged, or one name stands for different images.
    """
    if images is None:
        return _embedded_store(Path(data))
    images = Path(images)
    if images.is_dir() and not _holds_archives(images):
        return FolderStore(images)
    if not images.is_dir() and not images.exists() and not _is_pattern(images):
        raise ValueError(
            f"open_image_store: images must be an existing folder or .tar archive; got {images}. Check the path."
        )
    return _archive_store(images)


def _archive_store(images: Path) -> IndexedStore:
    files = record_files(images, "open_image_store")
    found: list[tuple[str, EncodedImage]] = []
    for file in files:
        here: dict[str, FileRange] = {}
        for member, _ in tar_members(file, "open_image_store"):
            name = _plain(member.name)
            if member.isreg() and not member.issparse():
                here[name] = FileRange(file, member.offset_data, member.size)
                found.append((name, here[name]))
            elif member.islnk() and _plain(member.linkname) in here:  # the second name of one file
                found.append((name, here[_plain(member.linkname)]))
    return IndexedStore(_index(found), _name_files(images, files))


def _embedded_store(data: Path) -> IndexedStore:
    files = record_files(data, "open_image_store")
    source = _name_files(data, files)
    found = [
        (_plain(str(sample.content["image"])), sample.image)
        for sample in raw_samples(data, "open_image_store")
        if sample.image is not None and isinstance(sample.content, Mapping) and "image" in sample.content
    ]
    if not found:
        raise ValueError(
            f"open_image_store: images must be given, because the records hold none; got {source}. "
            "Name the folder or the archive with the images."
        )
    return IndexedStore(_index(found), source)


def _index(found: Iterable[tuple[str, EncodedImage]]) -> dict[str, EncodedImage]:
    """Makes the table of places; a name may occur again with the same image only."""
    places: dict[str, EncodedImage] = {}
    again: list[tuple[str, EncodedImage]] = []
    for name, place in found:
        if places.setdefault(name, place) != place:
            again.append((name, place))
    names = {name for name, _ in again}
    digests: dict[str, bytes] = {}
    # In the order of the files: neighbours in a parquet file are read together.
    for name, place in sorted([*((name, places[name]) for name in names), *again], key=lambda item: str(item[1])):
        digest = hashlib.blake2b(read_encoded(place, name)).digest()
        if digests.setdefault(name, digest) != digest:
            raise ValueError(
                f"open_image_store: image names must stand for one image each; got {name!r} for different images. "
                "Rename them, or read the records as a stream, where every sample keeps its own image."
            )
    return places


def _holds_archives(folder: Path) -> bool:
    """Whether there is nothing but .tar files in a folder; a large folder of images is left after the first of them."""
    some = False
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix != ".tar":
            return False
        some = True
    return some


def _is_pattern(path: Path) -> bool:
    return any(character in str(path) for character in "*?[{")


def _name_files(path: Path, files: Sequence[Path]) -> str:
    return str(path) if len(files) == 1 else f"{path} ({len(files)} files)"


def _plain(name: str) -> str:
    """Without `./` and doubled slashes, which a file system would not mind either."""
    return PurePosixPath(name).as_posix()
