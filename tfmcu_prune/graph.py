"""The graph of a Keras model: a value that can be walked and replayed with other layers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfmcu_prune.serialized import Key, entries, key_of, keys_in, parsed, structured


@dataclass(frozen=True)
class Ref:
    """A tensor of a `Graph`: where it stands in the arguments of a call."""

    id: int


@dataclass(frozen=True)
class Call:
    """One layer called once.

    Args:
        name: The layer's name, unique in the graph but for a layer that is called several times.
        layer: The layer, or the `keras.ops` operation.
        args: Positional arguments, with a `Ref` for each tensor.
        kwargs: Keyword arguments, with a `Ref` for each tensor.
        outputs: Ids of the tensors that it returns.
        shapes: Shape of each output with the batch axis; `None` for one that nobody reads.
        parents: Names of the nested models that it stands in, from the outermost.
    """

    name: str
    layer: keras.Operation
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    shapes: tuple[Any, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Ids of the tensors that it reads, in the order of its arguments."""
        return tuple(ref.id for ref in _refs((self.args, dict(self.kwargs))))


@dataclass(frozen=True)
class Graph:
    """A model as calls in the order in which Keras runs them; nested models are laid flat.

    Args:
        name: The model's name.
        input_layers: The `InputLayer` behind each input tensor's id.
        inputs: The model's inputs, structured as the model takes them.
        outputs: The model's outputs, structured as the model returns them.
        calls: Every call but the inputs.
        shapes: Shape of each tensor that is an input or is read, with the batch axis.
    """

    name: str
    input_layers: Mapping[int, keras.layers.InputLayer]
    inputs: Any
    outputs: Any
    calls: tuple[Call, ...]
    shapes: Mapping[int, tuple[int | None, ...]]

    def output_ids(self) -> tuple[int, ...]:
        """Ids of the tensors that the model returns."""
        return tuple(ref.id for ref in _refs(self.outputs))

    def only_reader(self, tensor: int) -> Call | None:
        """The call that reads a tensor; `None` if there are several or none, or if the model returns it."""
        readers = [call for call in self.calls if tensor in call.inputs]
        return readers[0] if len(readers) == 1 and tensor not in self.output_ids() else None


def read(model: keras.Model) -> Graph:
    """Read the graph of a Sequential or functional model; nothing of the model is changed.

    Raises:
        ValueError: Not a Keras 3 model, not built, or a subclassed model without a graph.
    """
    reader = _Reader()
    functional = _functional(model)
    inputs, outputs = reader.add(functional, [])
    shapes = reader.shapes
    names = _unique_names(reader.calls)
    calls = tuple(
        replace(call, name=names[id(call.layer)], shapes=tuple(shapes.get(key) for key in call.outputs))
        for call in reader.calls
    )
    return in_run_order(Graph(model.name, reader.input_layers, inputs, outputs, calls, shapes))


def from_outputs(graph: Graph) -> list[Call]:
    """Return the calls in an order that only the wiring decides, each behind those that it reads from.

    Depth first from the outputs; what is numbered in this order keeps its number when a nested model is laid flat.
    """
    maker = _makers(graph)
    order: dict[int, Call] = {}
    waiting = [maker[key] for key in reversed(graph.output_ids()) if key in maker]
    while waiting:
        call = waiting[-1]
        missing = [maker[key] for key in call.inputs if key in maker and key not in order]
        if missing and call.outputs[0] not in order:
            waiting.extend(reversed(missing))
        else:
            waiting.pop()
            order.update(dict.fromkeys(call.outputs, call))
    return list({id(call): call for call in order.values()}.values())


def in_run_order(graph: Graph) -> Graph:
    """Return the graph with its calls in the order in which Keras runs a model without nested ones.

    That is by falling depth (the longest way to an output, for all the calls of a layer the longest of theirs), and at
    one depth in the order in which a walk from the outputs meets them.
    """
    maker = _makers(graph)
    of_call: dict[int, int] = {}
    of_layer: dict[int, int] = {}
    for call in reversed(from_outputs(graph)):
        depth = max(of_call.setdefault(call.outputs[0], 0), of_layer.get(id(call.layer), 0))
        of_call[call.outputs[0]] = of_layer[id(call.layer)] = depth
        for tensor in call.inputs:
            if tensor in maker:
                first = maker[tensor].outputs[0]
                of_call[first] = max(of_call.get(first, 0), depth + 1)
    order = sorted(of_call, key=lambda first: -of_call[first])
    return replace(graph, calls=tuple(maker[first] for first in order))


