from __future__ import annotations

import numpy as np
import pytest

from tfmcu_prune import zoo


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # A convolution, its BatchNormalization (4 a channel), then the blocks, then the classifier.
        (lambda: zoo.ds_cnn((49, 10, 1), 12), (10 * 4 + 1 + 4) * 64 + 4 * (9 + 1 + 4 + 64 + 1 + 4) * 64 + 65 * 12),
        (lambda: zoo.resnet8((32, 32, 3), 10), 78_666),
        (lambda: zoo.mobilenet_v1((96, 96, 3), 2), 221_794),
        (lambda: zoo.fc_autoencoder(), 269_992),
        (
            lambda: zoo.vgg_small((28, 28, 1), 10),
            9 * (1 * 16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64) + 4 * (16 + 16 + 32 + 32 + 64) + 65 * 10,
        ),
    ],
    ids=["ds_cnn", "resnet8", "mobilenet_v1", "fc_autoencoder", "vgg_small"],
)
def test_parameters_equal_the_published_ones(model, expected):
    assert model().count_params() == expected


@pytest.mark.parametrize("name", sorted(zoo.NETWORKS))
def test_a_network_classifies_images_of_the_quick_start(name):
    model = zoo.NETWORKS[name]((28, 28, 1), 10)
    probabilities = model.predict(np.zeros((2, 28, 28, 1), "float32"), verbose=0)
    assert probabilities.shape == (2, 10)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(zoo.NETWORKS))
def test_statistics_follow_within_a_few_epochs(name):
    norms = [x for x in zoo.NETWORKS[name]((28, 28, 1), 10).layers if type(x).__name__ == "BatchNormalization"]
    assert norms
    assert all(norm.momentum <= 0.9 for norm in norms)


def test_vgg_small_needs_five_widths():
    with pytest.raises(ValueError, match=r"expected five widths.*\(8, 8\)"):
        zoo.vgg_small((28, 28, 1), 10, widths=(8, 8))
