"""Models converted from Keras: the prediction for x86-64 against the running wheel, byte for byte."""

from __future__ import annotations

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from tflm_nets import NETS, convert

from tfmcu_prune.tflm import measure
from tfmcu_prune.tflm.footprint import footprint

pytest.importorskip("tflite_micro", reason="pip install --pre tflite-micro")

FEW = ["ds_cnn", "unet", "attention", "slices"]


def check(model: bytes) -> None:
    """Compare head and tail with the wheel's; a model that the prediction flags must not start."""
    fp = footprint(model, target="x86-64")
    if "arena" in fp.uncertain:
        with pytest.raises(ValueError, match="TensorFlow Lite Micro does not run"):
            measure(model)
    else:
        assert measure(model) == (fp.head, fp.tail, fp.arena_used)


@pytest.mark.parametrize("name", FEW)
def test_some_nets(name: str) -> None:
    check(convert(NETS[name](6)))


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 8, 17, 24])
@pytest.mark.parametrize("name", [name for name in NETS if name != "two_inputs"])
def test_all_nets(name: str, width: int) -> None:
    check(convert(NETS[name](width)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int16x8", "float"])
@pytest.mark.parametrize("name", ["conv_pool", "ds_cnn", "residual", "unet", "conv1d", "attention", "stacked"])
def test_other_types(name: str, kind: str) -> None:
    check(convert(NETS[name](5), kind))


@st.composite
def random_nets(draw: st.DrawFn) -> keras.Model:
    """A random stack of layers with a branch that is added or concatenated."""
    inputs = keras.Input((draw(st.integers(6, 14)), draw(st.integers(6, 14)), draw(st.integers(1, 5))), batch_size=1)
    x = inputs
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "add", "concat", "act"]))
        width = draw(st.integers(1, 20))
        if kind == "conv":
            x = layers.Conv2D(width, draw(st.integers(1, 3)), draw(st.integers(1, 2)), padding="same")(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(draw(st.integers(1, 5)), padding="same")(x)
        elif kind == "pool" and min(x.shape[1:3]) > 1:
            x = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))(2)(x)
        elif kind == "add":
            x = layers.Add()([x, layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)])
        elif kind == "concat":
            x = layers.Concatenate()([x, layers.Conv2D(width, 1)(x)])
        else:
            x = layers.Activation(draw(st.sampled_from(["relu", "tanh", "sigmoid", "hard_swish"])))(x)
    x = draw(st.sampled_from([layers.GlobalAveragePooling2D, layers.Flatten]))()(x)
    return keras.Model(inputs, layers.Dense(draw(st.integers(1, 30)))(x))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_nets())
def test_random_nets(net: keras.Model) -> None:
    check(convert(net))
