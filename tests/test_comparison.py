from __future__ import annotations

import keras
import nets
import numpy as np
import pytest
from networks import inputs_for, randomize

import tfmcu_prune
from tfmcu_prune import zoo
from tfmcu_prune.tflm import litert, run


def _compared(model: keras.Model, **options):
    inputs = inputs_for(model, 30)
    data = tfmcu_prune.convert(model, inputs, **options)
    return data, inputs, tfmcu_prune.compare(model, data, inputs)


@pytest.mark.parametrize(
    "net", [nets.plain, nets.depthwise, nets.two_in_two_out, nets.concat], ids=lambda net: net.__name__
)
def test_outputs_against_the_definition(net) -> None:
    model = randomize(net())
    data, inputs, found = _compared(model)
    real = [np.asarray(output) for output in keras.tree.flatten(model(inputs))]
    for name, ran in (("tflm", run(data, inputs)), ("litert", litert.run(data, inputs))):
        errors = [error for error in found.outputs if error.runtime == name]
        for error, expected, got in zip(errors, real, keras.tree.flatten(ran), strict=True):
            assert error.agreement == pytest.approx(np.mean(expected.argmax(-1) == got.argmax(-1)))
            assert error.largest == pytest.approx(np.abs(expected - got).max(), rel=1e-4)
            assert error.rms == pytest.approx(np.sqrt(np.mean((expected - got) ** 2)), rel=1e-4)
            assert error.sqnr == pytest.approx(
                10 * np.log10((expected**2).sum() / ((expected - got) ** 2).sum()), rel=1e-3
            )


@pytest.mark.parametrize(
    "network",
    [
        lambda: zoo.ds_cnn((20, 10, 1), 4, width=8, blocks=2),
        lambda: zoo.mobilenet_v2((16, 16, 3), 3, alpha=0.1),
        lambda: zoo.resnet8((16, 16, 3), 3, width=4),
        lambda: zoo.tcn((24, 3), 3, width=4, blocks=2),
        lambda: zoo.unet((16, 16, 1), 2, width=4, depth=1),
        nets.plain,
        nets.concat,
    ],
    ids=["ds_cnn", "mobilenet_v2", "resnet8", "tcn", "unet", "plain", "concat"],
)
def test_layers_are_matched(network) -> None:
    """Of a float file every matched pair is the same tensor: no noise but that of the sums."""
    model = randomize(network())
    _, _, found = _compared(model, quantize="float")
    assert min(layer.sqnr for layer in found.layers) > 80
    kernels = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    assert len(found.layers) >= sum(isinstance(layer, kernels) for layer in model.layers)
    assert len({layer.name for layer in found.layers}) == len(found.layers)


def test_the_layer_that_loses_accuracy_is_told() -> None:
    """One channel a thousand times as wide as the others: int8 has no steps left for them."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="good")(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="bad")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="undone")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="last")(keras.layers.Flatten()(x)))
    keras.utils.set_random_seed(0)
    model.set_weights([np.abs(weight) for weight in model.get_weights()])
    bad, undone = model.get_layer("bad"), model.get_layer("undone")
    factor = np.array([1000] + [1] * 7, np.float32)
    bad.kernel.assign(np.asarray(bad.kernel) * factor)
    undone.kernel.assign(np.asarray(undone.kernel) / factor[:, None])
    _, _, found = _compared(model)
    assert max(found.layers, key=lambda layer: layer.lost).name == "undone"
    good = {layer.name: layer.sqnr > 30 for layer in found.layers}
    assert [good["good"], good["bad"], good["undone"], good["last"]] == [True, True, False, False]


def test_a_table_and_a_picture(tmp_path) -> None:
    _, _, found = _compared(randomize(nets.residual()))
    table = str(found)
    assert "Against the float Keras model, 30 samples" in table
    assert all(layer.name in table for layer in found.layers)
    assert table.count("tflm") == table.count("litert") == 1
    found.plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes()[1:4] == b"PNG"


def test_what_no_layer_returns_is_named() -> None:
    _, _, found = _compared(randomize(nets.residual()))
    assert [name.split()[-1] for name in found.unmatched] == ["(FULLY_CONNECTED)"]  # the logits
    assert "Not compared:" in str(found)
