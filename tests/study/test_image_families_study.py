"""Studies of image folders with an encoder of each family: prepared as it declares, cached as computed, exported."""

import json

import numpy as np
import pytest
from PIL import Image

from finetune import data, predict
from finetune.config import Config, ModelConfig
from finetune.export import directory as export
from finetune.models import settled
from finetune.models.weights import preprocessor
from finetune.study import run as study
from tests.helpers import families, studies

PREPARED = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 3, "do_resize": True}
PREPARED |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "do_center_crop": True}
QUICK = "clip-vision-model"
SLOW = ("vit", "resnet")
OTHERS = [name for name in families.IMAGES if "_" not in name and name not in (QUICK, *SLOW)]


def write(directory, name):
    """Writes weights whose preprocessor cuts images, and a folder of red and blue ones of several sizes."""
    golden = families.golden(name)
    edge = golden["size"][0]
    families.write(directory / "weights", golden["config"], families.draw(golden["shapes"]))
    size = {"size": {"shortest_edge": edge + 4}, "crop_size": {"height": edge, "width": edge}}
    (directory / "weights" / preprocessor.FILE).write_text(json.dumps(PREPARED | size))
    random = np.random.default_rng(0)
    for number in range(24):
        colour = ("red", "blue")[number % 2]
        (directory / "folder" / colour).mkdir(parents=True, exist_ok=True)
        image = random.integers(0, 100, (*random.integers(20, 40, 2), 3)).astype(np.uint8)
        image[..., 2 * (number % 2)] += 150
        Image.fromarray(image).save(directory / "folder" / colour / f"{number}.png")
    return edge


@pytest.mark.parametrize(
    "name",
    [
        QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS),
    ],
)
def test_a_study_of_images_from_a_directory_of_weights(tmp_path, name):
    edge = write(tmp_path, name)
    config = Config(trainable="head")
    config.model = ModelConfig(pretrained=str(tmp_path / "weights"))
    config.data.name = str(tmp_path / "folder")
    config.hparams.epochs, config.hparams.batch_size, config.hparams.learning_rate = 2, 8, 0.03
    losses = {}
    for mode, how in (("cached", "vmap"), ("none", "loop")):
        config.trunk.mode, config.execution.mode = mode, how
        study.run(config, tmp_path / mode)
        [row] = studies.rows_of(tmp_path / mode)
        losses[mode] = row["metrics"]["val_loss"]
    assert losses["cached"] == pytest.approx(losses["none"], rel=1e-4)
    settings = studies.document(tmp_path / "cached", "config.json")["config"]["data"]
    told = {"image_size": edge, "image_resampling": "bicubic", "image_aspect": "kept"}
    assert {each: settings[each] for each in told} == told
    export.export(tmp_path / "cached", tmp_path / "model")
    prepared = studies.document(tmp_path / "model", preprocessor.FILE)
    assert {each: prepared[each] for each in PREPARED} == PREPARED
    assert prepared["size"] == {"shortest_edge": edge + 4}
    model = predict.load(tmp_path / "model")
    _, images = predict.read(tmp_path / "folder", model)
    assert images["image"].shape == (24, edge, edge, 3)
    # The study reported what its model predicts.
    test = data.load(settled.settle(config)[0].data, None).test
    assert {image.tobytes() for image in test["image"]} < {image.tobytes() for image in images["image"]}
    shares = predict.probabilities(model, {"image": test["image"]})
    loss = -np.log(shares[np.arange(len(shares)), test["label"]]).mean()
    assert loss == pytest.approx(row["metrics"]["test_loss"], rel=1e-3)
