import numpy as np

from finetune.data import padding

TEXTS = {"input_ids": np.array([[5, 6, 0], [7, 0, 0]]), "length": np.array([2, 1]), "label": np.array([0, 1])}
IMAGES = {"image": np.ones((2, 4, 4, 1)), "label": np.array([0, 1])}


def test_texts_are_padded_beyond_their_length():
    assert padding.padded(TEXTS) == ["input_ids"]
    assert list(padding.filled(TEXTS)) == [2, 1]
    assert padding.whole(TEXTS) == 3
    cut = padding.cut(TEXTS, 2)
    assert cut["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert cut["length"] is TEXTS["length"]


def test_other_data_are_not_padded():
    assert not padding.padded(IMAGES)
    assert padding.whole(IMAGES) == 1
    assert padding.cut(IMAGES, 1)["image"] is IMAGES["image"]
