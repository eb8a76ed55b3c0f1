from __future__ import annotations

from collections.abc import Callable

import keras
import nets
import numpy as np
import pytest
from applications import calibrate, randomize_scaled
from keras import layers
from networks import inputs_for, outputs_of, randomize

import tfmcu_prune
from tfmcu_prune import UnsupportedLayer, zoo
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.tflm import run
from tfmcu_prune.tflm.schema import read_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*HDF5.*:UserWarning")

ZOO: dict[str, Callable[[], keras.Model]] = {
    "ds_cnn": lambda: zoo.ds_cnn((20, 10, 1), 4, width=8, blocks=2),
    "fc_autoencoder": lambda: zoo.fc_autoencoder(32, width=16, code=8),
    "mcunet": lambda: zoo.mcunet((16, 16, 3), 3, alpha=0.2),
    "mobilenet_v1": lambda: zoo.mobilenet_v1((16, 16, 1), 4, blocks=4),
    "mobilenet_v2": lambda: zoo.mobilenet_v2((8, 8, 3), 3, alpha=0.1),
    "resnet1d": lambda: zoo.resnet1d((24, 3), 3, width=4),
    "resnet20": lambda: zoo.resnet20((12, 12, 3), 3, width=4, blocks=1),
    "resnet8": lambda: zoo.resnet8((12, 12, 3), 3, width=4),
    "tcn": lambda: zoo.tcn((24, 3), 3, width=4, blocks=2),
    "unet": lambda: zoo.unet((16, 16, 1), 2, width=4, depth=1),
    "vgg16": lambda: zoo.vgg16((32, 32, 1), 3, alpha=0.05),
    "vgg_small": lambda: zoo.vgg_small((12, 12, 1), 3, widths=(4, 4, 8, 8, 8)),
}


