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


def test_write_all_makes_folders_and_refuses_to_overwrite(tmp_path):
    contents = {"a.h": b"1", "src/b.cc": b"2"}
    written = files.write_all(tmp_path / "new" / "deep", contents)
    assert [path.read_bytes() for path in written] == [b"1", b"2"]
    with pytest.raises(FileExistsError, match=r"a\.h, src/b\.cc\. Pass --force"):
        files.write_all(tmp_path / "new" / "deep", contents)
    files.write_all(tmp_path / "new" / "deep", {"a.h": b"3"}, force=True)
    assert (tmp_path / "new" / "deep" / "a.h").read_bytes() == b"3"
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


def test_write_all_writes_nothing_where_a_later_file_fails(tmp_path):
    (tmp_path / "there").write_bytes(b"a file where a folder would have to be")
    (tmp_path / "a.h").write_bytes(b"old")
    with pytest.raises(OSError, match="Nothing was written"):
        files.write_all(tmp_path, {"a.h": b"new", "new/b.h": b"", "there/c.h": b""}, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.h", "there"]
    assert (tmp_path / "a.h").read_bytes() == b"old"


def test_write_all_into_a_file_or_over_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "a.h").mkdir()
    with pytest.raises(NotADirectoryError, match="which is a file"):
        files.write_all(tmp_path / "file", {"a.h": b""})
    with pytest.raises(FileExistsError, match="a folder where a file is to be written"):
        files.write_all(tmp_path, {"a.h": b""}, force=True)


@pytest.mark.parametrize("saved", [{"": 1}, {"x": 1}, {"x": 1, "other": 1}])
def test_arrays_of_a_model_with_one_input(saved, tmp_path):
    array = np.arange(6.0).reshape(3, 2)
    path = tmp_path / ("a.npz" if "x" in saved else "a.npy")
    if "x" in saved:
        np.savez(path, **dict.fromkeys(saved, array))
    else:
        np.save(path, array)
    np.testing.assert_array_equal(files.chosen_arrays(path, ["x"], 2), [array[:2]])


@pytest.mark.parametrize(
    ("arrays", "names", "message"),
    [
        ({"a": [1.0]}, ["x", "y"], "lacks x, y: expected one array a model input, named x, y. Received: a"),
        ({"a": [1.0], "b": [1.0]}, ["x"], "lacks x: expected a single array, or one array a model input, named x"),
        ({"x": 1.0}, ["x"], "samples along the first axis"),
    ],
)
def test_arrays_that_do_not_fit_the_inputs(arrays, names, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        files.chosen_arrays(tmp_path / "a.npz", names, 5)


def test_a_npy_of_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot read a plain array"):
        files.read_arrays(tmp_path / "a.npy")
