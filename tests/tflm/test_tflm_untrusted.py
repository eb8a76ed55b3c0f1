"""What comes out of a hostile .tflite: an answer or InvalidModel, and nothing that C++, JSON or a terminal obeys."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflm_build import Graph, Tensor, build

from tfmcu_prune.cli import main
from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.firmware.projects import ECOSYSTEMS, project_files
from tfmcu_prune.firmware.sources import file_names, model_files
from tfmcu_prune.tflm.footprint import footprint

SEEDS = sorted((Path(__file__).parents[1] / "seeds").glob("*.tflite"))
PLAIN = build(
    Graph(
        [Tensor((1, 8, 8, 4), name="in"), Tensor((4, 1, 1, 4), data=bytes(16), scales=4), Tensor((1, 8, 8, 4))],
        [("CONV_2D", [0, 1], [2])],
        outputs=[2],
    )
)
TEXT = st.text(max_size=40)
EVIL = '\x1b[2J"; system("x"); //*/\n#include </etc/passwd>\n{{ 7 * 7 }}${IFS}\u202e<script>\''


def _answer(data: bytes) -> dict[str, bytes]:
    """The files of a model, all of them, or none where it is refused; anything else is a mistake of ours."""
    try:
        files = model_files(data, "model")
    except InvalidModel:
        return {}
    assert set(files) == set(file_names("model"))
    return files


def _named(text: str) -> bytes:
    """A model with a text wherever a file can have one."""
    tensors = [Tensor((1, 64), name=text), Tensor((1, 64), name=text)]
    return build(Graph(tensors, [("RELU", [0], [1])], outputs=[1], metadata={text: b""}))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_identifier(data: bytes) -> None:
    for behind in (data, data[:4].ljust(4, b"\0") + b"TFL3" + data):
        assert all(_answer(behind).values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_bytes_changed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PLAIN)
    for place, value in changes:
        data[place] = value
    assert all(_answer(bytes(data)).values())


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_what_the_fuzzer_has_found(path: Path) -> None:
    assert all(_answer(path.read_bytes()).values())


@settings(max_examples=30, deadline=None)
@given(TEXT)
def test_no_text_of_a_file_reaches_sources(text: str) -> None:
    sources = {
        name: content for name, content in model_files(_named(text), "model").items() if name.endswith((".h", ".cc"))
    }
    same = model_files(_named("x" * len(text.encode())), "model")
    assert {name for name, content in sources.items() if content != same[name]} <= {"model.h", "model.cc"}
    for name in ("model.h", "model.cc"):  # these hold the bytes themselves
        plain = [re.sub(rb"0x[0-9a-f]{2}|[0-9a-f]{64}|\b\d+\b", b"", one[name]) for one in (sources, same)]
        assert plain[0].split() == plain[1].split()


@settings(max_examples=50, deadline=None)
@given(TEXT, st.lists(TEXT, min_size=64, max_size=64))
def test_the_card_is_json_whatever_the_names(text: str, labels: list[str]) -> None:
    content = model_files(_named(text), text, labels=labels)["model.json"]
    card = json.loads(content)
    assert content.isascii()
    assert card["labels"] == labels
    assert card["inputs"][0]["name"] == text


@pytest.mark.parametrize("ecosystem", ECOSYSTEMS)
def test_applications_hold_no_text_of_the_file(ecosystem: str) -> None:
    pytest.importorskip("tflite_micro", reason="pip install --pre tflite-micro")
    for file, content in project_files(_named(EVIL), EVIL, ecosystem).items():
        assert re.fullmatch(r"(src/|main/)?[A-Za-z0-9_.]+", file)
        assert ".." not in file
        if file != "model.json":
            assert not re.search(
                rb"system\(|</etc|<script|\{\{|\$\{IFS|49|\x1b", re.sub(rb"\{[^{}]*\}|0x..", b"", content)
            )


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    data = build(Graph([Tensor((1, 8), scale=scale), Tensor((1, 8))], [("RELU", [0], [1])], outputs=[1]))
    with pytest.raises(InvalidModel, match="finite"):
        model_files(data, "model")
    with pytest.raises(InvalidModel, match="finite"):
        project_files(data, "model", "cmake")


def test_an_input_that_no_device_holds_is_refused() -> None:
    data = build(Graph([Tensor((1, 2**30)), Tensor((1, 2**30))], [("RELU", [0], [1])], outputs=[1]))
    with pytest.raises(InvalidModel, match="at most 4,194,304 values"):
        project_files(data, "model", "cmake")


def test_a_custom_operator_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(build(Graph([Tensor((1, 8))] * 2, [(f"CUSTOM:{EVIL}", [0], [1])], outputs=[1])))
    assert "CUSTOM:\\x1b[2J" in footprint(path).operators[0].name
    for arguments in (["estimate"], ["estimate", "--require", "arena=1B"], ["boards"]):
        main([arguments[0], str(path), *arguments[1:]])
    main(["convert", str(path), "--output", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", captured.out + captured.err)
    assert not (tmp_path / "out").exists()
