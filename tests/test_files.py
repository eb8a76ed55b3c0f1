from __future__ import annotations

import numpy as np
import pytest

from tfmcu_prune import files


def test_replacing_leaves_nothing_behind_after_an_error(tmp_path):
    def fail_half_way():
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"new, but hal")
            raise RuntimeError("half way")

    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("model.tflite", b"old")]


def test_replacing_keeps_the_suffix_that_writers_go_by(tmp_path):
    with files.replacing(tmp_path / "a.keras") as temporary:
        assert temporary.suffix == ".keras"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


def test_read_npz_refuses_python_objects(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"NumPy cannot read plain arrays from .*a\.npz"):
        files.read_npz(tmp_path / "a.npz")


def test_read_npz_refuses_a_folder(tmp_path):
    with pytest.raises(ValueError, match="a folder"):
        files.read_npz(tmp_path)
