"""Small Keras nets, one an operator or a pattern, and their conversion for the tests of the TFLite half."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

NETS: dict[str, Callable[[int], keras.Model]] = {}


def net(build: Callable[[int], keras.Model]) -> Callable[[int], keras.Model]:
    """Register a net; it takes its width."""
    NETS[build.__name__] = build
    return build


def _model(shape: tuple[int, ...], body: Callable) -> keras.Model:
    inputs = keras.Input(shape, batch_size=1)
    return keras.Model(inputs, body(inputs))


@net
def conv_pool(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Conv2D(2 * w, 3, strides=2)(x)
        x = layers.ReLU()(x)
        return layers.Dense(5, activation="softmax")(layers.Flatten()(x))

    return _model((16, 16, 3), body)


@net
def ds_cnn(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, (5, 3), strides=2, padding="same", activation="relu6")(x)
        for _ in range(2):
            x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
            x = layers.Conv2D(w, 1, activation="relu")(x)
        x = layers.DepthwiseConv2D(5, padding="same", depth_multiplier=2)(x)
        x = layers.AveragePooling2D(2)(x)
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))

    return _model((25, 10, 1), body)


@net
def residual(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, 3, padding="same")(x)
        y = layers.Conv2D(w, 3, padding="same", activation="relu")(x)
        z = layers.Add()([x, y])
        z = layers.Multiply()([z, layers.Conv2D(w, 1, activation="sigmoid")(z)])
        z = layers.Subtract()([z, x])
        return layers.Conv2D(2, 1)(layers.Maximum()([z, y]))

    return _model((9, 7, 2), body)


@net
def inception(w: int) -> keras.Model:
    def body(x):
        a = layers.Conv2D(w, 1)(x)
        b = layers.Conv2D(w, 3, padding="same")(x)
        c = layers.MaxPooling2D(3, 1, padding="same")(x)
        x = layers.Concatenate()([a, b, c])
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(w, 3, dilation_rate=2)(x)
        return layers.Dense(3)(layers.GlobalMaxPooling2D()(x))

    return _model((12, 12, 4), body)


@net
def unet(w: int) -> keras.Model:
    def body(x):
        a = layers.Conv2D(w, 3, padding="same", activation="relu")(x)
        b = layers.Conv2D(2 * w, 3, padding="same", strides=2, activation="relu")(a)
        c = layers.Conv2DTranspose(w, 2, strides=2)(b)
        d = layers.Concatenate()([a, c])
        e = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(3, 3, padding="same")(d))
        return layers.Conv2DTranspose(2, 3, strides=1, padding="same")(e)

    return _model((8, 8, 2), body)


@net
def autoencoder(w: int) -> keras.Model:
    def body(x):
        for units in (4 * w, w, 4 * w):
            x = layers.Dense(units, activation="relu")(x)
            x = layers.BatchNormalization()(x)
        return layers.Dense(32)(x)

    return _model((32,), body)


@net
def conv1d(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv1D(w, 5, padding="causal", activation="relu")(x)
        x = layers.Conv1D(w, 3, dilation_rate=2, padding="same")(x)
        x = layers.LeakyReLU(0.1)(x)
        x = layers.MaxPooling1D(2)(x)
        x = layers.SeparableConv1D(w, 3, padding="same")(x)
        return layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x))

    return _model((32, 3), body)


@net
def activations(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, 3)(x)
        x = layers.Activation("hard_swish")(x)
        x = layers.Activation("tanh")(x)
        x = layers.PReLU(shared_axes=[1, 2])(x)
        x = layers.Activation("sigmoid")(x)
        x = layers.Activation("elu")(x)
        x = layers.Activation("silu")(x)
        return layers.Dense(3)(layers.Flatten()(x))

    return _model((7, 7, 2), body)


@net
def squeeze_excite(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, 3, padding="same")(x)
        s = layers.GlobalAveragePooling2D(keepdims=True)(x)
        s = layers.Conv2D(max(w // 4, 1), 1, activation="relu")(s)
        s = layers.Conv2D(w, 1, activation="hard_sigmoid")(s)
        return layers.Conv2D(3, 1)(layers.Multiply()([x, s]))

    return _model((10, 10, 3), body)


@net
def attention(w: int) -> keras.Model:
    def body(x):
        q, k, v = (layers.Dense(w)(x) for _ in range(3))
        s = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))) * 0.5)
        x = layers.Dense(w, activation="relu")(ops.matmul(s, v))
        return layers.Dense(3)(layers.Flatten()(x))

    return _model((6, 8), body)


@net
def slices(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(2 * w, 1)(x)
        a, b = ops.split(x, 2, axis=-1)
        c = a[:, 1:5, ::3, :]
        d = layers.Cropping2D(1)(b)
        d = layers.Conv2D(w, 3, strides=(1, 2), padding="same")(d)
        x = ops.transpose(ops.concatenate([c, d[:, :4, :, :]], axis=1), (0, 2, 1, 3))
        return layers.Dense(2)(layers.Reshape((-1,))(x))

    return _model((8, 6, 2), body)


@net
def rnn_unrolled(w: int) -> keras.Model:
    return _model((4, 5), lambda x: layers.Dense(2)(layers.GRU(w, unroll=True)(x)))


@net
def stacked(w: int) -> keras.Model:
    def body(x):
        parts = [layers.Dense(w)(x[:, i]) for i in range(3)]
        x = ops.stack(parts, axis=1)
        return ops.mean(x, axis=2), ops.max(x, axis=1), ops.sum(x, axis=(1, 2))

    return _model((3, 6), body)


@net
def arithmetic(w: int) -> keras.Model:
    def body(x):
        x = layers.Dense(w)(x)
        y = ops.exp(ops.minimum(x, 2.0))
        z = ops.sqrt(ops.abs(y) + 1.0) - ops.square(x)
        return ops.log(ops.abs(z) + 2.0) / (ops.abs(x) + 1.0)

    return _model((6,), body)


@net
def two_inputs(w: int) -> keras.Model:
    a, b = keras.Input((6, 6, 2), batch_size=1, name="a"), keras.Input((5,), batch_size=1, name="b")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(w, 3)(a))
    y = layers.Dense(w, activation="relu")(b)
    z = layers.Add()([x, y])
    return keras.Model([a, b], [layers.Dense(3, activation="softmax")(z), layers.Dense(1, activation="sigmoid")(z)])


@net
def grouped(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(4 * w, 3, groups=2, padding="same")(x)
        x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
        x = layers.DepthwiseConv2D(3, dilation_rate=2)(x)
        return layers.Conv2D(2, (1, 4))(x)

    return _model((16, 16, 4), body)


@net
def resizing(w: int) -> keras.Model:
    def body(x):
        x = layers.Conv2D(w, 3, padding="same")(x)
        x = ops.image.resize(x, (12, 12), interpolation="nearest")
        x = layers.Conv2D(4 * w, 1)(x)
        x = ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect")
        return layers.AveragePooling2D(3)(x)

    return _model((6, 6, 2), body)


def convert(model: keras.Model, kind: str = "int8") -> bytes:
    """Convert a net to "int8", "int16x8" or "float" with random calibration data."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = [(1, *tensor.shape[1:]) for tensor in model.inputs]
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        samples = [[rng.normal(size=shape).astype("float32") for shape in shapes] for _ in range(8)]
        converter.representative_dataset = lambda: iter(samples)
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8 if kind == "int8" else wide]
        converter.inference_input_type = converter.inference_output_type = tf.int8 if kind == "int8" else tf.int16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own, about statistics that are not given
        return converter.convert()
