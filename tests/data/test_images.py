import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.config import DataConfig
from finetune.data import images
from finetune.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 4, 3), np.uint8)


def save(directory: Path, name: str, pixels: np.ndarray) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(directory / name)
    return directory / name


def test_folder(tmp_path):
    files = [save(tmp_path / "train" / name, f"{i}.png", GREY) for name in ("ant", "zebra") for i in range(2)]
    files.append(save(tmp_path / "test" / "ant", "0.bmp", GREY))
    (tmp_path / "train" / "ant" / ".hidden").write_text("")
    (tmp_path / "README.txt").write_text("")
    source = images.read(tmp_path)
    assert (source.kind, set(source.splits)) == ("image", {"train", "test"})
    assert source.splits["train"] == (files[:4], ["ant", "ant", "zebra", "zebra"])
    assert source.splits["test"] == (files[4:], ["ant"])


def test_grey_pixels_as_stored(tmp_path):
    stored = io.BytesIO()
    Image.fromarray(GREY).save(stored, "PNG")
    pixels = images.decode([save(tmp_path, "a.png", GREY), stored.getvalue()], 0)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (2, 5, 4, 1))
    np.testing.assert_array_equal(pixels[..., 0], [GREY, GREY])


def test_one_colour_image_makes_all_rgb(tmp_path):
    alpha = np.dstack([COLOUR, np.full((5, 4), 9, np.uint8)])
    files = [save(tmp_path, f"{i}.png", pixels) for i, pixels in enumerate([COLOUR, alpha, GREY])]
    pixels = images.decode(files, 0)
    faded = 255 + (COLOUR - 255.0) * 9 / 255
    np.testing.assert_array_equal(pixels[[0, 2]], [COLOUR, np.dstack([GREY] * 3)])
    np.testing.assert_allclose(pixels[1], faded, atol=1)


def test_sizes(tmp_path):
    files = [save(tmp_path, "a.png", np.full((5, 4), 9, np.uint8)), save(tmp_path, "b.png", GREY[:4])]
    with pytest.raises(UserError, match=r"a\.png is 4 x 5, .*b\.png is 4 x 4; set data.image_size"):
        images.decode(files, 0)
    pixels = images.decode(files, 4)
    np.testing.assert_array_equal(pixels[0], np.full((4, 4, 1), 9))
    np.testing.assert_array_equal(pixels[1, ..., 0], GREY[:4])


def test_resize_of_arrays():
    # Halving averages under a triangle of weights 1, 3, 3, 1; at an edge 3, 3, 1, whatever is outside left out.
    ramp = np.broadcast_to(np.array([0, 70, 140, 210], np.float32), (1, 4, 4))
    expected = [(0 * 3 + 70 * 3 + 140) / 7, (70 + 140 * 3 + 210 * 3) / 7]
    both = np.stack([ramp, ramp * 0 + 3], axis=-1)
    np.testing.assert_allclose(images.resize(both, 2)[0, 0], [[expected[0], 3], [expected[1], 3]], rtol=1e-6)
    small = images.resize(both.astype(np.uint8), 2)
    assert (small.dtype, small.shape) == (np.uint8, (1, 2, 2, 2))
    np.testing.assert_array_equal(small[0, 0, :, 0], [50, 160])


def test_unreadable_images(tmp_path):
    whole = save(tmp_path, "a.png", GREY).read_bytes()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "cut.png", "empty.png", "absent.png"):
        with pytest.raises(UserError, match=rf"{name} is not an image") as caught:
            images.decode([tmp_path / "a.png", tmp_path / name], 0)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="image 1 is not an image"):
        images.decode([whole, b"junk"], 0)
    with pytest.raises(UserError, match=r"deep\.png has pixels of mode I;16, allowed: 8 bits"):
        images.decode([save(tmp_path, "deep.png", GREY.astype(np.uint16) * 100)], 0)


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="holds no data"):
        images.read(tmp_path)
    (tmp_path / "train" / "ant").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train has no images, allowed: .*CLASS/FILE"):
        images.read(tmp_path)
    save(tmp_path / "train" / "ant", "a.png", GREY)
    (tmp_path / "validate").mkdir()
    with pytest.raises(UserError, match="'validate', allowed: test, train, validation; did you mean 'validation'"):
        images.read(tmp_path)
    save(tmp_path / "validate" / "ant", "a.png", GREY)
    (tmp_path / "validate").rename(tmp_path / "Train")
    with pytest.raises(UserError, match="split train is in two folders, one of them .*train"):
        images.read(tmp_path)


def test_classes_without_splits_are_all_train(tmp_path):
    files = [save(tmp_path / name, "a.png", GREY) for name in ("cats", "dogs")]
    (tmp_path / "cats" / "Thumbs.db").write_text("")
    (tmp_path / "labels.txt").write_text("")
    assert images.read(tmp_path).splits == {"train": (files, ["cats", "dogs"])}


