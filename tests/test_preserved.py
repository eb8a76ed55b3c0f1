"""What gates and strip leave as it was: names, structure, training configuration, shared and frozen weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import more_nets
import nets
import numpy as np
import pytest
from keras import layers
from networks import half_mask, inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.gating import ungated
from tfmcu_prune.graph import Call, Graph, read

NETS = [*nets.ALL, *more_nets.MORE]


# Entries that say the same in another way once they are written out for a mask
RESOLVED = ("indices_or_sections", "newshape", "output_shape", "target_shape")


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_an_unpruned_strip_is_the_model(net) -> None:
    """Every layer has the configuration it had, seeds, regularizers and all; nested models are laid flat."""
    model = net()
    gated = tfmcu_prune.prunable(model)
    small = tfmcu_prune.strip(gated)
    expected = _configurations(read(model))
    assert _configurations(ungated(gated)) == expected
    assert _configurations(read(small)) == expected
    assert small.name == model.name
    for other in (gated, small):
        assert _interface(other) == _interface(model)


def _configurations(graph: Graph) -> list[dict[str, Any]]:
    """The configuration of each call's layer, by the name it has in the flat model."""
    return [
        {
            **{name: value for name, value in call.layer.get_config().items() if name not in RESOLVED},
            "name": call.name,
            "class": type(call.layer),
            "weights": [weight.shape for weight in getattr(call.layer, "weights", ())],
        }
        for call in sorted(graph.calls, key=lambda call: call.name)
    ]


def _interface(model: keras.Model) -> Any:
    """Structure, names, shapes and types of the inputs; structure and names of the outputs."""
    graph = read(model)
    layer_of, makers = graph.input_layers, {key: call.name for call in graph.calls for key in call.outputs}
    inputs = keras.tree.map_structure(
        lambda ref: (layer_of[ref.id].name, layer_of[ref.id].batch_shape, layer_of[ref.id].dtype), graph.inputs
    )
    return inputs, keras.tree.map_structure(lambda ref: makers[ref.id], graph.outputs)


def test_a_shared_layer_stays_one() -> None:
    model = more_nets.shared_layers()
    gated = tfmcu_prune.prunable(model)
    tfmcu_prune.set_mask(gated, half_mask(channel_groups(model)))
    small = tfmcu_prune.strip(gated)
    for one in (ungated(gated), read(small)):
        made = [call.layer for call in one.calls if isinstance(call.layer, (layers.Conv2D, layers.Dense))]
        assert len(made) - len({id(layer) for layer in made}) == 2  # the head and the classifier are called twice
    assert len(small.weights) == len(model.weights) == len(gated.weights) - _gate_weights(gated)


def _gate_weights(gated: keras.Model) -> int:
    return len(gated.get_layer("channel_gates").weights)


def _frozen_layers() -> keras.Model:
    model = nets.residual()
    for layer in model.layers[2:6]:
        layer.trainable = False
    return model


def _frozen_nested() -> keras.Model:
    model = more_nets.nested_twice()
    model.get_layer("outer").get_layer("middle").trainable = False
    return model


def _frozen_wrapped() -> keras.Model:
    model = more_nets.time_distributed()
    model.layers[1].layer.trainable = False
    return model


def _frozen_model() -> keras.Model:
    model = nets.plain()
    model.trainable = False
    return model


