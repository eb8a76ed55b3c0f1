from __future__ import annotations

import json
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfmcu_prune
from tfmcu_prune import Budget, cli
from tfmcu_prune.allocation import allocate, shadow_prices
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gating import channels_of
from tfmcu_prune.reporting import charts

TITLE = "<script>alert('a|b')</script>"
BUDGET = Budget(arena="10KiB", flash="16KiB", macs="480k")


@pytest.fixture(scope="module")
def dense():
    """Two convolutions tied by an addition, then one with channels of its own."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2), name="image")
    x = keras.layers.Conv2D(40, 3, padding="same", activation="relu", name="stem")(inputs)
    y = keras.layers.Conv2D(40, 3, padding="same", name="branch")(x)
    x = keras.layers.ReLU(name="sum")(keras.layers.Add()([x, y]))
    x = keras.layers.Conv2D(48, 1, activation="relu", name="wide")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 32)


@pytest.fixture(scope="module")
def gated(dense, data):
    gated = tfmcu_prune.prunable(dense, BUDGET)
    gated.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = gated.fit(*data, epochs=3, batch_size=8, verbose=0, callbacks=[tfmcu_prune.PruneCallback()])
    return gated, history


@pytest.fixture(scope="module")
def found(gated, dense, data):
    model, history = gated
    return tfmcu_prune.report(model, data[0], history=history, dense=dense, test=data, title=TITLE)


def test_costs_are_those_of_the_converted_files(found, gated, dense, data):
    small = tfmcu_prune.strip(gated[0])
    for side, model in ((found.facts.before, dense), (found.facts.after, small)):
        fp = tfmcu_prune.footprint(tfmcu_prune.convert(model, calibration=data[0]))
        assert side.footprint.resources == fp.resources
        assert side.params == model.count_params()
        assert side.accuracy == np.mean(model.predict(data[0], verbose=0).argmax(-1) == data[1])
    found.facts.after.footprint.require(BUDGET)


def test_kept_channels_are_those_of_the_stripped_model(found, gated, dense):
    small = tfmcu_prune.strip(gated[0])
    for name, before, after in found.facts.kept:
        assert (before, after) == tuple(model.get_layer(name).output.shape[-1] for model in (dense, small))
    assert [name for name, *_ in found.facts.kept] == ["stem", "branch", "wide", "head"]


def test_the_layers_sum_up_to_the_whole(found):
    for i, side in enumerate((found.facts.before, found.facts.after)):
        assert sum(layer.macs[i] for layer in found.facts.layers) == side.footprint.macs
        weights = sum(operator.weights for operator in side.footprint.operators)
        assert [side.layers[i] for i in (0, -1)] == ["stem", "head"]
        assert sum(layer.weights[i] for layer in found.facts.layers) == weights


def test_what_holds_the_peak_is_what_is_alive_there(found):
    why, fp = found.facts.why, found.facts.after.footprint
    assert sum(holder.bytes for holder in why.holders) + why.scratch == fp.operators[fp.peak.operator].live
    coupled = {holder.layer: holder.coupled for holder in why.holders}
    assert "branch" in coupled.get("stem", ("branch",))
    assert any("softmax" in reason or "output" in reason for _, _, reason in why.fixed)
    assert why.measured == {"arena": fp.arena, "flash": fp.flash, "macs": fp.macs}
    assert all(why.least[name] <= why.predicted[name] for name in why.least)
    assert why.predicted["macs"] == fp.macs


def test_what_binds_would_keep_more_channels(found):
    binding = [bound for bound in found.facts.bounds if bound.price > 0]
    assert binding
    assert all(bound.more >= 0 for bound in found.facts.bounds)
    assert max(bound.more for bound in binding) > 0
    assert not any(bound.over for bound in found.facts.bounds)


def test_prices_are_in_the_history(gated):
    _, history = gated
    assert all(len(history.history[f"price_{name}"]) == 3 for name in BUDGET.limits())
    assert history.history["price_macs"][-1] >= 0


@pytest.mark.parametrize("resource", ["arena", "macs"])
def test_a_shadow_price_is_the_slope_of_the_utility(dense, resource):
    model = resource_model(channels_of(tfmcu_prune.prunable(dense)))
    limit = {"arena": 8000, "macs": 400_000}[resource]

    def utility(factor):
        sizes = allocate(model, Budget(**{resource: int(limit * factor)}))
        return sum(group.depth * (1 - group.width / size) for group, size in zip(model.groups, sizes, strict=True))

    budget = Budget(**{resource: limit})
    price = shadow_prices(model, budget, allocate(model, budget))[resource]
    assert price == pytest.approx((utility(1.2) - utility(0.8)) / 0.4, rel=0.5)


def test_budgets_that_do_not_bind_are_worth_nothing(dense):
    model = resource_model(channels_of(tfmcu_prune.prunable(dense)))
    budget = Budget(macs="400k", flash="1MiB")
    assert shadow_prices(model, budget, allocate(model, budget))["flash"] == 0
    assert shadow_prices(model, Budget(macs="1G"), model.full()) == {"macs": 0.0}


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(found):
    page = _Page()
    page.feed(found.html)
    assert not page.open
    assert not page.links
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert "&lt;script&gt;" in found.html
    for heading in ("Channels kept a layer", "Memory over the operators", "Why does it not get smaller?"):
        assert heading in found.html
        assert f"## {heading}" in found.markdown


def test_markdown_tables_are_whole(found):
    assert "<script>" not in found.markdown
    lines = found.markdown.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            columns = line.count("|")
            assert lines[number - 1].count("|") == columns
            assert lines[number + 1].replace("\\|", "").count("|") == columns


def test_without_budget_history_and_test(dense, data):
    found = tfmcu_prune.report(tfmcu_prune.prunable(dense), data[0])
    assert not found.facts.bounds
    assert found.facts.before.footprint.macs == found.facts.after.footprint.macs
    assert "Training" not in found.html
    assert "What binds" not in found.markdown


def test_only_gated_models_are_reported(dense, data):
    with pytest.raises(ValueError, match="Expected a gated model"):
        tfmcu_prune.report(dense, data[0])


def test_labels_of_another_kind_are_told(gated, data):
    with pytest.raises(ValueError, match=r"y as class numbers of shape \(samples,\)"):
        tfmcu_prune.report(gated[0], data[0], test=(data[0], np.eye(3)[data[1]]))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_hold_the_values(low, span):
    ticks = charts._ticks(low, low + span)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span - 1e-6 * span


def test_one_epoch_and_a_constant_can_be_drawn():
    chart = charts.lines("a <b>", [("x", [0.0]), ("y", [0.0])], "{:.1f}".format)
    assert "nan" not in chart.svg
    assert "a &lt;b&gt;" in chart.svg
    assert [last for *_, last in chart.legend] == ["0.0", "0.0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, gated, dense, data):
    folder = tmp_path_factory.mktemp("report")
    gated[0].save(folder / "gated.keras")
    dense.save(folder / "dense.keras")
    np.save(folder / "samples.npy", data[0])
    np.savez(folder / "test.npz", x=data[0], y=data[1])
    (folder / "history.json").write_text(json.dumps(gated[1].history))
    rows = zip(*gated[1].history.values(), strict=True)
    table = [",".join(gated[1].history), *(",".join(map(str, row)) for row in rows)]
    (folder / "history.csv").write_text("\n".join(table) + "\n")
    (folder / "wrong.json").write_text('{"loss": "low"}')
    return folder


@pytest.mark.parametrize("history", ["history.json", "history.csv"])
def test_the_command_writes_both_files(files, found, tmp_path, history):
    given = {"dense": "dense.keras", "test": "test.npz", "history": history, "calibration": "samples.npy"}
    options = [word for name, file in given.items() for word in (f"--{name}", str(files / file))]
    command = ["report", str(files / "gated.keras"), *options, "--title", TITLE, "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert (tmp_path / "out" / "report.html").read_text() == found.html
    assert (tmp_path / "out" / "report.md").read_text() == found.markdown


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "dense.keras"}, "Expected a gated model"),
        ({"model": "none.keras"}, "No such file"),
        ({"history": "wrong.json"}, "Expected the history of a training"),
        ({"test": "none.npz"}, "No such file"),
        ({"calibration": "history.json"}, "Expected a .npz file"),
    ],
)
def test_wrong_input_leaves_no_file(files, tmp_path, capsys, changed, message):
    given = {"model": "gated.keras", "calibration": "samples.npy", **changed}
    options = [word for name, file in given.items() if name != "model" for word in (f"--{name}", str(files / file))]
    assert cli.main(["report", str(files / given["model"]), *options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
