"""preprocessor_config.json as processors of transformers write it, and what is taken from it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from finetune import models
from finetune.config import Config, DataConfig, ModelConfig
from finetune.data import images
from finetune.errors import UserError
from finetune.models import pixels, settled
from finetune.models.weights import preprocessor
from finetune.models.weights.preprocessor import Preparation
from tests.helpers import families

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
USUAL = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
HARMLESS = {"image_processor_type": "X", "do_pad": False, "data_format": "channels_first", "crop_pct": None}
SQUARE = {"size": {"height": 224, "width": 224}, "resample": 2}
SHORT = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
FILES = {
    "ViT": (SQUARE, (224, "bilinear", 1.0, False)),
    "as older versions wrote it": ({"size": 384, "resample": 3}, (384, "bicubic", 1.0, False)),
    "DINOv2": (SHORT | {"resample": 3}, (224, "bicubic", 0.875, True)),
    "CLIP": (SHORT | {"size": 224, "crop_size": 224}, (224, "bilinear", 1.0, False)),
    "DeiT": (SHORT | {"size": {"height": 256, "width": 256}}, (224, "bilinear", 0.875, False)),
    "ConvNeXt": ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, (224, "bicubic", 0.875, True)),
    "large ConvNeXt": ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, "bilinear", 1.0, False)),
    "none": ({"do_resize": False, **SQUARE}, (0, "bilinear", 1.0, False)),
}


def write(directory, settings):
    directory.mkdir(exist_ok=True)
    (directory / preprocessor.FILE).write_text(json.dumps(settings))
    return directory


@pytest.mark.parametrize("settings, expected", FILES.values(), ids=FILES)
def test_how_images_are_scaled(tmp_path, settings, expected):
    found = preprocessor.read(write(tmp_path, USUAL | HARMLESS | settings))
    assert found == Preparation(tuple(MEAN), tuple(STD), *expected)
    shape = (expected[0], expected[0], 3)
    again = preprocessor.read(write(tmp_path, preprocessor.document(shape, found, MEAN, STD)))
    assert again == found


REFUSED = [
    ({"do_flip_channel_order": True}, "do_flip_channel_order is 'True', which is not known here and may change pixels"),
    ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784.*, allowed: 1/255, with do_rescale"),
    ({"do_rescale": False}, "rescale_factor is .*, allowed: 1/255, with do_rescale"),
    ({"image_mean": ["a"]}, r"image_mean is \['a'\], allowed: a number for each channel"),
    ({"image_std": [0.5, 0, 0.5]}, r"image_std is \[0.5, 0.0, 0.5\], allowed: numbers above 0"),
    ({**SQUARE, "resample": 9}, "resample is 9, allowed: 0, 1, 2, 3, 4, 5"),
    ({"size": {"height": 224, "width": 200}}, "size is .*'width': 200}, allowed: an edge of pixels"),
    ({"size": {"shortest_edge": 224}}, "size is of the shortest edge without do_center_crop"),
    ({**SHORT, "crop_size": 300}, "crop_size is 300, allowed: at most size, 256"),
    ({**SQUARE, "crop_pct": 2}, "crop_pct is 2, allowed: above 0, at most 1"),
]


@pytest.mark.parametrize("settings, message", REFUSED)
def test_what_is_refused_by_name(tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        preprocessor.read(write(tmp_path, USUAL | settings))
    assert "\n" not in str(caught.value)


def test_pixels_are_normalised_as_declared(tmp_path):
    golden = families.golden("deit")
    directory = families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))
    plain = models.architecture(ModelConfig(pretrained=str(directory)))
    write(directory, USUAL | SQUARE | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert models.architecture(ModelConfig(pretrained=str(directory))) == plain
    write(directory, USUAL | SQUARE)
    assert models.architecture(ModelConfig(pretrained=str(directory))) == {**plain, "mean": MEAN, "deviation": STD}
    write(directory, USUAL | SQUARE | {"do_normalize": False})
    found = models.architecture(ModelConfig(pretrained=str(directory)))
    assert found == {**plain, "mean": [0.0] * 3, "deviation": [1.0] * 3}
    write(directory, USUAL | {"image_mean": MEAN[:2]})
    with pytest.raises(UserError, match=r"model.mean of .* is \[0.48, 0.46\], allowed: a number for each of 3"):
        models.architecture(ModelConfig(pretrained=str(directory)))


def test_grey_and_colour_pixels():
    image = families.pixels(2, 3, 3, 3)
    scaled = jax.jit(lambda image: pixels.scaled(image, jnp.float32, 3, tuple(MEAN), tuple(STD)))
    np.testing.assert_allclose(scaled(image), (image / 255 - MEAN) / STD, rtol=1e-5, atol=1e-5)
    grey = np.repeat(image[..., :1], 3, axis=3)
    np.testing.assert_array_equal(scaled(image[..., :1]), scaled(grey))
    floats = image.astype(np.float32)
    np.testing.assert_array_equal(scaled(floats), floats)


def test_what_weights_declare_is_taken_and_told(tmp_path):
    golden = families.golden("dinov2")
    directory = families.write(tmp_path / "weights", golden["config"], families.draw(golden["shapes"]))
    config = Config(model=ModelConfig(pretrained=str(directory)), data=DataConfig(image_crop=1.0))
    _, [declared, without] = settled.settle(config)
    assert declared == f"model.pooling=first, data.image_size=12: as {directory} declares"
    assert without == f"{directory} has no preprocessor_config.json: pixels are scaled to -1 to 1"
    write(directory, USUAL | SHORT | {"resample": 3})
    found, [declared, otherwise] = settled.settle(config)
    assert (found.model.pooling, found.data.image_size, found.data.image_resampling) == ("first", 224, "bicubic")
    assert (found.data.image_crop, found.data.image_aspect) == (1.0, "kept")
    told = "data.image_size=224, data.image_resampling=bicubic, data.image_aspect=kept"
    assert declared == f"model.pooling=first, {told}: as {directory} declares"
    assert otherwise == f"data.image_crop is 1.0, where {directory} declares 0.875"


PROCESSORS = [("ViT", {}), ("DeiT", {}), ("Bit", {"size": {"shortest_edge": 256}}), ("CLIP", {}), ("Siglip", {})]
PROCESSORS += [("ConvNext", {"size": {"shortest_edge": 224}}), ("ConvNext", {})]


@pytest.mark.parametrize("name, options", PROCESSORS)
def test_pixels_are_those_of_processors_of_transformers(tmp_path, name, options):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**options)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(families.pixels(40, 30, 3)).resize((300, 401), Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.png")
    [expected] = processor(image, do_normalize=False, do_rescale=False)["pixel_values"]
    config = Config(model=ModelConfig(pretrained=str(directory_of(tmp_path))))
    data = settled.settle(config)[0].data
    [found] = images.decode([tmp_path / "image.png"], data.image_size, images.Scaling.of(data))
    np.testing.assert_array_equal(found, np.asarray(expected).transpose(1, 2, 0))


def directory_of(directory):
    """Returns a directory of weights with the preprocessor_config.json of another."""
    golden = families.golden("resnet")
    weights = families.write(directory / "weights", golden["config"], families.draw(golden["shapes"]))
    (weights / preprocessor.FILE).write_bytes((directory / preprocessor.FILE).read_bytes())
    return weights
