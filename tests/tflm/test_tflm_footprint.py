"""The footprint against what was measured: Cortex-M4 and M55 under QEMU, and the running wheel."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tflm_build import Graph, Tensor, build

from tfmcu_prune.budget import Budget
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.tflm.footprint import footprint

BUILDS = {
    "m4_ref": ("cortex-m4", "reference"),
    "m4_cmsis": ("cortex-m4", "cmsis-nn"),
    "m55_cmsis": ("cortex-m55", "cmsis-nn"),
}


@pytest.mark.parametrize("build_name", BUILDS)
def test_arena_equals_the_record(measured: dict, model: bytes, build_name: str) -> None:
    target, kernels = BUILDS[build_name]
    record = measured[build_name]
    fp = footprint(model, target=target, kernels=kernels)
    assert (fp.head, fp.tail, fp.arena_used) == (record["head"], record["tail"], record["used"])
    # tflm.md 1.6: 16 bytes above what happens to work, where a persistent array would overlap live temporaries.
    unsafe = 16 if fp.peak.phase == "prepare" else 0
    assert record["min16"] <= fp.arena <= record["min16"] + unsafe
    assert fp.flash == measured["tflite_bytes"]


def test_parts_add_up(model: bytes) -> None:
    fp = footprint(model)
    assert sum(fp.parts.values()) == fp.arena_used
    assert (
        fp.lower_bound
        <= fp.head
        <= fp.arena_used
        <= fp.arena
        == max(fp.phases.values()) + -max(fp.phases.values()) % 16
    )
    assert sum(operator.macs for operator in fp.operators) == fp.macs
    assert max(operator.live for operator in fp.operators) == sum(size for _, size in fp.peak.live)


def test_code_is_within_one_percent_of_the_images(measured: dict, model: bytes) -> None:
    reference, cmsis = footprint(model, kernels="reference"), footprint(model)
    assert reference.code == pytest.approx(measured["flash_code_m4_ref"], rel=0.01)
    assert cmsis.code == pytest.approx(measured["flash_code_m4_cmsis"], rel=0.01)
    assert cmsis.code_int8 == pytest.approx(measured["flash_code_m4_cmsis_int8_registrations"], rel=0.01)


def test_the_stack_bound_holds(shared_model) -> None:
    # tflm.md, section 2, the largest of each column: reference, CMSIS-NN on Cortex-M4, CMSIS-NN on Cortex-M55.
    model = shared_model("tflm_mnist_lstm_int8")
    assert footprint(model, kernels="reference").stack >= 796
    assert footprint(model).stack >= 1252
    assert footprint(model, target="cortex-m55").stack >= 1456


def test_macs_by_hand(shared_model) -> None:
    # Dense(16) - Dense(16) - Dense(1) on one number.
    assert footprint(shared_model("tflm_hello_world_int8")).macs == 1 * 16 + 16 * 16 + 16 * 1


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m3", "cortex-m7", "cortex-m33", "cortex-m85", "esp32"])
def test_other_targets(shared_model, target: str) -> None:
    model = shared_model("mbv2_like")
    fp, m4 = footprint(model, target=target), footprint(model)
    assert fp.kernels == ("reference" if target == "esp32" else "cmsis-nn")
    assert abs(fp.arena - m4.arena) < 5000
    assert fp.code is None or "code" in fp.uncertain


def test_require_names_the_worst_operator(shared_model) -> None:
    fp = footprint(shared_model("mbv2_like"))
    fp.require(Budget(arena=fp.arena, flash=fp.flash, macs=fp.macs))
    with pytest.raises(BudgetError, match=r"arena exceeds its budget by 10,656: operator 6 \(DEPTHWISE_CONV_2D\)"):
        fp.require(Budget(arena="40KiB"))
    with pytest.raises(BudgetError, match=r"flash exceeds .* operator 26 \(CONV_2D\)"):
        fp.require(Budget(flash="64KiB"))
    with pytest.raises(BudgetError, match=r"macs exceeds .* operator 5 \(CONV_2D\) takes the most, 221,184"):
        fp.require(Budget(macs="1M"))


def test_require_names_the_phase_that_binds(shared_model) -> None:
    with pytest.raises(BudgetError, match="memory planner needs"):
        footprint(shared_model("deep_tiny")).require(Budget(arena=8000))
    with pytest.raises(BudgetError, match="takes the most while TFLM starts"):
        footprint(shared_model("mlp_flatten")).require(Budget(arena=1000))


def test_an_unknown_operator_is_never_a_silent_guess() -> None:
    model = build(Graph([Tensor((1, 8)), Tensor((1, 8))], [("TILE", [0], [1])], outputs=[1]))
    fp = footprint(model)
    assert set(fp.uncertain) == {"arena", "macs", "code"}
    assert "TILE" in fp.uncertain["arena"]
    assert "Lower bounds only" in str(fp)
    fp.require(Budget(flash="1MiB"))
    with pytest.raises(BudgetError, match=r"arena is at least .* no sizes are known for TILE"):
        fp.require(Budget(arena="1MiB"))


def test_an_operator_that_tflm_runs_in_float_only_is_flagged() -> None:
    model = build(Graph([Tensor((1, 8)), Tensor((1, 8))], [("EXP", [0], [1])], outputs=[1]))
    assert "EXP 0 in float32 only" in footprint(model).uncertain["arena"]


def test_text_and_dict(shared_model) -> None:
    fp = footprint(shared_model("two_in_two_out"))
    again = json.loads(json.dumps(fp.to_dict()))
    assert again["arena"] == fp.arena
    assert len(again["operators"]) == len(fp.operators)
    assert again["peak"]["live"][0] == {"what": fp.peak.live[0][0], "bytes": fp.peak.live[0][1]}
    text = str(fp)
    assert f"{fp.arena:,} B" in text
    assert "SOFTMAX" in text
    assert "no plan can go under" in text


def test_wrong_arguments(shared_model) -> None:
    model = shared_model("two_in_two_out")
    with pytest.raises(ValueError, match=r"target must be one of cortex-m0, .* Received: 'avr'"):
        footprint(model, target="avr")
    with pytest.raises(ValueError, match="kernels must be one of reference, cmsis-nn"):
        footprint(model, kernels="fast")
    with pytest.raises(TypeError, match=r"bytes of a .tflite file or its path"):
        footprint(3)  # type: ignore[arg-type]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, tfmcu_prune.tflm.commands, tfmcu_prune.tflm.footprint, tfmcu_prune.boards\n"
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'matplotlib', 'flatbuffers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
