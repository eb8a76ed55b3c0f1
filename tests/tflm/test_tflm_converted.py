"""Models converted from Keras: the prediction for x86-64 against the running wheel, byte for byte."""

from __future__ import annotations

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from tflm_nets import NETS, convert
from tflm_ops import OPERATORS
from tflm_ops import convert as convert_operator

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str, quantized: bool) -> None:
    check(convert_operator(name, quantized))


KINDS = ["conv", "depthwise", "maxpool", "avgpool", "add", "concat", "relu", "tanh", "sigmoid", "hard_swish"]
STACKS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 5), st.integers(1, 2)), min_size=1, max_size=6
)
SHAPES = st.tuples(st.integers(6, 14), st.integers(6, 14), st.integers(1, 5))


def random_net(shape: tuple[int, ...], stack: list[tuple[str, int, int, int]], units: int) -> keras.Model:
    """A stack of layers with branches that are added or concatenated."""
    inputs = keras.Input(shape, batch_size=1)
    x = inputs
    for kind, width, kernel, stride in stack:
        if kind == "conv":
            x = layers.Conv2D(width, kernel, stride, padding="same")(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(kernel, padding="same")(x)
        elif kind.endswith("pool"):
            pool = layers.MaxPooling2D if kind == "maxpool" else layers.AveragePooling2D
            x = pool(2, padding="same")(x)
        elif kind == "add":
            x = layers.Add()([x, layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)])
        elif kind == "concat":
            x = layers.Concatenate()([x, layers.Conv2D(width, 1)(x)])
        else:
            x = layers.Activation(kind)(x)
    x = (layers.GlobalAveragePooling2D if units % 2 else layers.Flatten)()(x)
    return keras.Model(inputs, layers.Dense(units)(x))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(SHAPES, STACKS, st.integers(1, 30))
def test_random_nets(shape: tuple[int, ...], stack: list[tuple[str, int, int, int]], units: int) -> None:
    keras.utils.set_random_seed(0)
    check(convert(random_net(shape, stack, units)))
