"""A twin of a Keras network in PyTorch, trained and pruned by Torch-Pruning.

Run by bench.peers, not by hand:

    KERAS_BACKEND=torch PYTHONPATH=.:tools build/peers/bin/python -m bench.torch_peer FOLDER

FOLDER holds the model, its first weights, the data and the job. Halfway through it prints the widths at each pruning
ratio as a line of JSON, and reads the number of the ratio to prune by; in the end it writes trained.npz.

Source: Torch-Pruning 1.6.1, Fang et al. 2023 (arXiv 2301.12900), used as its README shows.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
import torch_pruning
from torch import nn

from bench.tasks import Recipe
from bench.training import Batches, schedule
from tfmcu_prune import graph as graphs
from tfmcu_prune.datasets import Dataset

RATIOS = np.linspace(0.005, 0.995, 199)
Numbers = np.ndarray[Any, Any]


class Twin(nn.Module):
    """A Keras network in PyTorch, with its weights; a softmax at the end is left to the loss.

    Args:
        model: A network of one input and one output, of the layers that `layer_of` knows.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        graph = graphs.read(model)
        self.calls = [(call.name, call.inputs, call.outputs[0]) for call in graph.calls]
        self.layers = nn.ModuleDict({call.name: layer_of(call, graph.shapes) for call in graph.calls})
        (self.input,), (self.output,) = graph.input_layers, graph.output_ids()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tensors = {self.input: x}
        for name, inputs, output in self.calls:
            tensors[output] = self.layers[name](*(tensors[key] for key in inputs))
        return tensors[self.output]


class Sum(nn.Module):
    """The sum of its inputs."""

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return sum(parts[1:], parts[0])


def layer_of(call: graphs.Call, shapes: Mapping[int, Any]) -> nn.Module:
    """Return the twin of a layer."""
    layer, kind = call.layer, type(call.layer).__name__
    if kind == "Activation":
        kind = layer.activation.__name__
    elif getattr(layer, "activation", keras.activations.linear) not in FUSED:
        kind += f" with the activation {layer.activation.__name__}"
    if kind not in TWINS:
        raise ValueError(
            f"bench.torch_peer has no twin of the layer {call.name!r}, a {kind}; expected one of {', '.join(TWINS)}."
        )
    weights = [torch.tensor(keras.ops.convert_to_numpy(weight)) for weight in getattr(layer, "weights", [])]
    return TWINS[kind](layer, weights, shapes[call.inputs[0]])


def _convolution(layer: Any, weights: Sequence[torch.Tensor], shape: Any) -> nn.Module:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = weights[0].permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else weights[0].permute(3, 2, 0, 1)
    made = nn.Conv2d(
        shape[-1], len(kernel), layer.kernel_size, layer.strides, groups=shape[-1] if depthwise else 1,
        bias=layer.use_bias,
    )  # fmt: skip
    return padded(filled(made, kernel, *weights[1:]), layer, layer.kernel_size, shape)


def _dense(layer: Any, weights: Sequence[torch.Tensor], shape: Any) -> nn.Module:
    return filled(nn.Linear(shape[-1], layer.units, bias=layer.use_bias), weights[0].T, *weights[1:])


def _batch_normalization(layer: Any, weights: Sequence[torch.Tensor], shape: Any) -> nn.Module:
    made = nn.BatchNorm2d(shape[-1], layer.epsilon, 1 - layer.momentum)
    made.running_mean.copy_(weights[2])
    made.running_var.copy_(weights[3])
    return filled(made, *weights[:2])


TWINS: dict[str, Callable[[Any, Sequence[torch.Tensor], Any], nn.Module]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "MaxPooling2D": lambda layer, _, shape: padded(
        nn.MaxPool2d(layer.pool_size, layer.strides), layer, layer.pool_size, shape, -torch.inf
    ),
    "GlobalAveragePooling2D": lambda *_: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "GlobalMaxPooling2D": lambda *_: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "relu": lambda *_: nn.ReLU(),
    "relu6": lambda *_: nn.ReLU6(),
    "ReLU": lambda layer, *_: nn.ReLU() if layer.max_value is None else nn.Hardtanh(0, layer.max_value),
    "Dropout": lambda layer, *_: nn.Dropout(layer.rate),
    "Add": lambda *_: Sum(),
}
"""Twin of each kind of layer: `(layer, weights, shape of the input) -> module`."""
FUSED = (keras.activations.linear, keras.activations.softmax)  # within a layer; the loss does the softmax


