"""What quantization costs: a float Keras model against its .tflite, output by output and layer by layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune import plots
from tfmcu_prune.calibration import calibration_arrays
from tfmcu_prune.converter import convert
from tfmcu_prune.files import replacing
from tfmcu_prune.rules import Array
from tfmcu_prune.tables import render
from tfmcu_prune.tflm import litert, runtime
from tfmcu_prune.tflm.schema import Subgraph, Tensor, read_model

_BATCH = 32
_EXACT = 60.0  # dB


@dataclass(frozen=True)
class OutputError:
    """How far one output on one runtime is from that of the float model.

    Args:
        name: The output, as in Keras.
        runtime: "tflm" or "litert".
        agreement: Share of the places (samples, pixels) whose largest number stands at the same index; `None` for an
            output of one number.
        largest: Largest absolute error.
        rms: Root of the mean squared error.
        sqnr: Signal-to-quantization-noise ratio, dB.
    """

    name: str
    runtime: str
    agreement: float | None
    largest: float
    rms: float
    sqnr: float


@dataclass(frozen=True)
class LayerError:
    """How noisy the output of one layer is, with all the noise of the layers before it.

    Args:
        name: The Keras layer; the last of those that one operator does.
        operator: The TFLite operator that writes it.
        sqnr: Signal-to-quantization-noise ratio, dB; infinite where nothing is lost.
        lost: How much lower that is than of the noisiest input of the operator, dB: what this layer adds.
    """

    name: str
    operator: str
    sqnr: float
    lost: float


@dataclass(frozen=True)
class Comparison:
    """A float Keras model against its .tflite; print it for a table.

    Args:
        samples: Number of samples.
        outputs: The outputs on TensorFlow Lite Micro, then on LiteRT.
        layers: The layers in the order in which they run.
        unmatched: Activations of the file that no layer of the model returns: padded maps, logits before a softmax.
    """

    samples: int
    outputs: tuple[OutputError, ...]
    layers: tuple[LayerError, ...]
    unmatched: tuple[str, ...]

    def __str__(self) -> str:
        agreement = [("-" if o.agreement is None else f"{o.agreement:.2%}") for o in self.outputs]
        outputs = render(
            ("output", "runtime", "top-1 agrees", "largest error", "rms error", "SQNR, dB"),
            [
                (o.name, o.runtime, share, o.largest, o.rms, o.sqnr)
                for o, share in zip(self.outputs, agreement, strict=True)
            ],
            title=f"Against the float Keras model, {self.samples:,} samples",
        )
        rows = [(layer.name, layer.operator, layer.sqnr, layer.lost) for layer in self.layers]
        layers = render(("layer", "operator", "SQNR, dB", "lost here, dB"), rows)
        left_out = [f"Not compared: {', '.join(self.unmatched)}"] if self.unmatched else []
        return "\n".join([outputs, layers, *left_out])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the signal-to-quantization-noise ratio of every layer into a file, .png, .pdf or .svg.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        figure = plots.noise({layer.name: layer.sqnr for layer in self.layers})
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.removeprefix(".") or "png")


def compare(model: keras.Model, data: bytes, x: Any) -> Comparison:
    """Compare a float Keras model with its .tflite: the outputs on both runtimes, and every layer on LiteRT.

    Args:
        model: The Keras model that `data` was converted from.
        data: What `convert` returned for it, int8 or int16x8.
        x: Samples that were not used for calibration, as in `convert`; at most 500 are used.

    Returns:
        The errors; `print` shows a table, `.plot("layers.png")` draws the layers.

    Raises:
        ImportError: tflite-micro is not installed.
        ValueError: Samples that do not fit the model.

    Example:
        >>> import tfmcu_prune
        >>> print(tfmcu_prune.compare(small, data, x_test))  # doctest: +SKIP
    """
    graph = graphs.read(model)
    samples = calibration_arrays(model, x)
    names = [layer.name for layer in graph.input_layers.values()]
    named = dict(zip(names, samples, strict=True))
    written = read_model(data).main
    feeds = [named[written.tensors[index].name.split(":")[0]] for index in written.inputs]
    pairs = _pairs(graph, model, samples, written)
    real, ratios = _measured(graph, samples, pairs, data, feeds)
    outputs = []
    for name, run in (("tflm", runtime.run), ("litert", litert.run)):
        for index, expected, values in zip(written.outputs, real, _listed(run(data, feeds)), strict=True):
            output = written.tensors[index].name.split(":")[0]
            outputs.append(_output_error(output, name, expected, values.reshape(expected.shape)))
    layers, unmatched = _layers(graph, written, dict(zip((t.index for t, _ in pairs), ratios, strict=True)), pairs)
    return Comparison(len(samples[0]), tuple(outputs), layers, unmatched)


def _listed(ran: Any) -> list[Array]:
    return list(ran) if isinstance(ran, list) else [ran]


def _output_error(name: str, runtime: str, real: Array, ran: Array) -> OutputError:
    error = ran.astype(np.float64) - real
    agreement = float(np.mean(real.argmax(-1) == ran.argmax(-1))) if real.shape[-1] > 1 else None
    largest, rms = float(np.abs(error).max()), float(np.sqrt(np.mean(error**2)))
    ratio = _decibels(float((real.astype(np.float64) ** 2).sum()), float((error**2).sum()))
    return OutputError(name, runtime, agreement, largest, rms, ratio)


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _pairs(
    graph: graphs.Graph, model: keras.Model, samples: Sequence[Array], written: Subgraph
) -> list[tuple[Tensor, int]]:
    """Activations of the file and the tensors of the graph that they hold.

    Those of a float file of the same model are the tensors that they equal on two samples; what the same operator
    writes under the same name in `written` is the same tensor.
    """
    data = convert(model, quantize="float", optimize_arena=False)
    exact, few = read_model(data).main, [array[:2] for array in samples]
    named = dict(zip([layer.name for layer in graph.input_layers.values()], few, strict=True))
    candidates = _candidates(graph, exact)
    feeds = [named[exact.tensors[index].name] for index in exact.inputs]
    _, ratios = _measured(graph, few, candidates, data, feeds)
    matches: dict[int, int] = {}
    for place in sorted(range(len(candidates)), key=lambda place: (-ratios[place], place)):
        tensor, key = candidates[place]
        if ratios[place] > _EXACT and tensor.index not in matches and key not in matches.values():
            matches[tensor.index] = key
    pairs = []
    found = _by_key(written)
    for key, tensors in _by_key(exact).items():
        if len(found.get(key, ())) == len(tensors):
            both = zip(found[key], tensors, strict=True)
            pairs += [(tensor, matches[equal.index]) for tensor, equal in both if equal.index in matches]
    return pairs


def _by_key(written: Subgraph) -> dict[Any, list[Tensor]]:
    """The activations by layer, operator and shape."""
    result: dict[Any, list[Tensor]] = {}
    makers = {index: operator.name for operator in written.operators for index in operator.outputs}
    for index in sorted(makers):
        tensor = written.tensors[index]
        result.setdefault((tensor.name.split(":")[0], makers[index], tensor.shape), []).append(tensor)
    return result


def _candidates(graph: graphs.Graph, written: Subgraph) -> list[tuple[Tensor, int]]:
    """Activations of a file and the tensors of the graph that they may hold, of the same size.

    The file names an activation after the first of the layers that its operator does; from there the tensors are
    followed up to the next layer that the file names.
    """
    made = [written.tensors[index] for operator in written.operators for index in operator.outputs]
    names = {tensor.name.split(":")[0] for tensor in made}
    pairs = []
    for tensor in made:
        ids = [key for call in graph.calls if call.name == tensor.name.split(":")[0] for key in call.outputs]
        for key in ids:  # grows
            readers = [call for call in graph.calls if key in call.inputs and call.name not in names]
            ids += [out for call in readers for out in call.outputs if out not in ids]
        sizes = {key: np.prod([size or 1 for size in graph.shapes[key][1:]]) for key in ids if key in graph.shapes}
        pairs += [(tensor, key) for key, size in sizes.items() if size == tensor.size]
    return pairs


def _measured(
    graph: graphs.Graph,
    samples: Sequence[Array],
    pairs: Sequence[tuple[Tensor, int]],
    data: bytes,
    feeds: Sequence[Array],
) -> tuple[list[Array], list[float]]:
    """The outputs of the float model, and the signal-to-quantization-noise ratio of each pair, dB."""
    signal, noise = np.zeros(len(pairs)), np.zeros(len(pairs))
    outputs: list[list[Array]] = [[] for _ in graph.output_ids()]
    ids = sorted({key for _, key in pairs} | set(graph.output_ids()))
    ran = litert.activations(data, list(feeds), [tensor for tensor, _ in pairs])
    for real, values in zip(_real(graph, samples, ids), ran, strict=True):
        for output, key in zip(outputs, graph.output_ids(), strict=True):
            output.append(real[key])
        for place, ((_, key), value) in enumerate(zip(pairs, values, strict=True)):
            expected = np.ravel(real[key]).astype(np.float64)
            signal[place] += (expected**2).sum()
            noise[place] += ((np.ravel(value) - expected) ** 2).sum()
    return [np.stack(output) for output in outputs], list(map(_decibels, signal, noise))


def _real(graph: graphs.Graph, samples: Sequence[Array], ids: Sequence[int]) -> Iterator[dict[int, Array]]:
    """For each sample the tensors `ids` of the float model."""
    for start in range(0, len(samples[0]), _BATCH):
        batch = [keras.ops.convert_to_tensor(array[start : start + _BATCH]) for array in samples]
        tensors: dict[int, Any] = dict(zip(graph.input_layers, batch, strict=True))
        for call in graph.calls:
            graphs.run_call(call, tensors)
        values = {key: keras.ops.convert_to_numpy(keras.ops.cast(tensors[key], "float32")) for key in ids}
        yield from ({key: values[key][row] for key in ids} for row in range(len(batch[0])))


def _layers(
    graph: graphs.Graph, written: Subgraph, found: dict[int, float], pairs: Sequence[tuple[Tensor, int]]
) -> tuple[tuple[LayerError, ...], tuple[str, ...]]:
    """The layers in the order of the operators; an activation without a pair passes the ratio of its inputs on."""
    makers = {key: call.name for call in graph.calls for key in call.outputs}
    names = {tensor.index: makers[key] for tensor, key in pairs}
    ratios: dict[int, float] = {}
    layers, unmatched = [], []
    for operator in written.operators:
        before = min((ratios[index] for index in operator.inputs if index in ratios), default=float("inf"))
        for index in operator.outputs:
            ratios[index] = found.get(index, before)
            if index in found:
                lost = before - ratios[index] if np.isfinite(before) else 0.0
                layers.append(LayerError(names[index], operator.name, ratios[index], lost))
            else:
                unmatched.append(f"{written.tensors[index].name} ({operator.name})")
    return tuple(layers), tuple(unmatched)
