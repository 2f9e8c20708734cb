"""Images: a folder split/class/file, and pixels out of files and arrays."""

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.data import memory
from finetune.data.source import SPLITS, Examples, Source
from finetune.errors import UserError, one_of

_GREY = ("1", "L", "LA")
_SIXTEEN_BIT_OR_MORE = ("I", "F")
# Pillow would hand others, such as EPS, to programs outside.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow raises depends on the format and on where the file is damaged.
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, OverflowError, MemoryError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # else it prints lines of its own about damaged files


def read(directory: Path) -> Source:
    """Returns the images of directory/split/class/file as paths; hidden files are passed over.

    Raises UserError for a split that is not train, validation or test, and for one without images.
    """
    splits = {}
    for folder in _visible(directory):
        if not folder.is_dir():
            continue
        if folder.name not in SPLITS:
            raise one_of(f"split folder in {directory}", folder.name, SPLITS)
        files = [file for group in _visible(folder) if group.is_dir() for file in _visible(group)]
        if not files:
            raise UserError(f"{folder} has no images, allowed: {folder}/CLASS/FILE")
        splits[folder.name] = Examples(files, [file.parent.name for file in files])
    if not splits:
        raise UserError(f"{directory} holds no data, allowed: train.csv (.tsv, .jsonl) or train/CLASS/IMAGE and so on")
    return Source("image", splits)


def files_below(directory: Path) -> list[Path]:
    """Returns the files below a directory, sorted, hidden ones left out; raises UserError if there are none."""
    files = [file for file in sorted(directory.rglob("*")) if file.is_file()]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(directory).parts)]
    if not files:
        raise UserError(f"{directory} has no images, allowed: a folder that holds some")
    return files


def _visible(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))


def decode(files: Sequence[Path | bytes], image_size: int) -> np.ndarray:
    """Returns uint8 [N, H, W, C] of image files or their bytes; C = 1 if all are grey, else 3 (RGB).

    image_size: pixels, edge of the square that images are scaled to; 0 = as stored. Raises UserError for a file that
    cannot be read, for more than 8 bits a channel, and for sizes that differ when image_size is 0.
    """
    grey = True
    shapes: dict[tuple[int, int], str] = {}
    for index, file in enumerate(files):
        with _opened(index, file) as image:
            if image.mode.startswith(_SIXTEEN_BIT_OR_MORE):
                raise UserError(f"{_told(index, file)} has pixels of mode {image.mode}, allowed: 8 bits a channel")
            grey = grey and image.mode in _GREY
            shapes.setdefault(image.size, _told(index, file))
    if not image_size and len(shapes) > 1:
        told = ", ".join(f"{file} is {width} x {height}" for (width, height), file in list(shapes.items())[:2])
        raise UserError(f"images differ in size: {told}; set data.image_size to scale them")
    size = (image_size, image_size) if image_size else next(iter(shapes))
    shape = (len(files), size[1], size[0], 1 if grey else 3)
    memory.check_fits(math.prod(shape), f"{len(files)} images of {size[0]} x {size[1]} pixels")
    pixels = np.empty(shape, np.uint8)
    for index, file in enumerate(files):
        with _opened(index, file) as image:
            converted = image.convert("L" if grey else "RGB")
            if converted.size != size:
                converted = converted.resize(size, Image.Resampling.BILINEAR)
            pixels[index] = np.asarray(converted).reshape(pixels.shape[1:])
    return pixels


def resize(images: np.ndarray, image_size: int) -> np.ndarray:
    """Returns uint8 or float32 `images` [N, H, W, C] scaled to `image_size` pixels an edge."""
    size = (image_size, image_size)
    needed = images[:, :1, :1].nbytes * image_size**2
    memory.check_fits(needed, f"{len(images)} images of {image_size} x {image_size} pixels")
    scaled = np.empty((len(images), *size, images.shape[3]), images.dtype)
    for index, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            scaled[index, ..., channel] = np.asarray(plane.resize(size, Image.Resampling.BILINEAR))
    return scaled


@contextmanager
def _opened(index: int, file: Path | bytes) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS)
        with image:
            yield image
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{_told(index, file)} is not an image that can be read: {error}") from error


def _told(index: int, file: Path | bytes) -> str:
    return f"image {index}" if isinstance(file, bytes) else str(file)
