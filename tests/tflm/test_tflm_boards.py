"""The table of boards, and the commands that print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tflm_build import Graph, Tensor, build

from tfmcu_prune import boards, cli
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.tflm import latency
from tfmcu_prune.tflm.targets import TARGETS


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "model.tflite"
    file.write_bytes(build(Graph([Tensor((1, 64)), Tensor((1, 64))], [("RELU", [0], [1])], outputs=[1])))
    return str(file)


def call(*words: str) -> int:
    return cli.main(list(words))


def test_every_board_is_complete() -> None:
    assert len({board.name for board in boards.BOARDS}) == len(boards.BOARDS) >= 14
    for board in boards.BOARDS:
        assert board.core in TARGETS
        assert board.source
        assert board.sram
        assert board.flash
        assert board.clock_hz
        assert boards.find(board.name.upper()) is board


def test_find_and_free() -> None:
    board = boards.find("Nano 33 BLE")
    assert (board.sram, board.flash) == (256 * 1024, 1024 * 1024)
    assert boards.free(board, reserve_sram=1024) == (255 * 1024, 1024 * 1024)
    with pytest.raises(ValueError, match=r"must be one of nano33ble, .* Received: 'toaster'"):
        boards.find("toaster")
    with pytest.raises(BudgetError, match="reserve of SRAM must be from 0 to below the 262,144"):
        boards.free(board, reserve_sram=262144)


def test_latency_is_a_range_that_scales() -> None:
    best, worst = latency.latency(boards.find("pico2"), 1_000_000)
    assert 0 < best < worst
    assert latency.latency(boards.find("pico2"), 2_000_000) == (2 * best, 2 * worst)
    assert latency.latency(boards.find("pico2"), 1_000_000, "reference")[0] > best


def test_estimate(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimate", path) == 0
    assert "cortex-m4, cmsis-nn kernels" in capsys.readouterr().out
    assert call("estimate", path, "--json", "--target", "esp32") == 0
    assert json.loads(capsys.readouterr().out)["kernels"] == "reference"


def test_estimate_requires(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimate", path, "--require", "arena=64KiB,flash=1MiB") == 0
    assert call("estimate", path, "--require", "arena=100") == 1
    assert "arena exceeds its budget" in capsys.readouterr().err
    assert call("estimate", path, "--require", "ram=3") == 2
    assert "must be a list such as" in capsys.readouterr().err


def test_estimate_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimate", str(tmp_path / "none.tflite")) == 2
    (tmp_path / "bad.tflite").write_bytes(b"bad")
    assert call("estimate", str(tmp_path / "bad.tflite")) == 2
    assert "must hold 'TFL3'" in capsys.readouterr().err


def test_estimate_plots(path: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert call("estimate", path, "--plot", str(tmp_path / "memory.svg")) == 0
    assert (tmp_path / "memory.svg").read_text().startswith("<?xml")


def test_boards(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("boards", path) == 0
    text = capsys.readouterr().out
    assert all(board.title in text and board.source in text for board in boards.BOARDS)
    assert call("boards", path, "--json", "--reserve-sram", "100KiB") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["board"] for row in rows if not row["fits"]] == []
    assert call("boards", path, "--json", "--reserve-sram", "128KiB") == 0  # all that the smallest has
    assert [row["board"] for row in json.loads(capsys.readouterr().out) if row["sram_left"] < 0] == ["stm32f446"]
    assert call("boards", path, "--reserve-sram", "9MiB") == 1
    assert call("boards", path, "--reserve-sram=-1") == 2
