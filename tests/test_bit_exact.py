"""TensorFlow Lite Micro against LiteRT's reference kernels, operator by operator on every network of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from applications import calibrate, randomize_scaled
from networks import randomize

import tfmcu_prune
from tfmcu_prune import zoo
from tfmcu_prune.tflm import runtime
from tfmcu_prune.tflm.samples import quantized
from tfmcu_prune.tflm.schema import Subgraph, read_model

SAMPLES = 200
ZOO: dict[str, Callable[[], keras.Model]] = {
    "ds_cnn": lambda: zoo.ds_cnn((25, 10, 1), 12),
    "fc_autoencoder": lambda: zoo.fc_autoencoder(64),
    "mcunet": lambda: zoo.mcunet((16, 16, 3), 10, alpha=0.5),
    "mobilenet_v1": lambda: zoo.mobilenet_v1((16, 16, 3), 10),
    "mobilenet_v2": lambda: zoo.mobilenet_v2((8, 8, 3), 10, alpha=0.35),
    "resnet1d": lambda: zoo.resnet1d((32, 6), 5, width=16),
    "resnet20": lambda: zoo.resnet20((12, 12, 3), 10),
    "resnet8": lambda: zoo.resnet8((16, 16, 3), 10),
    "tcn": lambda: zoo.tcn((32, 6), 5),
    "unet": lambda: zoo.unet((16, 16, 1), 2, width=8, depth=2),
    "vgg16": lambda: zoo.vgg16((32, 32, 1), 10, alpha=0.1),
    "vgg_small": lambda: zoo.vgg_small((14, 14, 1), 10),
}
QUICK = ("ds_cnn", "fc_autoencoder", "resnet8", "unet")

STEPS = {"FULLY_CONNECTED": 1}
"""Operators that differ, and by how much at most.

TensorFlow Lite Micro rounds twice where LiteRT rounds once, so that a sum within two thousandths of a tie, such as
-114.5013, becomes -114 on the one and -115 on the other.
"""


def test_every_network_of_the_zoo_is_here() -> None:
    assert set(ZOO) >= {*zoo.NETWORKS, *zoo.SIGNAL_NETWORKS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(ZOO)]
)
def test_both_compute_the_same(name: str) -> None:
    """Of every operator that reads the same, what it writes; of the whole, the outputs."""
    keras.utils.set_random_seed(0)
    model = randomize_scaled(ZOO[name]())
    x = np.random.default_rng(1).normal(0.5, 0.4, (SAMPLES, *model.inputs[0].shape[1:])).astype(np.float32)
    calibrate(model, x[:50])  # or deep networks compute nearly the same for all samples
    data = tfmcu_prune.convert(model, x[:50], optimize_arena=False)  # a plan in the file would not keep all tensors
    graph = read_model(data).main
    compared = dict.fromkeys((operator.name for operator in graph.operators), 0)
    for ours, theirs in _activations(data, graph, x):
        for operator in graph.operators:
            if all(np.array_equal(ours[i], theirs[i]) for i in operator.inputs if i in ours):
                compared[operator.name] += 1
                for i in operator.outputs:
                    difference = np.abs(ours[i].astype(int) - theirs[i]).max()
                    assert difference <= STEPS.get(operator.name, 0), operator.name
    assert min(compared.values()) > SAMPLES / 2


def _activations(data: bytes, graph: Subgraph, x: np.ndarray) -> Any:
    """For each sample what each operator writes: on TensorFlow Lite Micro and on LiteRT, by the index of the tensor."""
    from tflite_micro.python.tflite_micro import runtime as tflm

    (source,) = (graph.tensors[i] for i in graph.inputs)
    made = [i for operator in graph.operators for i in operator.outputs]
    micro = tflm.Interpreter.from_bytes(data, intrepreter_config=tflm.InterpreterConfig.kPreserveAllTensors)
    lite = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    lite.allocate_tensors()
    for sample in quantized(source, x):
        micro.set_input(sample.reshape(source.shape), 0)
        micro.invoke()
        lite.set_tensor(source.index, sample.reshape(source.shape))
        lite.invoke()
        yield (
            {i: np.ravel(micro.GetTensor(i, 0)["tensor_data"]) for i in made},
            {i: np.ravel(lite.get_tensor(i)) for i in made},
        )


def test_outputs_are_those_of_the_runtime() -> None:
    """The tensors that are compared are what `run` returns."""
    model = randomize(ZOO["resnet8"]())
    x = np.random.default_rng(1).random((3, *model.inputs[0].shape[1:]), np.float32)
    data = tfmcu_prune.convert(model, x)
    graph = read_model(data).main
    (output,) = graph.outputs
    raw = runtime.record(data, x).outputs[0]
    for sample, (ours, _) in zip(raw, _activations(data, graph, x), strict=True):
        np.testing.assert_array_equal(np.ravel(sample), ours[output])
