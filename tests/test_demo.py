from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import Budget, datasets, demo, zoo


def _network(input_shape, classes):
    return zoo.vgg_small(input_shape, classes, widths=(8, 8, 16, 16, 16))


@pytest.fixture(scope="module")
def job():
    data = datasets.load("digits", limit=400)
    data = dataclasses.replace(data, x_test=data.x_test[:100], y_test=data.y_test[:100])
    return demo.Job(data, _network, Budget(arena="6KiB", macs="60k"), epochs=3, shift=0.1, verbose=0)


def test_the_figures_are_those_of_the_networks(job):
    lines = []
    outcome = demo.run(job, tell=lines.append)
    found, fp = outcome.report, tfmcu_prune.footprint(outcome.tflite)
    fp.require(job.budget)
    assert [line[:3] for line in lines] == ["1/3", "2/3", "3/3"]
    assert (found.pruned.arena, found.pruned.flash, found.pruned.macs) == (fp.arena, fp.flash, fp.macs)
    assert found.dense.params == outcome.dense.count_params() > found.pruned.params == outcome.pruned.count_params()
    predicted = outcome.dense.predict(job.data.x_test, verbose=0).argmax(axis=-1)
    assert found.dense.accuracy == np.mean(predicted == job.data.y_test)
    assert found.pruned.bars.channels["classifier"] == 10
    assert sum(found.pruned.bars.channels.values()) < sum(found.dense.bars.channels.values())
    assert (found.dense.epochs, found.samples["test"]) == (3, 100)


def test_a_budget_out_of_reach_is_told_before_any_training(job):
    lines = []
    with pytest.raises(tfmcu_prune.BudgetError):
        demo.run(dataclasses.replace(job, budget=Budget(arena="1KiB")), tell=lines.append)
    assert not lines


def test_every_sample_comes_once_an_epoch_in_a_new_order(job):
    batches = demo._Shifted(dataclasses.replace(job, shift=0.0))
    epochs = []
    for _ in range(2):
        parts = [batches[i] for i in range(len(batches))]
        epochs.append((np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])))
        batches.on_epoch_end()
    for x, y in epochs:
        assert sorted(y) == sorted(job.data.y_train)
        np.testing.assert_allclose(
            np.sort(x.sum(axis=(1, 2, 3))), np.sort(job.data.x_train.sum(axis=(1, 2, 3))), rtol=1e-5
        )
    assert not np.array_equal(epochs[0][1], epochs[1][1])


def test_shifted_images_keep_their_shape_and_move(job):
    x, y = demo._Shifted(job)[0]
    assert x.shape == (job.batch_size, *job.data.input_shape)
    assert y.shape == (job.batch_size,)
    still, _ = demo._Shifted(dataclasses.replace(job, shift=0.0))[0]
    assert np.abs(np.asarray(x) - np.asarray(still)).max() > 0.1