def test_spellings_of_splits_and_a_test_folder_without_classes(tmp_path):
    for split in ("Train", "val"):
        save(tmp_path / split / "ant", "a.png", GREY)
    save(tmp_path / "test", "1.png", GREY)
    source = images.read(tmp_path)
    assert list(source.splits) == ["train", "validation"]
    assert source.notes[0].startswith(f"{tmp_path / 'test'} has no labels: it is not scored")


# What an image that is stored as COLOUR looks like, by its EXIF orientation (CIPA DC-008, table 6): where its 0th row
# and 0th column lie.
UPRIGHT = {
    2: COLOUR[:, ::-1],  # top, right
    3: COLOUR[::-1, ::-1],  # bottom, right
    4: COLOUR[::-1],  # bottom, left
    5: COLOUR.transpose(1, 0, 2),  # left, top
    6: COLOUR.transpose(1, 0, 2)[:, ::-1],  # right, top
    7: COLOUR.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: COLOUR.transpose(1, 0, 2)[::-1],  # left, bottom
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_stand_as_exif_says(form, orientation):
    stored, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(stored, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(images.decode([stored.getvalue()], 0), [UPRIGHT[orientation]])
    square = images.decode([stored.getvalue()], 5)
    assert square.shape == (1, 5, 5, 3)


def transparent(form, mode):
    """Returns a file with a black stroke in an image that is transparent elsewhere, where it is black as well."""
    alpha = np.zeros((6, 6), np.uint8)
    alpha[2] = 255
    image = Image.fromarray(np.dstack([np.zeros((6, 6, 3), np.uint8), alpha]))
    stored = io.BytesIO()
    if mode == "P":
        palette = Image.fromarray((alpha // 255).astype(np.uint8))
        palette.putpalette([0] * 6)
        palette.save(stored, form, transparency=0)
    else:
        image.convert(mode).save(stored, form, **({"lossless": True} if form == "WEBP" else {}))
    return stored.getvalue()


@pytest.mark.parametrize("form, mode", [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("GIF", "P"), ("WEBP", "RGBA")])
def test_what_is_transparent_is_white(form, mode):
    pixels = images.decode([transparent(form, mode)], 0)[0]
    assert pixels.shape[2] == (1 if mode == "LA" else 3)
    np.testing.assert_array_equal(np.flatnonzero((pixels == 0).all((1, 2))), [2])
    assert (np.delete(pixels, 2, axis=0) == 255).all()


def test_first_of_several_frames_and_ink():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (40, 200)]
    stored = io.BytesIO()
    frames[0].save(stored, "GIF", save_all=True, append_images=frames[1:])
    assert (images.decode([stored.getvalue()], 0) == 40).all()
    stored = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(stored, "TIFF")  # magenta and yellow ink make red
    np.testing.assert_array_equal(images.decode([stored.getvalue()], 0)[0, 0, 0], [255, 0, 0])


def test_a_truncated_photograph_is_named(tmp_path):
    whole = save(tmp_path, "a.jpg", np.tile(COLOUR, (30, 30, 1))).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg is not an image that can be read: .*truncated"):
        images.decode([tmp_path / "a.jpg", tmp_path / "cut.jpg"], 0)


def test_the_middle_of_an_image_that_keeps_its_aspect():
    # 8 x 6 pixels; the shorter edge becomes 6 of which a square of 3 is cut: rows and columns 1 to 4, and 2 to 5.
    stored = np.arange(48, dtype=np.uint8).reshape(1, 6, 8, 1)
    kept = images.Scaling(Image.Resampling.NEAREST, 0.5, keeps_aspect=True)
    np.testing.assert_array_equal(images.resize(stored, 3, kept)[0, ..., 0], stored[0, 1:4, 2:5, 0])
    # Of what is stretched to a square of 6, every column is one of the 8 that its middle lies in.
    stretched = images.Scaling(Image.Resampling.NEAREST, 0.5)
    columns = np.floor((np.arange(6) + 0.5) * 8 / 6).astype(int)[1:4]
    np.testing.assert_array_equal(images.resize(stored, 3, stretched)[0, ..., 0], stored[0, 1:4, :, 0][:, columns])
    assert images.Scaling.of(DataConfig()) == images.Scaling()
    told = DataConfig(image_resampling="bicubic", image_crop=0.875, image_aspect="kept")
    assert images.Scaling.of(told) == (Image.Resampling.BICUBIC, 0.875, True)


def test_files_are_scaled_as_arrays_are(tmp_path):
    pixels = RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    scaling = images.Scaling(Image.Resampling.BICUBIC, 0.8, keeps_aspect=True)
    [found] = images.decode([save(tmp_path, "a.png", pixels)], 4, scaling)
    np.testing.assert_allclose(found.astype(int), images.resize(pixels[None], 4, scaling)[0].astype(int), atol=1)
