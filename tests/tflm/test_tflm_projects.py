"""Generated applications: what they hold, what compilers and the self-test say, and that names stay harmless."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_tflm_firmware import NASTY
from tflm_build import FLOAT, Graph, Tensor, build
from tflm_compilers import check_against_stubs, compile_for_arm, run_on_this_machine

from tfmcu_prune import cli
from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.firmware.projects import ECOSYSTEMS, project_files
from tfmcu_prune.tflm import runtime
from tfmcu_prune.tflm.footprint import footprint

pytest.importorskip("tflite_micro", reason="the recorded output is computed by the package tflite-micro")

NEEDS_TFLM = "inference"  # the one source that does


@pytest.fixture(scope="module")
def data() -> bytes:
    """Two inputs and two outputs."""
    tensors = [Tensor((1, 6)) for _ in range(4)]
    return build(Graph(tensors, [("ADD", [0, 1], [2]), ("RELU", [2], [3])], inputs=[0, 1], outputs=[2, 3]))


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


@pytest.mark.parametrize("ecosystem", ECOSYSTEMS)
def test_every_source_compiles(ecosystem: str, data: bytes, tmp_path: Path) -> None:
    paths = _write(tmp_path, project_files(data, "kws", ecosystem))
    sources = [path for path in paths if path.suffix in (".cc", ".cpp")]
    assert len(sources) == (4 if ecosystem == "arduino" else 5)
    for source in sources:
        if source.stem == NEEDS_TFLM:
            check_against_stubs(source)
        else:
            compile_for_arm(source, tmp_path / f"{source.stem}.o")
    if ecosystem == "arduino":
        check_against_stubs(tmp_path / "kws.ino")


@pytest.mark.parametrize("ecosystem", ECOSYSTEMS)
@pytest.mark.parametrize("name", NASTY)
def test_names_stay_harmless(ecosystem: str, name: str, data: bytes) -> None:
    for file, content in project_files(data, name, ecosystem).items():
        assert re.fullmatch(r"((src|main)/)?[A-Za-z0-9_.]+", file)
        assert ".." not in file
        assert b"system(" not in content
        assert b"/etc/passwd" not in content


def test_inputs_and_outputs_are_those_of_the_interpreter(data: bytes) -> None:
    x = [np.arange(6.0)[None], np.full((1, 6), -1.0)]
    files = project_files(data, "kws", "cmake", samples=x)
    found = runtime.record(data, x)
    text = files["src/recorded.cc"].decode()
    arrays = [[int(value) for value in body.split(",")[:-1]] for body in re.findall(r"= \{([^}]*)\}", text)]
    assert arrays == [a.reshape(-1).tolist() for a in (*found.inputs, *found.outputs)]
    assert arrays[0] == [0, 2, 4, 6, 8, 10]  # the scale is a half
    header = files["src/inference.h"].decode()
    assert "constexpr float kInput1Scale = 0.5f;" in header
    assert "constexpr std::size_t kOutput1Length = 6;" in header


def test_random_inputs_are_the_same_each_time_and_use_the_range(data: bytes) -> None:
    first, again = (project_files(data, "kws", "cmake")["src/recorded.cc"] for _ in range(2))
    assert first == again
    values = np.array(re.findall(r"-?\d+(?=,)", first.decode()), int)
    assert values.min() < -64
    assert values.max() > 64


@pytest.mark.parametrize(("ecosystem", "processor"), [("cmake", None), ("cmake", "cortex-m55"), ("esp-idf", None)])
def test_the_arena_is_that_of_the_processor(ecosystem: str, processor: str | None, data: bytes) -> None:
    files = project_files(data, "kws", ecosystem, processor=processor)
    fp = footprint(data, target=processor or ECOSYSTEMS[ecosystem].processor)
    arena = next(content for name, content in files.items() if name.endswith("arena.h"))
    assert f"kArenaSize = {fp.arena};".encode() in arena
    assert json.loads(files["model.json"])["footprint"]["arena"] == fp.arena


FAKE = """
#include "inference.h"
#include "recorded.h"
#include <cstring>
namespace kws {{
static std::int8_t in[2][6], out[2][6];
const char* Setup() {{ return {error}; }}
const char* Infer() {{
  if (std::memcmp(in[0], kRecordedInput0, 6) || std::memcmp(in[1], kRecordedInput1, 6)) return "not the recorded input";
  std::memcpy(out[0], kRecordedOutput0, 6);
  std::memcpy(out[1], kRecordedOutput1, 6);
  out[1][3] = static_cast<std::int8_t>(out[1][3] + ({off}));
  return nullptr;
}}
std::size_t ArenaUsed() {{ return 90; }}
std::size_t ArenaSize() {{ return 100; }}
std::int8_t* Input0() {{ return in[0]; }}
std::int8_t* Input1() {{ return in[1]; }}
const std::int8_t* Output0() {{ return out[0]; }}
const std::int8_t* Output1() {{ return out[1]; }}
}}
"""


@pytest.mark.parametrize(
    ("off", "error", "code", "said"),
    [
        (0, "nullptr", 0, "self-test passed: 12 of 12 values as recorded, largest difference 0; arena 90 of 100 bytes"),
        (-1, "nullptr", 0, "self-test passed: 11 of 12 values as recorded, largest difference 1;"),
        (2, "nullptr", 1, "self-test FAILED: 11 of 12 values as recorded, largest difference 2;"),
        (0, '"no memory"', 1, "self-test FAILED: no memory"),
    ],
)
def test_the_self_test_tells_right_from_wrong(
    off: int, error: str, code: int, said: str, data: bytes, tmp_path: Path
) -> None:
    x = [np.zeros((1, 6)), np.zeros((1, 6))]
    _write(tmp_path, project_files(data, "kws", "cmake", samples=x))
    (tmp_path / "src" / "inference.cc").write_text(FAKE.format(off=off, error=error))
    sources = [tmp_path / "src" / f"{name}.cc" for name in ("inference", "main", "recorded", "self_test")]
    ended, output = run_on_this_machine(sources, tmp_path / "program")
    assert ended == code
    assert output.startswith(said)


def test_floats_are_refused() -> None:
    tensors = [Tensor((1, 4), FLOAT, scales=0), Tensor((1, 4), FLOAT, scales=0)]
    data = build(Graph(tensors, [("RELU", [0], [1])], outputs=[1]))
    with pytest.raises(InvalidModel, match=r"Expected inputs and outputs of int8.* Received: float32"):
        project_files(data, "kws", "cmake")


def test_the_command_writes_a_project(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my model.tflite").write_bytes(data)
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 6)))
    command = ["export", str(tmp_path / "my model.tflite"), "--target", "arduino"]
    assert cli.main([*command, str(tmp_path / "Sketch-1")]) == 0
    assert (tmp_path / "Sketch-1" / "Sketch-1.ino").exists()
    assert (tmp_path / "Sketch-1" / "my_model.h").exists()
    assert cli.main([*command, str(tmp_path / "Sketch-1")]) == 2
    assert "Pass --force" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "Sketch-1"), "--force"]) == 0


@pytest.mark.parametrize(
    ("changed", "folder", "message"),
    [
        ({"model": "none.tflite"}, "app", "No such file"),
        ({"model": "text.tflite"}, "app", "TFL3"),
        ({"input": "wrong.npz"}, "app", "lacks"),
        ({"input": "none.npz"}, "app", "No such file: expected a .npz file"),
        ({}, "a b;rm", "named as its folder"),
    ],
)
def test_wrong_input_leaves_no_file(
    changed: dict[str, str], folder: str, message: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.tflite").write_bytes(data)
    (tmp_path / "text.tflite").write_text("text")
    np.savez(tmp_path / "wrong.npz", a=np.zeros((2, 6)))
    files = {"model": "model.tflite", **changed}
    command = ["export", str(tmp_path / files["model"]), str(tmp_path / folder), "--target", "arduino"]
    if "input" in files:
        command += ["--input", str(tmp_path / files["input"])]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / folder).exists()