@pytest.mark.parametrize("make", [_frozen_layers, _frozen_nested, _frozen_wrapped, _frozen_model])
def test_frozen_layers_stay_frozen(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    model = make()
    expected = [len(call.layer.trainable_weights) for call in _layers(model)]
    assert sum(expected) < sum(len(call.layer.weights) for call in _layers(model))
    gated = tfmcu_prune.prunable(model)
    gated.save(tmp_path / "gated.keras")
    for one in (gated, keras.models.load_model(tmp_path / "gated.keras")):
        small = tfmcu_prune.strip(one)
        assert [len(call.layer.trainable_weights) for call in _layers(small)] == expected
        assert len(small.trainable_weights) == len(model.trainable_weights)
        gates = len(one.get_layer("channel_gates").trainable_weights)
        assert len(one.trainable_weights) - gates == len(model.trainable_weights)


def _layers(model: keras.Model) -> list[Call]:
    return [call for call in read(model).calls if isinstance(call.layer, keras.Layer)]


def test_regularizers_and_constraints_act_as_before() -> None:
    def build() -> keras.Model:
        settings = {"padding": "same", "kernel_regularizer": keras.regularizers.L1L2(0.01, 0.02)}
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(6, 3, kernel_constraint=keras.constraints.MaxNorm(0.5), **settings)(inputs)
        x = layers.Conv2D(5, 3, bias_regularizer="l2", activity_regularizer="l1", **settings)(layers.ReLU()(x))
        x = layers.SeparableConv2D(5, 3, depthwise_regularizer="l2", pointwise_constraint="non_neg")(x)
        x = layers.Flatten()(layers.BatchNormalization(gamma_regularizer="l2", beta_constraint="non_neg")(x))
        return keras.Model(inputs, layers.Dense(3, kernel_regularizer="orthogonal_regularizer")(x))

    model = randomize(build())
    inputs = inputs_for(model)
    gated = tfmcu_prune.prunable(model)
    small = tfmcu_prune.strip(gated)
    assert _loss(gated, inputs) == pytest.approx(_loss(model, inputs), rel=1e-5)
    assert _loss(small, inputs) == pytest.approx(_loss(model, inputs), rel=1e-5)
    for one in (model, gated, small):
        one.compile(keras.optimizers.SGD(0.1), "mse")
        one.train_on_batch(inputs, np.zeros((5, 3)))
    first = next(call.layer for call in ungated(gated).calls)
    for layer in (first, read(small).calls[0].layer):
        norms = np.sqrt((keras.ops.convert_to_numpy(layer.kernel) ** 2).sum(axis=0))
        assert norms.max() == pytest.approx(0.5, rel=1e-3)  # it binds


def _loss(model: keras.Model, inputs: Any) -> float:
    """The regularization of one call, as `fit` adds it to the loss."""
    model(inputs)
    return float(sum(keras.ops.convert_to_numpy(loss) for loss in model.losses))


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("net", [nets.residual, nets.depthwise, more_nets.attention, more_nets.gru])
def test_mixed_precision_everywhere(net, policy: str) -> None:
    _check_policies(net())


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_mixed_precision_of_some_layers(name: str) -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", dtype=name)(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.DepthwiseConv2D(3, dtype=name)(x)
    x = layers.Conv2D(5, 1, dtype=keras.DTypePolicy(name))(x)
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    model = keras.Model(inputs, layers.Dense(3, dtype="float32")(x))
    assert {layer.dtype_policy.name for layer in model.layers[1:]} == {"float32", name}
    _check_policies(model)


def _check_policies(model: keras.Model) -> None:
    """The same policies and types of weights; the strip computes what the gated model does, roughly as it must."""
    randomize(model)
    gated = tfmcu_prune.prunable(model)
    tfmcu_prune.set_mask(gated, random_mask(channel_groups(model), 0))
    small = tfmcu_prune.strip(gated)
    for graph in (ungated(gated), read(small)):
        assert [_types(call) for call in graph.calls] == [_types(call) for call in read(model).calls]
    inputs = inputs_for(model)
    expected = outputs_of(gated, inputs).astype(np.float64)
    bits = 8 if any("bfloat16" in layer.compute_dtype for layer in model.layers) else 11
    np.testing.assert_allclose(
        outputs_of(small, inputs).astype(np.float64), expected, atol=8 * 2.0**-bits * np.abs(expected).max(), rtol=0
    )
    gated.compile("sgd", "mse")
    assert np.isfinite(gated.train_on_batch(inputs, np.zeros((5, *model.output_shape[1:]))))


def _types(call: Call) -> Any:
    if not isinstance(call.layer, keras.Layer):
        return ()
    return call.layer.dtype_policy.name, [weight.dtype for weight in call.layer.weights]


@pytest.mark.parametrize("kind", ["dict", "list", "list of one", "single"])
def test_structures_of_inputs_and_outputs(kind: str) -> None:
    """`fit` with losses by name, `predict` and a call take and return what they did."""
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = layers.Dense(8, activation="relu", name="hidden")(a if kind in ("single", "list of one") else _joined(a, b))
    y, z = layers.Dense(3, name="y")(x), layers.Dense(2, name="z")(x)
    given, returned = {
        "dict": ({"a": a, "b": b}, {"one": y, "two": z}),
        "list": ([a, b], [z, y]),
        "list of one": ([a], [y]),
        "single": (a, y),
    }[kind]
    model = keras.Model(given, returned, name="shapes")
    inputs = keras.tree.map_structure(lambda tensor: np.ones((2, tensor.shape[1]), "float32"), given)
    gated = tfmcu_prune.prunable(model)
    small = tfmcu_prune.strip(gated)
    for one in (gated, small):
        assert _interface(one) == _interface(model)
        assert isinstance(one(inputs), type(model(inputs)))
        for ours, theirs in zip(
            _flat(one.predict(inputs, verbose=0)), _flat(model.predict(inputs, verbose=0)), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def _joined(a: Any, b: Any) -> Any:
    return layers.Concatenate(name="joined")([a, b])


def _flat(value: Any) -> list[Any]:
    return keras.tree.flatten(value)


@pytest.mark.parametrize("net", [nets.residual, nets.depthwise, nets.two_in_two_out, nets.shared])
def test_checkpoints_of_the_model_load_into_the_unpruned_strip(net, tmp_path: Path) -> None:
    model = randomize(net())
    small = tfmcu_prune.strip(tfmcu_prune.prunable(net()))
    inputs = inputs_for(model)
    model.save_weights(tmp_path / "checkpoint.weights.h5")
    small.load_weights(tmp_path / "checkpoint.weights.h5")
    assert np.array_equal(outputs_of(small, inputs), outputs_of(model, inputs))


def test_checkpoints_load_by_name(tmp_path: Path) -> None:
    """In the old format weights are found by the names of the layers."""
    model = randomize(_named())
    small = tfmcu_prune.strip(tfmcu_prune.prunable(_named()))
    model.save(tmp_path / "old.h5")
    small.load_weights(tmp_path / "old.h5", by_name=True)
    inputs = inputs_for(model)
    assert np.array_equal(outputs_of(small, inputs), outputs_of(model, inputs))


def _named() -> keras.Model:
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, name="first", activation="relu")(inputs)
    x = layers.Flatten(name="flat")(layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(3, name="last")(x), name="named")


LOAD = """
import sys, pathlib
import numpy as np
import tfmcu_prune
import keras
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    with np.load(folder / "arrays.npz") as arrays:
        inputs = [arrays[f"input{i}"] for i in range(len(arrays.files) - 2)]
        for name in ("gated", "small"):
            model = keras.models.load_model(folder / f"{name}.keras")
            outputs = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, inputs), training=False))
            got = np.concatenate([np.ravel(keras.ops.convert_to_numpy(output)) for output in outputs])
            np.testing.assert_array_equal(got, arrays[name], err_msg=f"{folder.name} {name}")
    print(folder.name)
"""


def test_files_load_where_only_the_package_is_imported(tmp_path: Path) -> None:
    for net in NETS:
        model = randomize(net())
        inputs, gated = inputs_for(model, 2), tfmcu_prune.prunable(model, tfmcu_prune.Budget(macs="1G"))
        tfmcu_prune.set_mask(gated, half_mask(channel_groups(model)))
        arrays = {f"input{i}": array for i, array in enumerate(_flat(inputs))}
        folder = tmp_path / net.__name__
        folder.mkdir()
        for name, one in (("gated", gated), ("small", tfmcu_prune.strip(gated))):
            one.save(folder / f"{name}.keras")
            arrays[name] = outputs_of(one, inputs)
        np.savez(folder / "arrays.npz", **arrays)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == sorted(net.__name__ for net in NETS)
