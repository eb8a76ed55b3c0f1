"""tools/benchmark.py: methods meet the budget, runs resume, reports are made of the results file alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import Budget
from tfmcu_prune.budget import Resources
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.fitting import converted_cost
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate, floor, over
from tfmcu_prune.results import between

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

import benchmark  # noqa: E402
from bench import grids, methods, networks, normalization, penalty, results, tasks, timing, training  # noqa: E402
from bench.measure import measure  # noqa: E402
from bench.pareto import compared, pareto  # noqa: E402


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 64), ("val", 16), ("test", 24)):
        y = rng.integers(0, 3, count)
        x = rng.normal(0, 0.3, (count, 8, 8, 3)) + np.eye(3)[y][:, None, None, :]
        parts |= {f"x_{part}": x.astype("float32"), f"y_{part}": y}
    return Dataset("tiny", **parts, classes=3)


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for width in (8, 12):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x), name="tiny")


@pytest.fixture(scope="module")
def budget() -> Budget:
    return networks.budget_at(network(), "loose")


RECIPE = tasks.Recipe(batch_size=16, shift=(1, 1), flip=True)


def job(data: Dataset, budget: Budget, **changes) -> methods.Job:
    keras.utils.set_random_seed(1)
    return methods.Job(network, data, RECIPE, **{"budget": budget, "epochs": 3, "seed": 1, "jit": False, **changes})


HERE = [name for name in methods.METHODS if name not in (*results.FREE, "torch_pruning")]


@pytest.mark.parametrize("name", [*HERE, "ours:power=-1+salience=gamma", "ours:learn=1+strength=0.1"])
def test_every_method_meets_the_budget(name: str, data: Dataset, budget: Budget) -> None:
    method, options = methods.parse(name)
    small = method(job(data, budget), **options)
    found = measure(small, data, budget)  # requires the budget
    assert 0 <= found["int8"] <= 1
    assert found["widths"][-1] == 3
    assert sum(found["widths"]) < 23
    assert not any(isinstance(layer, penalty.ChannelGates) for layer in small.layers)


def test_scenario_b_starts_from_the_trained_network(data: Dataset, budget: Budget) -> None:
    trained = methods.dense(job(data, budget))
    given = job(data, budget, trained=trained, before=3, epochs=2)
    assert methods.dense(given) is trained
    small = methods.one_shot_l2(given)
    measure(small, data, budget)
    measure(methods.ours(given, distill=0.5), data, budget)
    with pytest.raises(ValueError, match="scenario A"):
        methods.ours(job(data, budget), distill=0.5)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_given_network_writes_its_part_of_the_labels(
    data: Dataset, budget: Budget, share: float, monkeypatch
) -> None:
    caught: list[training.Teacher] = []
    monkeypatch.setattr("bench.jobs.fit", lambda *_, teacher, **_options: caught.append(teacher))
    given = job(data, budget, trained=network(), before=3, epochs=2)
    methods.ours(given, distill=share)
    (x, y), (same, mixed) = (training.Batches(data, RECIPE, 0, teacher=teacher)[0] for teacher in (None, *caught))
    np.testing.assert_array_equal(x, same)
    expected = (1 - share) * y + share * given.start().predict(x, verbose=0)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_uniform_trains_for_all_epochs_or_for_those_of_the_compression(
    data: Dataset, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.Job, "train", lambda *_, epochs: epochs)
    given = job(data, budget, trained=network(), before=3, epochs=2)
    assert (methods.uniform(given), methods.uniform(given, total=0)) == (5, 2)


def test_fewer_layers_are_those_that_shorten_leaves_out(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.Job, "train", lambda _self, model, *_args, **_options: model)
    wide = functools.partial(networks.NETWORKS["ds_cnn"], (49, 10, 1), 3)
    tight = dataclasses.replace(job(data, Budget(flash="5KiB")), network=wide)
    made = (methods.ours(tight), methods.ours(tight, shorten=1), methods.ours(tight, without=2),
            methods.uniform(tight, without=1), methods.uniform(tight, without=2))  # fmt: skip
    assert [sum(layer.name.endswith("_dw") for layer in model.layers) for model in made] == [4, 2, 2, 3, 2]


@pytest.mark.parametrize(
    ("name", "is_less"),
    [("ours", True), ("ours:dropout=0", False), ("uniform", False), ("uniform:dropout=1", True), ("random", True),
     ("cubic_l2", False), ("cubic_l2:dropout=1", True), ("taylor", False), ("morphnet", False),
     ("straight_through", False)],
)  # fmt: skip
def test_dropout_is_as_given_or_that_of_the_channels_left(
    name: str, is_less: bool, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.Job, "train", lambda _self, model, *_args, **_options: model)
    wide = functools.partial(networks.NETWORKS["ds_cnn"], (49, 10, 1), 3)
    method, options = methods.parse(name)
    made = method(dataclasses.replace(job(data, Budget(flash="10KiB")), network=wide), **options)
    first, last = networks.rates(made).values()
    assert (0 < first < 0.15 and 0 < last < 0.35) if is_less else (first, last) == (0.2, 0.4)


@pytest.mark.parametrize("name", ["ours", "taylor", "straight_through"])
def test_the_same_seed_gives_the_same_network(name: str, data: Dataset, budget: Budget) -> None:
    first, second = (methods.METHODS[name](job(data, budget)).get_weights() for _ in range(2))
    assert [w.shape for w in first] == [w.shape for w in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)  # threads add in any order


def test_the_widest_uniform_network_fits_and_the_next_does_not(budget: Budget) -> None:
    forms = resource_model(channel_groups(network()))
    sizes = resource_model(channel_groups(networks.widest(network(), budget))).full()
    steps = sorted({tuple(networks.uniform(forms, share / 1000)) for share in range(1001)})
    index = steps.index(tuple(sizes))
    assert not over(converted_cost(networks.resized(network(), steps[index])), budget)
    assert over(converted_cost(networks.resized(network(), steps[index + 1])), budget)


def test_every_epoch_has_an_order_of_its_own_and_the_other_mirror_images(data: Dataset) -> None:
    seen: list[tuple[int, np.ndarray]] = []

    class Seen(training.Batches):
        def __getitem__(self, index: int):
            x, y = super().__getitem__(index)
            seen.append((index, x))
            return x, y

    model = network()
    model.compile("sgd", "categorical_crossentropy")
    batches = Seen(data, tasks.Recipe(batch_size=16, flip=True), 0)
    training.feed(keras.Model.fit, model, batches, epochs=3)
    told = seen[-3 * len(batches) :]  # before them the shapes were asked for
    assert [index for index, _ in told] == [0, 1, 2, 3] * 3
    epochs = [[image.tobytes() for _, x in told[at : at + 4] for image in x] for at in (0, 4, 8)]
    assert set(epochs[0]) == set(epochs[2])
    assert not set(epochs[0]) & set(epochs[1])
    assert epochs[0] != epochs[2]


@pytest.mark.parametrize("flash", [0, 1 << 30], ids=["too small", "too large"])
def test_the_first_fitting_network_is_found_where_the_closed_form_errs(
    flash: int, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(8, 12), (7, 10), (6, 8), (4, 6), (2, 3)]
    fits = [not over(converted_cost(networks.resized(network(), each)), budget) for each in sizes]
    first = fits.index(True)
    assert 0 < first < len(sizes) - 1
    monkeypatch.setattr(networks, "evaluate", lambda *_: Resources(arena=0, flash=flash, macs=0))
    index, found = networks.first_fitting(network(), sizes, budget)
    assert index == first
    assert tuple(resource_model(channel_groups(found)).full()) == sizes[first]
    with pytest.raises(tfmcu_prune.BudgetError, match="None of 1 smaller networks"):
        networks.first_fitting(network(), sizes[:1], budget)


@pytest.mark.parametrize("name", ["ds_cnn", "resnet8", "resnet11", "vgg_small"])
def test_resized_networks_have_their_sizes_and_new_weights(name: str) -> None:
    dense = networks.NETWORKS[name]((16, 16, 1), 4)
    forms = resource_model(channel_groups(dense))
    small = networks.resized(dense, networks.uniform(forms, 0.5))
    np.testing.assert_array_equal(resource_model(channel_groups(small)).full(), networks.uniform(forms, 0.5))
    again = networks.resized(dense, networks.uniform(forms, 0.5))
    assert not np.array_equal(small.get_weights()[0], again.get_weights()[0])


@pytest.mark.parametrize(("name", "count", "weights"), [("vgg7", 8, 1.7), ("resnet11", 11, 0.7)])
def test_networks_have_the_layers_and_weights_that_they_are_described_by(name: str, count: int, weights: float) -> None:
    model = networks.NETWORKS[name]((32, 32, 3), 10)
    kernels = [layer for layer in model.layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))]
    assert len(kernels) == count
    assert round(model.count_params() / 1e6, 1) == weights


def test_budgets_lie_between_the_network_and_its_floor() -> None:
    model = network()
    forms = resource_model(channel_groups(model))
    before = evaluate(forms, forms.full())
    for level in networks.LEVELS:
        limits = networks.budget_at(model, level).limits()
        assert all(getattr(floor(forms), k) < v < getattr(before, k) for k, v in limits.items())


def test_a_level_may_be_limits() -> None:
    assert networks.budget_at(network(), "arena=32KiB+macs=3M") == Budget(arena=32 * 1024, macs=3_000_000)
    with pytest.raises(ValueError, match="ram is none of these"):
        networks.budget_at(network(), "ram=32KiB+flash=64KiB")
    with pytest.raises(ValueError, match="expected one of loose, tight, extreme"):
        networks.budget_at(network(), "tihgt")


def test_straight_through_gates_are_rounded_and_get_gradients() -> None:
    gated = penalty.straight_through(tfmcu_prune.prunable(network(), Budget(macs="40k")))
    gates = next(layer for layer in gated.layers if isinstance(layer, penalty.StraightThroughGates))
    offset = np.zeros(gates.count, "float32")
    offset[:5] = -0.6 / gates.rate
    gates.offset.assign(offset)
    np.testing.assert_array_equal(gates(np.zeros((1, 8, 8, 3))), [0.0] * 5 + [1.0] * (gates.count - 5))
    gated.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", jit_compile=False)
    gated.train_on_batch(np.random.default_rng(0).normal(size=(8, 8, 8, 3)), np.eye(3)[np.arange(8) % 3])
    assert (keras.ops.convert_to_numpy(gates.offset) != offset).sum() > gates.count // 2


def test_muon_moves_kernels_of_convolutions_as_matrices_and_all_else_as_adamw() -> None:
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="reads_the_input")(x)
    x = keras.layers.Conv2D(5, 3, name="wide")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Dense(4, name="dense")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    muon, adamw = (training.optimizer(tasks.Recipe(optimizer=name, learning_rate=0.1), 2) for name in ("muon", "adamw"))
    before = {variable.path: np.array(variable) for variable in model.trainable_variables}
    rng = np.random.default_rng(0)
    gradients = [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in before.values()]
    moved = []
    for each in (muon, adamw):
        for variable, value in zip(model.trainable_variables, before.values(), strict=True):
            variable.assign(value)
        each.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        moved.append({v.path: np.array(v) - before[v.path] for v in model.trainable_variables})
    for path in before.keys() - {"wide/kernel"}:
        np.testing.assert_allclose(moved[0][path], moved[1][path], rtol=1e-4, atol=1e-7)
    rate = 0.01  # of the first step
    step = moved[0]["wide/kernel"] + rate * 0.01 * before["wide/kernel"]  # weight decay taken back
    singular = np.linalg.svd(step.reshape(-1, 5), compute_uv=False) / (rate * 0.2 * np.sqrt(54))
    assert 0.6 < singular.min() < singular.max() < 1.3


def test_muon_is_cut_with_the_model(data: Dataset, budget: Budget) -> None:
    recipe = RECIPE.changed(optimizer="muon")
    twice = [methods.ours(dataclasses.replace(job(data, budget), recipe=recipe), cut=cut) for cut in (0, 1)]
    assert twice[0].count_params() == twice[1].count_params() < network().count_params()
    measure(twice[1], data, budget)


def test_splits_are_disjoint(tmp_path: Path) -> None:
    count = np.arange(400)
    names = {"x_train": count, "x_val": count + 1000, "x_test": count + 2000}
    arrays = {name: np.broadcast_to(v[:, None, None], (400, 4, 3)).astype(np.int16) for name, v in names.items()}
    labels = {f"y_{part}": count % 20 for part in ("train", "val", "test")}
    np.savez(tmp_path / "arabic_speech_commands_mfcc.npz", **arrays, **labels)
    own = tasks.load("speech", tmp_path)
    assert own.x_train.shape == (400, 4, 3, 1)
    less = tasks.load("speech", tmp_path, limit=100)
    assert len(less.x_train) == 100
    assert len(less.x_val) == 400  # only the training part is limited
    eleven = tasks.load("speech11", tmp_path)
    assert eleven.classes == 11
    assert np.bincount(eleven.y_train).tolist() == [20] * 11


def test_the_validation_split_is_disjoint_from_the_training_samples(monkeypatch, tmp_path: Path) -> None:
    x = np.arange(300, dtype=np.uint16)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint16)
    arrays = {"x_train": x[:200], "y_train": np.arange(200) % 4, "x_test": x[200:], "y_test": np.arange(100) % 4}
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(lambda _: arrays, RECIPE))
    loaded = tasks.load("tiny", tmp_path)
    parts = [set(np.unique(getattr(loaded, f"x_{part}"))) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [180, 20, 100]
    assert len(parts[0] | parts[1] | parts[2]) == 300
    np.testing.assert_array_equal(tasks.load("tiny", tmp_path).x_val, loaded.x_val)


def test_moved_samples_are_shifted_copies() -> None:
    x = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5, 1).repeat(40, axis=0)
    out = training.moved(x, (1, 2), np.random.default_rng(0))
    padded = np.pad(x[0], ((1, 1), (2, 2), (0, 0)))
    crops = [padded[i : i + 5, j : j + 5] for i in range(3) for j in range(5)]
    assert all(any(np.array_equal(sample, crop) for crop in crops) for sample in out)
    assert training.moved(x, (0, 0), np.random.default_rng(0)) is x


def test_mixed_samples_and_their_labels_have_the_same_part_of_another() -> None:
    x, y = np.zeros((8, 2, 2, 1), np.float32), np.eye(8, dtype=np.float32)
    x += np.arange(8, dtype=np.float32)[:, None, None, None]
    mixed, labels = training.mixed(x, y, 0.3, np.random.default_rng(0))
    assert mixed.dtype == labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed, (labels @ np.arange(8))[:, None, None, None] + 0 * x, rtol=1e-5)
    parts = 1 - labels[np.arange(8), np.arange(8)]
    assert parts.max() < 0.3
    assert (parts > 0).any()
    assert training.mixed(x, y, 0, np.random.default_rng(0))[0] is x


def test_images_are_mirrored_in_every_other_epoch(data: Dataset) -> None:
    recipe = tasks.Recipe(batch_size=64, flip=True)
    batches = training.Batches(data, recipe, 0)
    first, _ = batches[0]
    batches.begin(1)
    second, _ = batches[0]
    both = np.concatenate([first, second])
    for sample in data.x_train:
        assert np.isclose(both, sample).all(axis=(1, 2, 3)).any()
        assert np.isclose(both, sample[:, ::-1]).all(axis=(1, 2, 3)).any()


def test_every_run_has_the_policy_that_was_asked_for(monkeypatch, data: Dataset, tmp_path: Path) -> None:
    def execute(run: grids.Run, _: benchmark.Settings, data: Dataset) -> results.Result:
        return benchmark._key(run, data)

    monkeypatch.setattr(benchmark, "_data", lambda *_: data)
    monkeypatch.setattr(benchmark, "execute", execute)
    settings, path = benchmark.Settings(tmp_path, tmp_path, policy="mixed_bfloat16"), tmp_path / "results.jsonl"
    try:
        benchmark.go(list(grids.runs([grids.Cell("t", "n", "A", "loose", 1)], 2, ["dense"])), settings, path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [result["policy"] for result in results.read(path)] == ["mixed_bfloat16"] * 2


def test_a_stopped_benchmark_goes_on(monkeypatch, data: Dataset, tmp_path: Path) -> None:
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(lambda _: {}, RECIPE))
    monkeypatch.setitem(networks.NETWORKS, "tiny", lambda *_: network())
    monkeypatch.setattr(benchmark, "_data", lambda *_: data)
    done: list[str] = []
    monkeypatch.setattr(benchmark, "parse", lambda name: (done.append(name), methods.parse(name))[1])
    cells = [grids.Cell("tiny", "tiny", "A", "loose", 1), grids.Cell("tiny", "tiny", "B", "loose", 1, 1)]
    todo = list(grids.runs(cells, 1, ["dense", "ours"]))
    settings, path = benchmark.Settings(tmp_path, tmp_path / "cache", jit=False), tmp_path / "results.jsonl"
    benchmark.go(todo[:1], settings, path)
    assert done == ["dense"]
    benchmark.go(todo, settings, path)
    assert done == ["dense", "ours", "dense", "ours"]
    benchmark.go(todo, settings, path)
    assert len(done) == len(results.read(path)) == 4
    assert len({results.key(result) for result in results.read(path)}) == 4
    path.write_text(path.read_text() + '{"task": "ti')
    with pytest.raises(ValueError, match="line 5"):
        results.read(path)


def test_recipe_of_a_method_is_that_of_its_training_alone(monkeypatch, data: Dataset, tmp_path: Path) -> None:
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(lambda _: {}, RECIPE))
    monkeypatch.setitem(networks.NETWORKS, "tiny", lambda *_: network())
    told: list[tuple[str, tasks.Recipe]] = []
    backend = keras.config.backend()
    train, measured = methods.Job.train, dict.fromkeys(("int8", "val"), 0.5)
    monkeypatch.setattr(benchmark, "measure", lambda *_: measured)
    monkeypatch.setattr(methods.Job, "train", lambda self, *args, **options: (
        told.append((self.backup.name, self.recipe)),
        train(self, *args, **options))[1])  # fmt: skip
    settings = benchmark.Settings(tmp_path, tmp_path / "cache", jit=False, unfinished=tmp_path / "unfinished")
    cell = grids.Cell("tiny", "tiny", "B", "loose", 1, 1)
    benchmark.execute(grids.Run(cell, "uniform:rate=2", 0), settings, data)
    assert benchmark.execute(grids.Run(cell, "dense_extra:rate=2", 0), settings, data)["level"] == "none"
    benchmark.execute(
        grids.Run(cell, "uniform:rate=2+given=4+smoothing=0.3+batch_size=8+optimizer=muon", 0), settings, data
    )
    other = dataclasses.replace(
        RECIPE, learning_rate=2 * RECIPE.learning_rate, smoothing=0.3, batch_size=8, optimizer="muon"
    )
    names, recipes = zip(*told, strict=True)
    given, at_4 = names[0], names[3]
    assert all(re.fullmatch(f"tiny-tiny-1-64-0-float32-{backend}-[0-9a-f]{{8}}", name) for name in (given, at_4))
    assert given != at_4  # the recipe is in the name: a network trained by another one does not stand in
    assert list(zip(names, recipes, strict=True)) == [
        (given, RECIPE),
        ("tiny-tiny-B-loose-1+1-64-float32-uniform:rate=2-0", RECIPE.at_rate(2)),
        ("tiny-tiny-B-none-1+1-64-float32-dense_extra:rate=2-0", RECIPE.at_rate(2)),
        (at_4, RECIPE.at_rate(4).changed(optimizer="muon")),
        ("tiny-tiny-B-loose-1+1-64-float32-uniform:rate=2+given=4+smoothing=0.3+batch_size=8+optimizer=muon-0", other),
    ]
    with pytest.raises(ValueError, match="no given="):
        benchmark.execute(grids.Run(grids.Cell("tiny", "tiny", "A", "loose", 1), "ours:given=4", 0), settings, data)


def test_a_row_names_its_commit(monkeypatch, data: Dataset, tmp_path: Path) -> None:
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("needs a git checkout")
    monkeypatch.setitem(tasks.TASKS, "tiny", tasks.Task(lambda _: {}, RECIPE))
    monkeypatch.setitem(networks.NETWORKS, "tiny", lambda *_: network())
    monkeypatch.setattr(benchmark, "measure", lambda *_: {})
    run = grids.Run(grids.Cell("tiny", "tiny", "A", "loose", 1), "dense", 0)
    told = benchmark.execute(run, benchmark.Settings(tmp_path, tmp_path), data)["commit"]
    assert git.stdout.startswith(told.removesuffix("-dirty"))


def test_no_method_has_an_option_that_those_of_all_would_hide() -> None:
    for method in methods.METHODS.values():
        assert not set(results.TRAINING) & inspect.signature(method).parameters.keys()


def test_summary_and_picture_take_the_training_that_did_best_on_val() -> None:
    limits = [{**run, "level": "flash=1000", "val": 0.5} for run in _synthetic() if run["level"] == "tight"]
    better = [
        {**run, "method": "uniform:rate=2", "val": 0.6, "int8": 0.123} for run in limits if run["method"] == "uniform"
    ]
    header, _, *_, row = results.summary([*limits, *better]).splitlines()
    assert dict(zip(header.split(" | "), row.split(" | "), strict=True))["thinner, from scratch"] == "12.3 ± 0.0"
    (cell,) = compared([*limits, *better]).values()
    assert {run["method"]: run["int8"] for run in cell["uniform"]} == {"uniform:rate=2": 0.123}
    assert [results.without_training(m) for m in ("ours", "ours:given=4+rate=2", "ours:cut=1+end=0.3")] == [
        "ours",
        "ours",
        "ours:end=0.3",
    ]


@pytest.mark.parametrize("name", ["dense", "uniform", "ours"])  # cuts, which go by the clock: test_resume.py
def test_a_training_stopped_in_its_middle_goes_on(
    name: str, data: Dataset, budget: Budget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    method, options = methods.parse(name)
    begun: list[tuple[int, list[Any]]] = []  # epochs, with all that the training had learned

    class Stops(training.Clock):
        def on_epoch_begin(self, epoch: int, logs=None) -> None:
            state = [*self.model.variables, *self.model.optimizer.variables]
            begun.append((epoch, [np.asarray(variable) for variable in state]))
            if [epoch for epoch, _ in begun] == [0, 1, 2]:
                raise KeyboardInterrupt

    feed, fed = training.Batches.begin, []
    monkeypatch.setattr(training, "Clock", Stops)
    monkeypatch.setattr(training.Batches, "begin", lambda self, epoch: (fed.append(epoch), feed(self, epoch))[1])
    stopped = {"epochs": 5, "backup": tmp_path / "backup"}
    with pytest.raises(KeyboardInterrupt):
        method(job(data, budget, **stopped), **options)
    assert training.spent(tmp_path / "backup") > 0
    again = method(job(data, budget, **stopped), **options)
    assert [epoch for epoch, _ in begun] == [0, 1, 2, 2, 3, 4]
    assert fed[-3:] == [2, 3, 4]
    for before, after in zip(begun[2][1], begun[3][1], strict=True):
        np.testing.assert_array_equal(before, after)
    assert not (tmp_path / "backup").exists()
    if name != "dense":
        measure(again, data, budget)  # requires the budget


def test_the_seconds_of_a_training_are_those_of_all_its_lives(tmp_path: Path) -> None:
    assert training.spent(None) == training.spent(tmp_path) == 0
    (tmp_path / "seconds").write_text("1000.5")
    training.Clock(tmp_path).on_epoch_end(3)
    assert 1000.5 < training.spent(tmp_path) < 1100


def _synthetic() -> list[results.Result]:
    rng, found = np.random.default_rng(0), []
    for method in ("dense", "ours", "uniform", "cubic_l2"):
        for level, cut in (("loose", 0.5), ("tight", 0.2)):
            for seed in range(3):
                dense = method == "dense"
                level_, cost = ("none", 1.0) if dense else (level, cut)
                found.append({
                    "task": "t", "network": "n", "scenario": "A", "level": level_, "method": method, "seed": seed,
                    "epochs": "6", "samples": 100, "policy": "float32", "engine": "tflm",
                    "budget": {} if dense else {"flash": 1000},
                    **{k: 0.9 * cost**0.1 + 0.01 * rng.random() for k in ("int8", "val", "test")},
                    "arena": int(9000 * cost), "flash": int(40000 * cost), "macs": int(5e6 * cost),
                    "widths": [4, 10], "seconds": 10.0,
                })  # fmt: skip
    return found


def test_table_and_picture_are_made_of_the_results(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(result) + "\n" for result in _synthetic()))
    benchmark.report(path)
    table = path.with_name("table.md").read_text()
    assert table.count("###") == 2
    assert table.index("| dense |") < table.index("| ours |")  # the best first
    assert "Budget: flash 1,000." in table
    limits = [{**run, "level": "flash=1000"} for run in _synthetic() if run["level"] == "tight"]
    summary = results.summary([*results.read(path), *limits]).splitlines()
    assert [row.count("|") for row in summary] == [len(results.COMPARED) + 4] * 5
    assert [row.split(" | ")[2] for row in summary[2:]] == ["1.0 KiB", "loose: 1.0 KiB", "tight: 1.0 KiB"]
    assert "A, 6, mixed_bfloat16" in results.summary([{**run, "policy": "mixed_bfloat16"} for run in limits])
    assert len(results.points(limits).splitlines()) == 2
    assert len(results.parts(limits).splitlines()) == 2  # nothing but ours itself
    others = [{**run, "method": "random"} for run in limits if run["method"] == "ours"]
    header, _, row = results.parts([*limits, *others]).splitlines()
    assert header.split(" | ")[-1].startswith("random channels")
    assert row.split(" | ")[3] == row.split(" | ")[-1].rstrip(" |") != ""
    lone = [{**run, "method": "ours:begin=0.2+cut=1"} for run in limits if run["method"] == "ours"]
    others = [{**lone[0], "method": "ours:end=0.3", "val": 1.0}, *(run for run in limits if run["method"] == "dense")]
    _, _, row = results.points([*lone, *others]).splitlines()
    assert row.strip("| ").split(" | ")[-3:] == ["1.8 KiB, 7.8 KiB, 1,000 k", "`ours:begin=0.2+cut=1`", "3"]
    assert path.with_name("pareto.png").stat().st_size > 10_000
    axes = pareto(results.read(path)).axes
    assert [ax.get_xlabel() for ax in axes] == ["arena, KiB", "flash, KiB", "MACs, thousands"]
    with pytest.raises(ValueError, match="Received: none"):
        pareto([])


def test_the_table_of_the_readme_is_that_of_the_results() -> None:
    root = Path(benchmark.__file__).parent
    readme = (root.parent / "README.md").read_text()
    found = results.read(root / "benchmark_results" / "results.jsonl")
    assert between(readme, "benchmark", results.summary(found)) == readme
    assert between(readme, "benchmark parts", results.parts(found)) == readme
    assert between(readme, "benchmark points", results.points(found)) == readme
    assert (root / "benchmark_results" / "table.md").read_text() == results.markdown(found)


def test_the_picture_leaves_variants_and_lone_runs_to_the_table(tmp_path: Path) -> None:
    found = _synthetic()
    alone = [{**result, "task": "alone"} for result in found if result["method"] in ("dense", "ours")]
    variants = [{**result, "method": "ours:end=0.2"} for result in found if result["method"] == "ours"]
    figure = pareto([*found, *alone, *variants])
    assert len(figure.axes) == 3  # the row of task "t"
    assert figure.axes[0].get_legend_handles_labels()[1] == ["ours", "uniform", "cubic_l2", "dense"]
    assert results.markdown([*found, *alone, *variants]).count("| ours:end=0.2 |") == 2
    with pytest.raises(ValueError, match="at least two methods"):
        pareto(alone)
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(result) + "\n" for result in alone))
    benchmark.report(path)
    assert "| ours |" in path.with_name("table.md").read_text()
    assert not path.with_name("pareto.png").exists()


def test_another_dtype_policy_is_another_cell() -> None:
    found = _synthetic()
    half = [{**result, "policy": "mixed_bfloat16"} for result in found if result["level"] == "tight"]
    table = results.markdown([*found, *half])
    assert [line for line in table.splitlines() if line.startswith("###")] == [
        "### t, n, scenario A, loose: 6 epochs of 100 samples",
        "### t, n, scenario A, tight: 6 epochs of 100 samples",
        "### t, n, scenario A, tight: 6 epochs of 100 samples, mixed_bfloat16",
    ]
    assert table.count("| dense |") == 2, "the dense runs in float32 are no reference for the others"
    assert not {results.key(result) for result in found} & {results.key(result) for result in half}


def test_pieces_make_the_whole_grid() -> None:
    whole = list(grids.runs(*grids.GRIDS["small"]))
    pieces = [grids.piece(whole, k, 7) for k in range(1, 8)]
    assert [run for part in pieces for run in part] == whole
    with pytest.raises(ValueError, match="0/7"):
        grids.piece(whole, 0, 7)


def test_a_wrong_method_is_told() -> None:
    with pytest.raises(ValueError, match="'magic'"):
        methods.parse("magic:strength=1")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
@pytest.mark.parametrize("channels", [16, 5])
def test_batch_normalization_by_one_kernel_is_that_of_keras(channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    y = np.eye(2, dtype=np.float32)[np.arange(64) % 2]

    def trained(context: Any) -> list[Any]:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8, 8, 3))
        inner = keras.layers.Conv2D(channels, 3, dtype="mixed_bfloat16")(inputs)
        inner = keras.layers.BatchNormalization(momentum=0.5, dtype="mixed_bfloat16")(inner)
        inner = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(inner))
        model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inner))
        model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", jit_compile=False)
        with context, mock.patch("bench.normalization._normalized", wraps=normalization._normalized) as kernel:
            model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
            predicted = model.predict(x, verbose=0)
        assert [len(call.args) for call in kernel.call_args_list] == ([2, 4] if context is fast else [])
        return [*model.get_weights(), predicted]

    fast = normalization.one_kernel()
    for ours, of_keras in zip(trained(fast), trained(contextlib.nullcontext()), strict=True):
        np.testing.assert_allclose(ours, of_keras, rtol=0.02, atol=0.01)
    assert keras.layers.BatchNormalization.call is normalization._plain


def test_the_time_of_a_step_is_told_over_as_many_steps_as_asked_for() -> None:
    model, rng = network(), np.random.default_rng(0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    batches = timing.Repeated(rng.random((4, 8, 8, 3)).astype(np.float32), np.arange(4) % 3, 5)
    with mock.patch("bench.timing.time") as clock:
        clock.perf_counter.side_effect = [1.0, 3.0, 4.0, 6.0, 9.0]
        assert timing.step_seconds(model, batches) == 2.0  # the first step, which traces, is not counted
    assert int(model.optimizer.iterations) == 5