def filled(module: nn.Module, *values: torch.Tensor) -> nn.Module:
    """Set the parameters of a module."""
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    return module


def padded(module: nn.Module, layer: Any, window: tuple[int, int], shape: Any, value: float = 0.0) -> nn.Module:
    """Put the zeros in front of a module that TensorFlow's "same" adds: the odd one at the end."""
    if layer.padding == "valid":
        return module
    sides: list[int] = []
    for size, stride, extent in reversed(list(zip(window, layer.strides, shape[1:3], strict=True))):
        missing = max((-(-extent // stride) - 1) * stride + size - extent, 0)
        sides += [missing // 2, missing - missing // 2]
    return nn.Sequential(nn.ConstantPad2d(sides, value), module) if any(sides) else module


def core(module: nn.Module) -> nn.Module:
    """The module with the weights."""
    return module[-1] if isinstance(module, nn.Sequential) else module


def widths(twin: Twin) -> dict[str, int]:
    """Return the channels that each convolution and fully connected layer puts out."""
    found = {name: core(module) for name, module in twin.layers.items()}
    return {name: len(module.weight) for name, module in found.items() if isinstance(module, nn.Conv2d | nn.Linear)}


def pruned(twin: Twin, example: torch.Tensor, ratio: float, scope: str) -> Twin:
    """Return a copy of the network without the channels of the smallest norms, a group of coupled ones together."""
    smaller = copy.deepcopy(twin)
    torch_pruning.pruner.BasePruner(
        smaller, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
        global_pruning=scope == "global", ignored_layers=[smaller.layers[smaller.calls[-1][0]]],
    ).step()  # fmt: skip
    return smaller


def train(twin: Twin, steps: Iterator[tuple[int, Any]], recipe: Recipe, rate: Callable[[int], Any]) -> None:
    """Train as bench.training does: AdamW with decay of the kernels alone, soft labels."""
    kernels = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim == 1]
    named = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(named, eps=1e-7)
    twin.train()
    for step, (x, y) in steps:
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(nchw(x)), torch.from_numpy(y)).backward()
        optimizer.step()


def nchw(x: Numbers) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def keras_weights(module: nn.Module) -> list[Numbers]:
    """Return the weights of a twin as those of its Keras layer."""
    module = core(module)
    values = [parameter.detach() for parameter in module.parameters()]
    if isinstance(module, nn.Conv2d):
        values[0] = values[0].permute(2, 3, 1, 0) if module.groups == 1 else values[0].permute(2, 3, 0, 1)
    elif isinstance(module, nn.Linear):
        values[0] = values[0].T
    elif isinstance(module, nn.BatchNorm2d):
        values += [module.running_mean, module.running_var]
    return [value.numpy() for value in values]


def batches(data: Dataset, recipe: Recipe, epochs: int, seed: int) -> Iterator[Any]:
    """The batches of a whole training."""
    source = Batches(data, recipe, seed)
    for epoch in range(epochs):
        source.begin(epoch)
        for index in range(len(source)):
            yield source[index]


def main(folder: Path) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not for bench.peers
    told = json.loads((folder / "job.json").read_text())
    recipe, at = Recipe(**{**told["recipe"], "shift": tuple(told["recipe"]["shift"])}), told["step"]
    if recipe.optimizer != "adamw":
        raise ValueError(f"bench.torch_peer trains with adamw only. Received: {recipe.optimizer!r}")
    with np.load(folder / "data.npz") as arrays:
        data = Dataset("peer", **arrays, classes=int(arrays["y_train"].max()) + 1)
    model = keras.models.model_from_json((folder / "model.json").read_text())
    model.load_weights(folder / "start.weights.h5")
    torch.manual_seed(told["seed"])
    twin, total = Twin(model), told["epochs"] * (len(data.x_train) // recipe.batch_size)
    rate = schedule(recipe, total)
    steps = enumerate(batches(data, recipe, told["epochs"], told["seed"]))
    train(twin, (next(steps) for _ in range(at)), recipe, rate)
    example = nchw(data.x_train[:1])
    ladder = [pruned(twin, example, ratio, told["scope"]) for ratio in RATIOS]
    print(json.dumps([widths(each) for each in ladder]), file=out, flush=True)
    twin = ladder[int(sys.stdin.readline())]
    del ladder
    train(twin, steps, recipe, rate)
    trained = {name: keras_weights(module) for name, module in twin.layers.items()}
    np.savez(folder / "trained.npz", **{f"{name}/{i}": w for name, all_ in trained.items() for i, w in enumerate(all_)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
