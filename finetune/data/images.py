"""Images: a folder split/class/file, and pixels out of files and arrays."""

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from finetune.config import DataConfig
from finetune.data import memory
from finetune.data.source import SPLITS, Examples, Source, split_of, unlabelled
from finetune.errors import UserError, one_of

_GREY = ("1", "L", "LA")
_BACKGROUND = (255, 255, 255, 255)  # white, behind what is transparent, as browsers and paper have it
_ON_ITS_SIDE = (5, 6, 7, 8)  # values of the EXIF orientation that swap width and height
_LITTER = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders of images
_SIXTEEN_BIT_OR_MORE = ("I", "F")
# Pillow would hand others, such as EPS, to programs outside.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow raises depends on the format and on where the file is damaged.
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, OverflowError, MemoryError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # else it prints lines of its own about damaged files


class Scaling(NamedTuple):
    """How images come to a square: `data.image_resampling`, `data.image_crop` and `data.image_aspect`.

    crop: share of the edge of what is scaled that is cut from its middle. keeps_aspect: whether the shorter edge is
    scaled to that, and the longer one with it, or both.
    """

    resampling: Image.Resampling = Image.Resampling.BILINEAR
    crop: float = 1.0
    keeps_aspect: bool = False

    @classmethod
    def of(cls, config: DataConfig) -> "Scaling":
        """Returns what the settings say, where they leave it open the usual."""
        name = "bilinear" if config.image_resampling == "auto" else config.image_resampling
        return cls(Image.Resampling[name.upper()], config.image_crop or 1.0, config.image_aspect == "kept")

    def applied(self, image: Image.Image, size: int) -> Image.Image:
        """Returns the middle of an image, scaled to `size` pixels an edge."""
        edge = round(size / self.crop)
        width, height = (edge, edge)
        if self.keeps_aspect:
            shorter = min(image.size)
            width, height = (int(edge * each / shorter) for each in image.size)
        memory.check_fits(width * height * len(image.getbands()), f"an image scaled to {width} x {height} pixels")
        scaled = image if image.size == (width, height) else image.resize((width, height), self.resampling)
        left, top = (width - size) // 2, (height - size) // 2
        return scaled if (width, height) == (size, size) else scaled.crop((left, top, left + size, top + size))


_STRETCHED = Scaling()


def read(directory: Path) -> Source:
    """Returns the images of directory/split/class/file as paths, or of directory/class/file, all as train.

    Hidden files are passed over, and a test split whose files are in no class is left out. Raises UserError for a split
    that is not train, validation or test beside one that is, and for one without images.
    """
    folders = {folder: split_of(folder.name) for folder in _visible(directory) if folder.is_dir()}
    if not set(folders.values()) & set(SPLITS) and (examples := _of_classes(directory)).inputs:
        return Source("image", {"train": examples})
    splits: dict[str, Examples] = {}
    notes = []
    for folder, split in folders.items():
        if split not in SPLITS:
            raise one_of(f"split folder in {directory}", folder.name, SPLITS)
        if split in splits:
            raise UserError(f"split {split} is in two folders, one of them {folder}, allowed: one folder a split")
        examples = _of_classes(folder)
        if split == "test" and not examples.inputs and any(file.is_file() for file in _visible(folder)):
            notes.append(unlabelled(folder))
            continue
        if not examples.inputs:
            raise UserError(f"{folder} has no images, allowed: {folder}/CLASS/FILE")
        splits[split] = examples
    if not splits:
        raise UserError(
            f"{directory} holds no data, allowed: train.csv (.tsv, .jsonl), CLASS/IMAGE, or train/CLASS/IMAGE and so on"
        )
    return Source("image", splits, notes=tuple(notes))


def _of_classes(directory: Path) -> Examples:
    """Returns the files of directory/class/file."""
    groups = [group for group in _visible(directory) if group.is_dir()]
    files = [file for group in groups for file in _visible(group) if file.is_file()]
    return Examples(files, [file.parent.name for file in files])


def files_below(directory: Path) -> list[Path]:
    """Returns the files below a directory, sorted, hidden ones left out; raises UserError if there are none."""
    files = [file for file in sorted(directory.rglob("*")) if file.is_file() and not _is_litter(file)]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(directory).parts)]
    if not files:
        raise UserError(f"{directory} has no images, allowed: a folder that holds some")
    return files


def _visible(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith(".") and not _is_litter(entry))


def _is_litter(file: Path) -> bool:
    return file.name.lower() in _LITTER


def decode(files: Sequence[Path | bytes], image_size: int, scaling: Scaling = _STRETCHED) -> np.ndarray:
    """Returns uint8 [N, H, W, C] of image files or their bytes; C = 1 if all are grey, else 3 (RGB).

    Images stand as their EXIF orientation says, what is transparent shows white, of several frames the first counts.

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
            shapes.setdefault((0, 0) if image_size else _upright_size(image), _told(index, file))
    if not image_size and len(shapes) > 1:
        told = ", ".join(f"{file} is {width} x {height}" for (width, height), file in list(shapes.items())[:2])
        raise UserError(f"images differ in size: {told}; set data.image_size to scale them")
    size = (image_size, image_size) if image_size else next(iter(shapes))
    shape = (len(files), size[1], size[0], 1 if grey else 3)
    memory.check_fits(math.prod(shape), f"{len(files)} images of {size[0]} x {size[1]} pixels")
    pixels = np.empty(shape, np.uint8)
    for index, file in enumerate(files):
        with _opened(index, file) as image:
            converted = _upright_opaque(image).convert("L" if grey else "RGB")
            if image_size:
                converted = scaling.applied(converted, image_size)
            pixels[index] = np.asarray(converted).reshape(pixels.shape[1:])
    return pixels


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an image that is turned as its EXIF orientation says."""
    # Of a TIFF, Pillow gives the size so already.
    turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    return image.size[::-1] if turned else image.size


def _upright_opaque(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright
    upright = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", upright.size, _BACKGROUND), upright)


def resize(images: np.ndarray, image_size: int, scaling: Scaling = _STRETCHED) -> np.ndarray:
    """Returns uint8 or float32 `images` [N, H, W, C] scaled to `image_size` pixels an edge."""
    needed = images[:, :1, :1].nbytes * image_size**2
    memory.check_fits(needed, f"{len(images)} images of {image_size} x {image_size} pixels")
    scaled = np.empty((len(images), image_size, image_size, images.shape[3]), images.dtype)
    for index, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            scaled[index, ..., channel] = np.asarray(scaling.applied(plane, image_size))
    return scaled


def sized(arrays: np.ndarray, config: DataConfig) -> np.ndarray:
    """Returns images [N, H, W, C] as `data.image_size` says, 0 = as they are; features [N, D] stay."""
    if arrays.ndim < 4 or not config.image_size:
        return arrays
    return resize(arrays, config.image_size, Scaling.of(config))


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
