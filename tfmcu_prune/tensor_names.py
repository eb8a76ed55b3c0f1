"""Names of the tensors in the files of TensorFlow's converter: which layer, input or output each stands for."""

from __future__ import annotations

import re

from tfmcu_prune import graph as graphs


def keras_name(graph: graphs.Graph, name: str) -> str:
    """The Keras layer behind a tensor's name in the converted graph: of fused layers the first one."""
    if name.endswith(_QUANTIZED):
        return f"{keras_name(graph, name.removesuffix(_QUANTIZED))}:quantized"
    calls = [int(index) for index in re.findall(r"(?:^|[/;])call(\d+)/", name)]
    if calls:
        return graph.calls[min(calls)].name
    if _OUTPUT.fullmatch(name):
        return _output_names(graph)[output_number(graph, name)]
    return list(graph.input_layers.values())[input_number(name)].name if INPUT.fullmatch(name) else name


_QUANTIZED = "_int16"
INPUT = re.compile(r"serving_default_input(\d+):\d+")
_OUTPUT = re.compile(r"(?:Stateful)?PartitionedCall:(\d+)")


def input_number(name: str) -> int:
    """The place of an input by its tensor's name in the converter's file."""
    return int(_matched(INPUT, name))


def output_number(graph: graphs.Graph, name: str) -> int:
    """The place of an output by its tensor's name; the converter makes names unique by more digits behind."""
    return number_below(name, len(graph.output_ids()))


def number_below(name: str, count: int) -> int:
    """The place of an output, of `count`, by its tensor's name."""
    digits = _matched(_OUTPUT, name)
    found = [int(digits[:end]) for end in range(1, len(digits) + 1) if str(int(digits[:end])) == digits[:end]]
    return max(number for number in found if number < count)


def _matched(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.fullmatch(name)
    if found is None:
        raise RuntimeError(
            f"The converter of TensorFlow names an input or output {name!r}, which is new to this package, so their "
            "order is not known. TensorFlow 2.21 is known to work; please report this."
        )
    return found[1]


def _output_names(graph: graphs.Graph) -> list[str]:
    makers = {key: layer.name for key, layer in graph.input_layers.items()}
    makers.update((key, call.name) for call in graph.calls for key in call.outputs)
    return [makers[key] for key in graph.output_ids()]
