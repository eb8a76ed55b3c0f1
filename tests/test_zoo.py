from __future__ import annotations

import keras
import numpy as np
import pytest

from tfmcu_prune import zoo

VGG16_PAIRS = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
VGG16_PAIRS += [(512, 512)] * 5


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
        # 3x3 kernels, 4 a channel for batch normalization, the classifier.
        (lambda: zoo.vgg16((32, 32, 3), 10), sum(9 * a * b + 4 * b for a, b in VGG16_PAIRS) + 513 * 10),
        (
            lambda: zoo.resnet20((32, 32, 3), 10),
            9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
            + (16 * 32 + 32 * 64)
            + 4 * (7 * 16 + 7 * 32 + 7 * 64)
            + 65 * 10,
        ),
        (
            lambda: zoo.resnet1d((128, 6), 5),
            (8 * 6 + 5 * 64 + 3 * 64 + 6) * 64
            + (8 * 64 + 5 * 128 + 3 * 128 + 64) * 128
            + (8 + 5 + 3) * 128 * 128
            + 4 * (4 * 64 + 8 * 128)
            + 129 * 5,
        ),
        (lambda: zoo.tcn((64, 6), 5), 3 * 6 * 32 + 7 * 3 * 32 * 32 + 4 * 8 * 32 + 7 * 32 + 33 * 5),
        (
            lambda: zoo.unet((32, 32, 1), 2, width=4, depth=1),
            9 * (1 * 4 + 4 * 4 + 4 * 8 + 8 * 8 + 8 * 4 + 4 * 4) + 4 * 8 * 4 + 4 * (4 * 5 + 8 * 2) + 5 * 2,
        ),
    ],
    ids=lambda value: value.__code__.co_names[1] if callable(value) else "",
)
def test_parameters_equal_the_published_ones(model, expected):
    assert model().count_params() == expected


@pytest.mark.parametrize("alpha", [0.35, 1.4])
def test_mobilenet_v2_has_the_weights_of_keras_applications(alpha):
    """Strides have no weights, so the form for small images has the same shapes in the same order."""
    other = keras.applications.MobileNetV2((32, 32, 3), alpha=alpha, weights=None, classes=10)
    shapes = [weight.shape for weight in other.weights]
    assert [weight.shape for weight in zoo.mobilenet_v2((32, 32, 3), 10, alpha=alpha).weights] == shapes


def test_mcunet_has_kernels_of_all_sizes():
    kernels = {
        layer.kernel_size[0]
        for layer in zoo.mcunet((48, 48, 3), 2).layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
    }
    assert kernels == {3, 5, 7}


def test_tcn_sees_no_future_and_as_far_as_it_says():
    """With kernels above zero every step within reach, 1 + 2 (kernel - 1) (2 ** blocks - 1), raises the last one."""
    model = zoo.tcn((64, 1), 2, width=4, blocks=3, kernel=3)
    model.set_weights([np.abs(weight) for weight in model.get_weights()])
    seen = keras.Model(model.input, model.get_layer("last_step").output)
    base = np.ones((1, 64, 1), "float32")
    raised = np.concatenate([base, *(base + (np.arange(64) == step)[None, :, None] for step in range(64))])
    first, *others = seen.predict(raised.astype("float32"), verbose=0).sum(axis=(1, 2))
    reach = 1 + 2 * (3 - 1) * (2**3 - 1)
    assert (np.array(others) > 1.00001 * first).tolist() == [step >= 64 - reach for step in range(64)]


def test_unet_returns_a_map_of_probabilities():
    maps = zoo.unet((16, 24, 2), 3, width=4, depth=3).predict(np.zeros((1, 16, 24, 2), "float32"), verbose=0)
    assert maps.shape == (1, 16, 24, 3)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-5)


def test_unet_needs_sizes_that_can_be_halved():
    with pytest.raises(ValueError, match=r"expected multiples of 8.*\(16, 20, 1\)"):
        zoo.unet((16, 20, 1), 2)


@pytest.mark.parametrize("name", sorted(zoo.SIGNAL_NETWORKS))
def test_a_network_classifies_signals(name):
    probabilities = zoo.SIGNAL_NETWORKS[name]((48, 3), 4).predict(np.zeros((2, 48, 3), "float32"), verbose=0)
    assert probabilities.shape == (2, 4)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


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