def _trained(model: keras.Model, x):
    """The quantization-aware model, trained for a few steps that leave its weights as they are."""
    aware = tfmcu_prune.quantize_aware(model, x)
    aware.compile("sgd", "mse", jit_compile=False)
    aware.optimizer.learning_rate.assign(0.0)
    aware.fit(x, np.asarray(model(x)), epochs=2, batch_size=len(x) // 4, verbose=0)
    return aware


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def _moved(aware, x: np.ndarray) -> np.ndarray:
    """What the model computes when its input moves by a fortieth of a step of int8.

    Fifty layers with random weights turn one value that rounds to the other side into a tenth of the outputs' range.
    """
    noise = np.random.default_rng(0).normal(0.0, np.ptp(x) / 255 / 40, x.shape).astype(np.float32)
    return np.asarray(aware(x + noise, training=False))


def test_every_network_of_the_zoo_is_here() -> None:
    assert set(ZOO) >= {*zoo.NETWORKS, *zoo.SIGNAL_NETWORKS}


QUICK = ("ds_cnn", "fc_autoencoder", "resnet8", "tcn")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(ZOO)]
)
def test_the_file_computes_what_the_aware_model_does(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = randomize_scaled(ZOO[name]())
    x = inputs_for(model, 40)
    calibrate(model, x)
    before = [np.array(weight) for weight in model.get_weights()]
    aware = _trained(model, x)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    data = tfmcu_prune.convert(aware)
    graph = read_model(data).main
    assert {tensor.type for tensor in graph.tensors} == {"int8", "int32"}
    assert graph.tensors[graph.inputs[0]].name == model.layers[0].name
    assert graph.tensors[graph.outputs[0]].name.split(":")[0] == model.output_names[0]
    expected = np.asarray(aware(x, training=False))
    allowed = 0.05 * np.ptp(expected) + graph.tensors[graph.outputs[0]].scale
    assert _rms(run(data, x) - expected) < allowed + _rms(_moved(aware, x) - expected)
    assert tfmcu_prune.footprint(data).macs >= tfmcu_prune.footprint(tfmcu_prune.convert(model, x)).macs


def test_a_pruned_network_learns_and_stays_small() -> None:
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(zoo.ds_cnn((16, 8, 1), 2, width=8, blocks=1))
    mask = np.arange(channel_groups(zoo.ds_cnn((16, 8, 1), 2, width=8, blocks=1)).count) % 2 == 0
    tfmcu_prune.set_mask(gated, mask)
    small = tfmcu_prune.strip(gated)
    rng = np.random.default_rng(0)
    y = np.arange(128) % 2
    x = (rng.normal(0, 0.3, (128, 16, 8, 1)) + y[:, None, None, None]).astype(np.float32)
    aware = tfmcu_prune.quantize_aware(small)  # untrained: its ranges are to come
    aware.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    aware.optimizer.learning_rate.assign(0.02)
    aware.fit(x, y, epochs=12, batch_size=32, verbose=0)
    data = tfmcu_prune.convert(aware, budget=tfmcu_prune.Budget(flash=6000), labels=["no", "yes"])
    assert np.mean(run(data, x).argmax(-1) == y) > 0.95
    macs = tfmcu_prune.footprint(tfmcu_prune.convert(small, x)).macs
    assert tfmcu_prune.footprint(data).macs == macs


@pytest.mark.parametrize("net", [nets.plain, nets.depthwise, nets.concat, nets.flatten], ids=lambda net: net.__name__)
def test_other_patterns(net) -> None:
    model = randomize(net())
    x = inputs_for(model, 40)
    aware = _trained(model, x)
    expected, ran = np.asarray(aware(x, training=False)), run(tfmcu_prune.convert(aware), x)
    assert _rms(ran - expected) < 0.05 * np.ptp(expected)


def test_ranges_start_at_those_of_the_samples() -> None:
    model = randomize(zoo.resnet8((12, 12, 3), 3, width=4))
    x = inputs_for(model, 40)
    aware = tfmcu_prune.quantize_aware(model, x)
    ranges = {weight.name.split(":")[0]: float(np.ravel(weight)[0]) for weight in aware.weights}
    real = outputs_of(keras.Model(model.inputs[0], model.get_layer("stack3_relu").output), x)
    assert ranges["quant_stack3_relu/output_max"] == pytest.approx(real.max(), rel=1e-4)
    assert ranges["quant_stack3_relu/output_min"] == 0
    logits = "quant_classifier_linear/post_activation"
    assert -6 != ranges[f"{logits}_min"] <= 0 <= ranges[f"{logits}_max"] != 6


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            layers.PReLU(name="p"),
            r"'p' \(PReLU\) is unknown to tensorflow-model-opt.*use LeakyReLU or ReLU, or quantize",
        ),
        (layers.Rescaling(0.5, name="r"), r"'r' .Rescaling.*do this in the preparation of the data"),
        (layers.Activation("gelu", name="g"), r"'g' .Activation. has the activation 'gelu'"),
        (layers.LayerNormalization(name="l"), r"'l' .LayerNormalization. is unknown"),
    ],
    ids=["PReLU", "Rescaling", "gelu", "LayerNormalization"],
)
def test_layers_that_are_lacking_are_named(layer, message: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layer, layers.Conv2D(4, 3)])
    with pytest.raises(UnsupportedLayer, match=message):
        tfmcu_prune.quantize_aware(model)


def test_models_that_do_not_go() -> None:
    with pytest.raises(UnsupportedLayer, match=r"is called more than once.*a layer of its own"):
        tfmcu_prune.quantize_aware(nets.shared())
    with pytest.raises(ValueError, match=r"one input and one output\. Received: 2 and 2"):
        tfmcu_prune.quantize_aware(nets.two_in_two_out())


def test_convert_takes_ranges_learned_only_for_int8() -> None:
    aware = tfmcu_prune.quantize_aware(nets.plain())
    with pytest.raises(ValueError, match="has learned the ranges of int8"):
        tfmcu_prune.convert(aware, quantize="int16x8")
    tf_keras = pytest.importorskip("tf_keras")
    plain = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="has learned no ranges; build it with `import keras`"):
        tfmcu_prune.convert(plain)