def _makers(graph: Graph) -> dict[int, Call]:
    return {key: call for call in graph.calls for key in call.outputs}


def bridged(graph: Graph, part: Collection[Call], end: int, start: int) -> Graph:
    """Return the graph without some calls; what reads their last tensor, `end`, reads `start` there."""
    refs = {key: Ref(key) for call in graph.calls for key in (*call.inputs, *call.outputs)} | {end: Ref(start)}
    gone, calls = set(map(id, part)), []
    for call in graph.calls:
        if id(call) not in gone:
            args, kwargs = _fill((call.args, dict(call.kwargs)), refs)
            calls.append(replace(call, args=args, kwargs=kwargs))
    return in_run_order(replace(graph, calls=tuple(calls)))


def replay(
    graph: Graph, make: Callable[[Call], Callable[..., Any]], prologue: Callable[[Any], None] | None = None
) -> Any:
    """Build a functional model that runs `make(call)` in place of each call's layer.

    Args:
        graph: What to replay.
        make: Gives the layer (or any function of symbolic tensors) for a call; asked once a call.
        prologue: Called with the list of the new model's input tensors before the first call.

    Returns:
        A `keras.Model` whose inputs are named and structured as the graph's.
    """
    tensors: dict[int, Any] = {}
    for key, layer in graph.input_layers.items():
        tensors[key] = keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name)
    if prologue is not None:
        prologue(list(tensors.values()))
    for call in graph.calls:
        run_call(call, tensors, make(call))
    return keras.Model(_fill(graph.inputs, tensors), _fill(graph.outputs, tensors), name=graph.name)


def run_call(call: Call, tensors: dict[int, Any], layer: Callable[..., Any] | None = None) -> None:
    """Run one call (with another layer in place of its own) on `tensors` and put its outputs there."""
    args, kwargs = _fill((call.args, dict(call.kwargs)), tensors)
    result = (layer or call.layer)(*args, **kwargs)
    tensors.update(zip(call.outputs, keras.tree.flatten(result), strict=False))


def copy_layer(call: Call, **changes: Any) -> Any:
    """Return a new, unbuilt layer with the call's name and its layer's configuration, with some entries changed.

    A Lambda, which has no weights and whose function no configuration holds for sure, is returned as it is.
    """
    if isinstance(call.layer, keras.layers.Lambda) and not changes:
        return call.layer
    config = {**call.layer.get_config(), **changes}
    if isinstance(call.layer, keras.Layer):
        config["name"] = call.name
    return type(call.layer).from_config(_unbuilt(config))


@contextlib.contextmanager
def without_drawing() -> Iterator[Callable[[Any], Any]]:
    """Give a function that lets a new layer's weights begin as zeros, for a replay whose weights are set afterwards.

    JAX compiles the drawing of random numbers anew for each shape. In the end the layers have their initializers again.
    """
    held: list[tuple[Any, str, Any]] = []

    def zeroed(layer: Any) -> Any:
        for name, value in list(vars(layer).items()):
            if isinstance(value, keras.initializers.Initializer):
                held.append((layer, name, value))
                setattr(layer, name, keras.initializers.Zeros())
        return layer

    try:
        yield zeroed
    finally:
        for layer, name, value in held:
            setattr(layer, name, value)


def _unbuilt(config: Any) -> Any:
    """A configuration in which no wrapped layer is built for the sizes that it has had."""
    if isinstance(config, dict):
        return {name: _unbuilt(value) for name, value in config.items() if name != "build_config"}
    return config


