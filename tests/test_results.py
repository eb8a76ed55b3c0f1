from __future__ import annotations

import json

import pytest

from tfmcu_prune import results
from tfmcu_prune.budget import Budget
from tfmcu_prune.plots import Bars, comparison


@pytest.fixture
def found():
    dense = results.Network(
        0.98, 0.9775, 40_960, 163_840, 3_000_000, 140_000, 12, 60.04, Bars({"conv": 32}, [("CONV_2D", 2048)], 900)
    )
    pruned = results.Network(
        0.97, 0.965, 8_192, 20_480, 300_000, 14_000, 12, 70.0, Bars({"conv": 8}, [("CONV_2D", 512)], 700)
    )
    samples = {"train": 3600, "val": 400, "test": 1000}
    return results.Report("net", "digits", samples, 3, Budget(arena="8KiB", macs="600k"), dense, pruned)


def test_json_has_what_scripts_rely_on(found):
    value = json.loads(results.as_json(found))
    assert value["accuracy_dense"] == 0.98
    assert value["accuracy_pruned"] == 0.97
    assert value["accuracy_int8_tflm"] == 0.965
    assert value["budget"] == {"arena": 8192, "flash": None, "macs": 600_000}
    assert {k: value["dense"][k] for k in ("arena", "flash", "macs", "params")} == {
        "arena": 40_960, "flash": 163_840, "macs": 3_000_000, "params": 140_000,
    }  # fmt: skip
    assert value["pruned"]["channels"] == {"conv": 8}
    assert (value["seconds_dense"], value["seconds_pruned"]) == (60.0, 70.0)
    assert (value["dataset"], value["seed"]) == ("digits", 3)
    assert value["cut"] == {"arena": 5.0, "flash": 8.0, "macs": 10.0, "params": 10.0}


@pytest.mark.parametrize("show", [results.as_table, results.as_markdown])
def test_people_see_before_and_after(found, show):
    text = show(found)
    for shown in ("98.00%", "96.50%", "40.0", "8.0", "5.0x", "3,000.0", "600.0", "14,000", "conv", "32"):
        assert shown in text


def test_markdown_shows_the_picture_if_there_is_one(found):
    assert "](picture.png)" in results.as_markdown(found, picture="picture.png")
    assert "![" not in results.as_markdown(found)


def test_the_table_of_a_readme_is_renewed(found):
    text = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"
    new = results.inserted(text, found)
    assert new.startswith("before\n<!-- results -->\n")
    assert new.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in new
    assert "| arena, KiB | 40.0 | 8.0 | 5.0x | 8.0 |" in new
    assert results.inserted(new, found) == new


def test_a_readme_without_markers_is_an_error(found):
    with pytest.raises(ValueError, match="<!-- results -->"):
        results.inserted("text", found)


def test_the_picture_has_a_bar_a_layer_and_the_budget_as_a_line(found, tmp_path):
    figure = comparison(found.dense.bars, found.pruned.bars, arena=8192)
    channels, memory = figure.axes
    assert [bar.get_width() for bar in channels.patches] == [32, 8]
    assert [bar.get_height() for bar in memory.patches] == [(2048 + 900) / 1024, 512 / 1024, 700 / 1024]
    assert [line.get_ydata()[0] for line in memory.lines] == [8]
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_no_line_without_an_arena_in_the_budget(found):
    assert not comparison(found.dense.bars, found.pruned.bars).axes[1].lines
