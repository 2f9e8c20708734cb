"""How transformers prepares images for a model: preprocessor_config.json beside its weights."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import UserError

FILE = "preprocessor_config.json"
# Pillow's numbers, which transformers writes.
RESAMPLINGS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_RESCALE = 1 / 255
_HALF = 0.5  # mean and deviation that bring pixels to −1..1, which is what a model does without this file
_EDGES = ("shortest_edge", "height", "width")
# What is read, and what changes no pixel: kinds of classes, and the order of axes in which arrays come.
_READ = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_resize", "size", "resample"),
    *("do_center_crop", "crop_size", "crop_pct", "do_convert_rgb"),
)
_HARMLESS = re.compile(
    r"(image_processor|feature_extractor|processor)_(type|class)|_?valid_processor_keys|(input_)?data_format|auto_map|"
    r"default_to_square|device|disable_grouping|return_tensors|_.*"
)
_WHOLE = 384  # pixels of an edge, from which on ConvNeXt's processor cuts nothing


class Preparation(NamedTuple):
    """How images are scaled, and what of pixels from 0 to 1 is subtracted and what divides the rest, per channel.

    image_size: pixels, edge; 0 = as stored. crop: share of the edge of scaled images that is cut from the middle, 1 =
    nothing is cut. keeps_aspect: whether the shorter edge is scaled to it, or both.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    image_size: int = 0
    resampling: str = "bilinear"
    crop: float = 1.0
    keeps_aspect: bool = False

    def pixels(self, channels: int) -> dict[str, list[float]]:
        """Returns what an architecture says of it: nothing where a model of `channels` does that anyhow."""
        if {*self.mean, *self.deviation} <= {_HALF}:
            return {}
        found = {"mean": list(self.mean), "deviation": list(self.deviation)}
        return {name: values * channels if len(values) == 1 else values for name, values in found.items()}


def read(directory: Path) -> Preparation:
    """Returns how images are prepared for the weights in a directory: not at all without the file.

    Raises UserError for a file that is damaged or asks for something that is not supported, by the setting's name.
    """
    file = directory / FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return Preparation()
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no JSON object, allowed: the file as transformers wrote it")
    try:
        _check_known(settings)
        mean, deviation = _pixels(settings)
        return Preparation(mean, deviation, **_scaling(settings))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _check_known(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _READ and not _HARMLESS.fullmatch(name) and value not in (None, False, 0, [], {}):
            raise UserError(
                f"{name} is {str(value)[:40]!r}, which is not known here and may change pixels, allowed: false or "
                "null; remove it if it changes nothing"
            )


def _pixels(settings: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    factor = settings.get("rescale_factor", _RESCALE)
    if settings.get("do_rescale", True) is not True or type(factor) is not float or abs(factor - _RESCALE) > 1e-6:
        raise UserError(f"rescale_factor is {factor!r}, allowed: 1/255, with do_rescale")
    if not settings.get("do_normalize", True):
        return (0.0,), (1.0,)
    mean, deviation = (_numbers(settings, f"image_{name}") for name in ("mean", "std"))
    if min(deviation) <= 0:
        raise UserError(f"image_std is {list(deviation)}, allowed: numbers above 0")
    return mean, deviation


def _numbers(settings: dict[str, Any], name: str) -> tuple[float, ...]:
    found = settings.get(name, [_HALF])
    found = found if isinstance(found, list) else [found]
    if not found or not all(type(each) in (int, float) and abs(each) < 1e3 for each in found):
        raise UserError(f"{name} is {str(found)[:40]}, allowed: a number for each channel")
    return tuple(map(float, found))


def _scaling(settings: dict[str, Any]) -> dict[str, Any]:
    if not settings.get("do_resize", True) or settings.get("size") is None:
        return {}
    size, cuts = _edge(settings["size"], "size"), settings.get("do_center_crop", False)
    resampling = settings.get("resample", 2)
    if resampling not in RESAMPLINGS:
        raise UserError(f"resample is {resampling!r}, allowed: {', '.join(map(str, RESAMPLINGS))}")
    whole = settings["size"]
    shorter = isinstance(whole, dict) and "shortest_edge" in whole
    found = {"image_size": size, "resampling": RESAMPLINGS[resampling], "keeps_aspect": shorter}
    if (share := settings.get("crop_pct")) is not None:  # ConvNeXt's: the size is that of the part which is cut out
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise UserError(f"crop_pct is {share!r}, allowed: above 0, at most 1")
        return {**found, "keeps_aspect": False} if size >= _WHOLE else {**found, "crop": size / int(size / share)}
    if cuts:
        cut = _edge(settings.get("crop_size", size), "crop_size")
        if cut > size:
            raise UserError(f"crop_size is {cut}, allowed: at most size, {size}")
        return {**found, "image_size": cut, "crop": cut / size}
    if shorter:
        raise UserError("size is of the shortest edge without do_center_crop, allowed: height and width, or both")
    return found


def _edge(size: Any, name: str) -> int:
    """Returns the one edge that a size has."""
    edges = [value for key, value in size.items() if key in _EDGES] if isinstance(size, dict) else [size]
    if not edges or any(type(edge) is not int or edge < 1 for edge in edges) or len({*edges}) > 1:
        raise UserError(f"{name} is {str(size)[:60]}, allowed: an edge of pixels, of a square or the shortest")
    return edges[0]


def document(
    shape: Sequence[int], scaling: Preparation, mean: Sequence[float] = (), deviation: Sequence[float] = ()
) -> dict[str, Any]:
    """Returns what transformers reads in the file for a model of images [H, W, C] that are scaled so."""
    rows, columns, channels = shape
    cuts = scaling.keeps_aspect or scaling.crop < 1
    found = {
        "image_processor_type": "CLIPImageProcessor" if cuts else "ViTImageProcessor",
        "do_resize": scaling.image_size > 0,
        "size": {"height": rows, "width": columns},
        "resample": next(number for number, name in RESAMPLINGS.items() if name == scaling.resampling),
        "do_rescale": True,
        "rescale_factor": _RESCALE,
        "do_normalize": True,
        "image_mean": list(mean or [_HALF] * channels),
        "image_std": list(deviation or [_HALF] * channels),
    }
    if cuts and scaling.image_size:
        edge = round(scaling.image_size / scaling.crop)
        found["size"] = {"shortest_edge": edge} if scaling.keeps_aspect else {"height": edge, "width": edge}
        found |= {"do_center_crop": True, "crop_size": {"height": rows, "width": columns}}
    return found