def _functional(model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        hint = " It is a tf_keras (Keras 2) model: build it with `import keras`." if is_tf_keras(model) else ""
        raise ValueError(f"Expected a Keras 3 model (keras.Model). Received: {type(model)}.{hint}")
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so its channels are not known. "
            "Give it a keras.Input((...)) as its first layer, or call model.build(input_shape)."
        )
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) has no graph of layers: expected a Sequential or a "
            "functional model, received a subclassed one. Write it as keras.Model(inputs, outputs)."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(inputs[0], outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def is_tf_keras(model: Any) -> bool:
    """Whether a model is one of Keras 2."""
    return any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(model).__mro__)


class _Reader:
    """Collects the calls of a model and of the models nested in it from their (public) configurations."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.input_layers: dict[int, keras.layers.InputLayer] = {}
        self.shapes: dict[int, tuple[int | None, ...]] = {}
        self._count = itertools.count()

    def add(self, model: keras.Model, given: Sequence[Ref], parents: tuple[str, ...] = ()) -> tuple[Any, Any]:
        """Add a model's calls; `given` stand for its inputs where it is nested. Returns its inputs and outputs."""
        config = model.get_config()
        operations = {operation.name: operation for operation in model.operations}
        tensors: dict[Key, Ref] = {}
        for number, key in enumerate(keys_in(config["input_layers"])):
            tensors[key] = given[number] if given else self._new_input(operations[key[0]])
        pending: list[tuple[Any, tuple[str, int], Any]] = [
            (operations[entry["name"]], (entry["name"], index), node)
            for entry in config["layers"]
            for index, node in enumerate(entry["inbound_nodes"])
        ]
        while pending:  # one pass is enough but where a layer is called at several depths
            waiting = []
            for operation, position, node in pending:
                if all(key_of(entry) in tensors for entry in entries(node)):
                    self._add_call(operation, position, node, tensors, parents)
                else:
                    waiting.append((operation, position, node))
            pending = waiting
        outputs = structured(config["output_layers"], tensors)
        for ref, tensor in zip(_refs(outputs), model.outputs, strict=True):
            self.shapes.setdefault(ref.id, tuple(tensor.shape))
        return structured(config["input_layers"], tensors), outputs

    def _new_input(self, layer: keras.layers.InputLayer) -> Ref:
        ref = Ref(next(self._count))
        self.input_layers[ref.id] = layer
        self.shapes[ref.id] = tuple(layer.batch_shape)
        return ref

    def _add_call(
        self, operation: Any, position: tuple[str, int], node: Any, tensors: dict[Key, Ref], parents: tuple[str, ...]
    ) -> None:
        args, kwargs = parsed(node["args"], tensors), parsed(node["kwargs"], tensors)
        for entry in entries(node):
            self.shapes[tensors[key_of(entry)].id] = tuple(entry["config"]["shape"])
        if isinstance(operation, keras.Model):
            inner = (*parents, operation.name)
            _, outputs = self.add(_functional(operation), list(_refs((args, kwargs))), inner)
            results = list(_refs(outputs))
        else:
            results = [Ref(next(self._count)) for _ in keras.tree.flatten(operation.output)]
            outputs = tuple(ref.id for ref in results)
            self.calls.append(Call(operation.name, operation, tuple(args), kwargs, outputs, parents=parents))
        for index, ref in enumerate(results):
            tensors[(*position, index)] = ref


def _unique_names(calls: Sequence[Call]) -> dict[int, str]:
    """A name for each layer by its id: its own, or where layers of several models share one, with its model before."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for call in sorted(calls, key=lambda call: len(call.parents)):
        if id(call.layer) not in names:
            candidates = itertools.accumulate((call.name, *reversed(call.parents)), lambda name, over: f"{over}_{name}")
            numbered = (f"{call.name}_{number}" for number in itertools.count(1))
            name = next(name for name in itertools.chain(candidates, numbered) if name not in taken)
            names[id(call.layer)] = name
            taken.add(name)
    return names


def _refs(value: Any) -> Iterator[Ref]:
    return (leaf for leaf in keras.tree.flatten(value) if isinstance(leaf, Ref))


def _fill(value: Any, tensors: Mapping[int, Any]) -> Any:
    return keras.tree.map_structure(lambda leaf: tensors[leaf.id] if isinstance(leaf, Ref) else leaf, value)
