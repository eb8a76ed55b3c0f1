"""Tiny networks, one a layer or a pattern, beyond the base list in `nets`; every rule is tested on them too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Net = Callable[[], keras.Model]


def _model(inputs: Any, x: Any, name: str, units: int = 3) -> keras.Model:
    """The network that ends in a global mean (where there are places) and a Dense."""
    if len(x.shape) > 2:
        x = _mean(x)
    return keras.Model(inputs, layers.Dense(units)(x), name=name)


def _mean(x: Any) -> Any:
    rank = len(x.shape) - 2
    return getattr(layers, f"GlobalAveragePooling{rank}D")()(x)


def _image(channels: int = 3, size: int = 8) -> Any:
    return keras.Input((size, size, channels))


def _conv(x: Any, filters: int = 6, size: int = 3, **settings: Any) -> Any:
    return layers.Conv2D(filters, size, **{"padding": "same", "activation": "relu", **settings})(x)


# Places: up-sampling, cropping, resizing


def transposed_decoder() -> keras.Model:
    """An encoder and a decoder of transposed convolutions, with odd sizes and explicit output padding."""
    inputs = _image(2, 9)
    x = _conv(inputs, 6, strides=2)
    x = layers.Conv2DTranspose(7, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2DTranspose(5, 2, strides=2, padding="valid", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x), name="transposed_decoder")


def transposed_1d() -> keras.Model:
    inputs = keras.Input((12, 3))
    x = layers.Conv1D(6, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv1DTranspose(8, 4, strides=2, padding="same", activation="relu")(x)
    return _model(inputs, layers.Conv1D(5, 3, activation="relu")(x), "transposed_1d")


def upsampling() -> keras.Model:
    """Nearest and bilinear, and their sum."""
    inputs = _image(2)
    x = layers.MaxPooling2D()(_conv(inputs))
    nearest = layers.UpSampling2D(2)(x)
    bilinear = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return _model(inputs, _conv(layers.Concatenate()([nearest, bilinear]), 5), "upsampling")


def resizing() -> keras.Model:
    inputs = _image(2)
    x = layers.Resizing(12, 10)(_conv(inputs))
    x = layers.Resizing(6, 6, interpolation="nearest")(x)
    return _model(inputs, _conv(x, 5), "resizing")


def cropping() -> keras.Model:
    """Cut away places, unevenly, then put zeros there; and the same in one dimension."""
    inputs = _image(2)
    x = layers.Cropping2D(((1, 2), (0, 1)))(_conv(inputs))
    x = layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    x = layers.Reshape((54, 6))(x)
    x = layers.ZeroPadding1D(2)(layers.Cropping1D(3)(x))
    return _model(inputs, layers.Conv1D(4, 3, activation="relu")(x), "cropping")


def pools() -> keras.Model:
    """Every pooling, in one and in two dimensions."""
    inputs = _image(2)
    x = _conv(inputs)
    x = layers.Concatenate()([layers.MaxPooling2D(3, 2, "same")(x), layers.AveragePooling2D(3, 2, "same")(x)])
    tops = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    y = layers.Reshape((16, 12))(x)
    y = layers.Add()([layers.MaxPooling1D(2)(y), layers.AveragePooling1D(2)(y)])
    bottoms = layers.Multiply()([layers.GlobalMaxPooling1D()(y), layers.GlobalAveragePooling1D()(y)])
    return _model(inputs, layers.Concatenate()([tops, bottoms]), "pools")


def volume() -> keras.Model:
    """Three dimensions."""
    inputs = keras.Input((6, 6, 6, 2))
    x = layers.Conv3D(5, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.MaxPooling3D()(layers.ZeroPadding3D(1)(x))
    x = layers.UpSampling3D(2)(layers.Conv3D(4, 2, activation="relu")(x))
    x = layers.Conv3DTranspose(3, 2, strides=2, activation="relu")(layers.Cropping3D(1)(x))
    return _model(inputs, layers.AveragePooling3D(2)(x), "volume")


# Channels that move


def channel_shuffle() -> keras.Model:
    """ShuffleNet's shuffle between two grouped convolutions."""
    inputs = _image()
    x = _conv(inputs, 8, 1)
    x = _conv(x, 8, 1, groups=2)
    x = layers.Reshape((8, 8, 2, 4))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    x = layers.Reshape((8, 8, 8))(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    return _model(inputs, _conv(x, 6, 1), "channel_shuffle")


def permuted_places() -> keras.Model:
    """Rows and columns change places; the channels stay where they are."""
    inputs = keras.Input((6, 8, 2))
    x = layers.Permute((2, 1, 3))(_conv(inputs))
    return _model(inputs, _conv(x, 5), "permuted_places")


def permuted_channels() -> keras.Model:
    """The channels become rows, and come back."""
    inputs = keras.Input((4, 5, 2))
    x = layers.Permute((3, 1, 2))(_conv(inputs))
    x = layers.ReLU()(x)
    x = layers.Permute((2, 3, 1))(x)
    return _model(inputs, _conv(x, 5), "permuted_channels")


def channels_as_places() -> keras.Model:
    """The channels become rows, and a convolution reads them as such."""
    inputs = keras.Input((4, 5, 2))
    x = layers.Permute((3, 1, 2))(_conv(inputs))
    return _model(inputs, _conv(x, 5), "channels_as_places")


def reshaped_channels() -> keras.Model:
    """A vector becomes a map."""
    inputs = keras.Input((10,))
    x = layers.Dense(4 * 4 * 3, activation="relu")(inputs)
    x = layers.Reshape((4, 4, 3))(x)
    return _model(inputs, _conv(x, 5), "reshaped_channels")


def flattened_concat() -> keras.Model:
    """Two flattened maps behind each other, one of them after batch normalization."""
    inputs = _image(2)
    x, y = _conv(inputs, 4, strides=2), _conv(inputs, 5, strides=4)
    x = layers.BatchNormalization(momentum=0.9)(layers.Flatten()(x))
    x = layers.Concatenate()([x, layers.Flatten()(y)])
    return _model(inputs, layers.Dense(6, activation="relu")(x), "flattened_concat")


# Weights a channel, and statistics


def prelu() -> keras.Model:
    inputs = _image()
    x = layers.PReLU(shared_axes=[1, 2])(_conv(inputs, 6, activation=None))
    x = layers.PReLU()(_conv(x, 5, activation=None, strides=2))
    x = layers.PReLU(shared_axes=[1, 2, 3])(_conv(x, 4, activation=None))
    return _model(inputs, layers.PReLU()(layers.Dense(6)(_mean(x))), "prelu")


def layer_norm() -> keras.Model:
    inputs = _image()
    x = layers.LayerNormalization()(_conv(inputs))
    x = layers.LayerNormalization(axis=[1, 2, 3])(_conv(x, 5))
    x = _conv(x, 7)
    return _model(inputs, _conv(x, 4), "layer_norm")


def group_norm() -> keras.Model:
    """Groups of channels, and instance normalization (a group for each channel)."""
    inputs = _image()
    x = layers.GroupNormalization(groups=2)(_conv(inputs))
    x = layers.GroupNormalization(groups=-1)(_conv(x, 5))
    return _model(inputs, _conv(x, 7), "group_norm")


def softmax_channels() -> keras.Model:
    """Softmax over channels, which mixes them, and over places, which does not."""
    inputs = _image()
    x = layers.Softmax()(_conv(inputs))
    x = layers.Softmax(axis=[1, 2])(_conv(x, 5, activation=None))
    x = _conv(x, 4, activation="softmax")
    return _model(inputs, layers.Activation("softmax")(_conv(x, 7)), "softmax_channels")


def smooth_activations() -> keras.Model:
    """Activations whose value at zero is not zero, or that have parameters."""
    inputs = _image(2)
    names = ("elu", "selu", "gelu", "softplus", "softsign", "exponential", "mish", "log_sigmoid")
    x = layers.Concatenate()([_conv(inputs, 3, 1, activation=name) for name in names])
    x = layers.ELU(0.5)(_conv(x, 4, activation=None))
    x = layers.ReLU(max_value=4.0, negative_slope=0.2, threshold=0.1)(_conv(x, 5, activation=None))
    return _model(inputs, x, "smooth_activations")


# Convolutions


def depthwise_multiplier_1d() -> keras.Model:
    inputs = keras.Input((16, 3))
    x = layers.Conv1D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.DepthwiseConv1D(3, depth_multiplier=3, activation="relu")(x)
    x = layers.SeparableConv1D(6, 3, depth_multiplier=2, activation="relu")(x)
    return _model(inputs, layers.Conv1D(5, 1, activation="relu")(x), "depthwise_multiplier_1d")


def separable_multiplier() -> keras.Model:
    inputs = _image()
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")(inputs)
    x = layers.SeparableConv2D(5, 3, depth_multiplier=3, padding="same", activation="relu")(x)
    return _model(inputs, x, "separable_multiplier")


def grouped_depthwise() -> keras.Model:
    """A convolution with as many groups as channels: a depthwise one by another name."""
    inputs = _image()
    x = _conv(_conv(inputs), 12, groups=6)
    return _model(inputs, _conv(x, 5, 1), "grouped_depthwise")


def grouped_blocks() -> keras.Model:
    """ResNeXt: a grouped convolution between pointwise ones, in a residual, with batch normalization."""
    inputs = _image()
    x = _conv(inputs, 8)
    y = _conv(x, 8, 1, use_bias=False)
    y = layers.BatchNormalization(momentum=0.9)(_conv(y, 8, groups=4, use_bias=False, activation=None))
    x = layers.ReLU()(layers.Add()([x, _conv(y, 8, 1, activation=None)]))
    return _model(inputs, x, "grouped_blocks")


def dense_on_maps() -> keras.Model:
    inputs = _image()
    x = layers.Dense(6, activation="relu")(inputs)
    x = layers.Dense(5, activation="relu")(_conv(x, 7))
    return _model(inputs, layers.Dense(4, activation="relu")(layers.Reshape((16, 20))(x)), "dense_on_maps")


def dilated() -> keras.Model:
    inputs = _image()
    x = _conv(inputs, 6, dilation_rate=2)
    x = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", activation="relu")(x)
    return _model(inputs, _conv(x, 5, padding="valid", dilation_rate=2), "dilated")


# Sequences


def _sequence(inputs: Any) -> Any:
    """A small CNN and its columns as steps: (batch, 4, 4 * 6)."""
    return layers.Reshape((4, 24))(layers.MaxPooling2D()(_conv(inputs)))


def gru() -> keras.Model:
    inputs = _image()
    x = layers.GRU(6, return_sequences=True)(_sequence(inputs))
    return _model(inputs, layers.GRU(5, reset_after=False)(x), "gru")


def lstm() -> keras.Model:
    inputs = _image()
    x = layers.LSTM(6, return_sequences=True)(_sequence(inputs))
    return _model(inputs, layers.LSTM(5, use_bias=False, go_backwards=True)(x), "lstm")


def simple_rnn() -> keras.Model:
    inputs = _image()
    x = layers.Conv1D(6, 3, activation="relu")(layers.Reshape((64, 3))(inputs))
    return _model(inputs, layers.SimpleRNN(6)(layers.MaxPooling1D(8)(x)), "simple_rnn")


def bidirectional() -> keras.Model:
    """All ways of putting both directions together, and two layers of different kinds."""
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(5, 3, padding="same", activation="relu")(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), merge_mode="sum")(x)
    x = layers.Bidirectional(
        layers.SimpleRNN(4), merge_mode="mul", backward_layer=layers.SimpleRNN(4, go_backwards=True, use_bias=False)
    )(x)
    return _model(inputs, x, "bidirectional")


def rnn_states() -> keras.Model:
    """An encoder hands its states to a decoder."""
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(5, 3, padding="same", activation="relu")(inputs)
    _, h, c = layers.LSTM(4, return_state=True)(x)
    y = layers.LSTM(4)(x, initial_state=[h, c])
    return _model(inputs, layers.Dense(5, activation="relu")(y), "rnn_states")


def attention() -> keras.Model:
    """Self-attention in a residual behind a small CNN, then cross-attention with a length of its own."""
    inputs = _image()
    x = layers.Reshape((16, 6))(layers.MaxPooling2D()(_conv(inputs)))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Add()([x, y])
    memory = layers.Conv1D(5, 4, strides=4, activation="relu")(x)
    x = layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=7, use_bias=False)(x, memory)
    return _model(inputs, layers.Conv1D(4, 1, activation="relu")(x), "attention")


def embedding() -> keras.Model:
    inputs = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 6)(inputs)
    return _model(inputs, layers.Conv1D(5, 3, activation="relu")(x), "embedding")


def repeat_vector() -> keras.Model:
    """An autoencoder of sequences: a code, repeated, read step by step."""
    inputs = keras.Input((6, 4))
    x = layers.GRU(5)(layers.Conv1D(6, 3, activation="relu")(inputs))
    x = layers.RepeatVector(4)(layers.Dense(7, activation="relu")(x))
    x = layers.GRU(6, return_sequences=True)(x)
    return keras.Model(inputs, layers.TimeDistributed(layers.Dense(2))(x), name="repeat_vector")


def time_distributed() -> keras.Model:
    """The same layers for each frame of a film."""
    inputs = keras.Input((3, 8, 8, 2))
    x = layers.TimeDistributed(layers.Conv2D(6, 3, use_bias=False))(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization(momentum=0.9))(x)
    x = layers.TimeDistributed(layers.DepthwiseConv2D(3, activation="relu"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.TimeDistributed(layers.Dense(5, activation="relu"))(x)
    return _model(inputs, x, "time_distributed")


# Inputs


def preprocessing() -> keras.Model:
    """Scaling, standardization and augmentation before the first convolution."""
    inputs = _image()
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.RandomTranslation(0.1, 0.1, seed=2)(layers.RandomFlip("horizontal", seed=1)(x))
    x = layers.RandomContrast(0.1, value_range=(-4, 4), seed=4)(layers.RandomRotation(0.1, seed=3)(x))
    x = layers.GaussianNoise(0.1, seed=5)(x)
    x = _conv(x)
    return _model(inputs, layers.SpatialDropout2D(0.1, seed=6)(_conv(x, 5)), "preprocessing")


def preprocessing_inside() -> keras.Model:
    """Rescaling by one number, and by one a channel, in the middle of the network."""
    inputs = _image()
    x = layers.Rescaling(0.5, offset=0.1)(_conv(inputs))
    x = layers.Rescaling([0.5, 0.25, 1.0, 2.0, 1.0])(_conv(x, 5))
    return _model(inputs, _conv(x, 4), "preprocessing_inside")


# Merging


def merges() -> keras.Model:
    """All layers that merge maps of one shape."""
    inputs = _image()
    kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    x = _conv(inputs, 5, 1)
    for number, kind in enumerate(kinds):
        x = _conv(kind()([x, _conv(x, 5 if number % 2 == 0 else 6)]), 6 if number % 2 == 0 else 5)
    return _model(inputs, x, "merges")


def merges_of_three() -> keras.Model:
    inputs = _image()
    branches = [_conv(inputs, 6, size) for size in (1, 2, 3)]
    kinds = (layers.Add, layers.Multiply, layers.Average, layers.Maximum)
    return _model(inputs, layers.Concatenate()([kind()(branches) for kind in kinds]), "merges_of_three")


def concat_places() -> keras.Model:
    """Maps put below and beside one another: their channels meet."""
    inputs = _image()
    x, y = _conv(inputs, 6), _conv(inputs, 6)
    x = layers.Concatenate(axis=1)([x, y])
    return _model(inputs, _conv(layers.Concatenate(axis=2)([x, x]), 5), "concat_places")


def dot() -> keras.Model:
    """Dot products of vectors, and of places of maps."""
    inputs = _image()
    x, y = _conv(inputs, 6, strides=4), _conv(inputs, 6, strides=4)
    vectors = layers.Dot(1)([_mean(x), _mean(y)])
    maps = layers.Dot((2, 2))([layers.Reshape((4, 6))(x), layers.Reshape((4, 6))(y)])
    z = layers.Concatenate()([vectors, layers.Flatten()(maps), _mean(_conv(x, 5))])
    return _model(inputs, z, "dot")


def broadcast() -> keras.Model:
    """One attention map for all channels, one factor for all, and a vector for all places."""
    inputs = _image()
    x = _conv(inputs)
    x = layers.Multiply()([x, _conv(x, 1, activation="sigmoid")])
    vector = layers.Reshape((1, 1, 6))(layers.Dense(6)(_mean(x)))
    x = _conv(layers.Add()([x, vector]), 5)
    factor = layers.Reshape((1, 1, 1))(layers.Dense(1, activation="sigmoid")(_mean(x)))
    return _model(inputs, layers.Multiply()([x, factor]), "broadcast")


# Models in models


def nested_twice() -> keras.Model:
    inner = keras.Sequential([_image(6), layers.Conv2D(8, 3, padding="same"), layers.ReLU()], name="inner")
    middle_in = _image(3)
    middle = keras.Model(middle_in, _conv(inner(_conv(middle_in)), 5), name="middle")
    outer = keras.Sequential([_image(3), layers.Conv2D(3, 1), middle, layers.Conv2D(4, 3)], name="outer")
    inputs = _image(2)
    return _model(inputs, outer(_conv(inputs, 3)), "nested_twice")


def nested_names() -> keras.Model:
    """Two models whose layers have the same names, and a layer outside with that name too."""

    def block(channels: int, name: str) -> keras.Model:
        return keras.Sequential([_image(channels), layers.Conv2D(5, 3, padding="same", name="conv")], name=name)

    inputs = _image()
    x = layers.ReLU()(block(3, "first")(inputs))
    x = layers.ReLU()(block(5, "second")(x))
    return _model(inputs, layers.Conv2D(4, 1, name="conv")(x), "nested_names")


def nested_many_inputs() -> keras.Model:
    """A model with two inputs, given the other way round, and two outputs in a dict."""
    a, b = _image(4), _image(5)
    y = layers.Concatenate()([layers.Conv2D(3, 1)(a), layers.ReLU()(b)])
    inner = keras.Model([b, a], {"low": _conv(y, 6), "high": layers.Subtract()([_conv(y, 4), a])}, name="inner")
    inputs = _image()
    out = inner([_conv(inputs, 5), _conv(inputs, 4)])
    return _model(inputs, layers.Concatenate()([out["high"], out["low"]]), "nested_many_inputs")


def shared_model() -> keras.Model:
    """A siamese network: one model for two images, and a shared layer in it."""
    inner_in = _image()
    conv = layers.Conv2D(6, 3, padding="same", activation="relu")
    x = conv(_conv(inner_in, 6))
    inner = keras.Model(inner_in, _mean(_conv(conv(x), 5)), name="tower")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    x = layers.Subtract()([inner(left), inner(right)])
    return _model([left, right], layers.Dense(6, activation="relu")(x), "shared_model")


def shared_layers() -> keras.Model:
    """A convolution, its batch normalization and a classifier, each called at several places and sizes."""
    inputs = _image()
    head = layers.Conv2D(7, 3, padding="same", use_bias=False)
    norm = layers.BatchNormalization(momentum=0.9)
    classifier = layers.Dense(3)
    fine = _conv(inputs, 6)
    coarse = _conv(layers.MaxPooling2D()(fine), 6)
    outputs = [classifier(_mean(layers.ReLU()(norm(head(x))))) for x in (fine, coarse)]
    return keras.Model(inputs, outputs, name="shared_layers")


def dict_inputs() -> keras.Model:
    """Inputs and outputs in dicts, not in alphabetical order."""
    sound, image = keras.Input((12, 2), name="sound"), keras.Input((6, 6, 2), name="image")
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(5, 3, activation="relu")(sound))
    y = _mean(_conv(image, 6))
    z = layers.Dense(7, activation="relu")(layers.Concatenate()([x, y]))
    outputs = {"what": layers.Dense(3, name="what")(z), "how": layers.Dense(2, name="how")(x)}
    return keras.Model({"sound": sound, "image": image}, outputs, name="dict_inputs")


# keras.ops


def operators() -> keras.Model:
    inputs = _image()
    x, y = _conv(inputs), _conv(inputs)
    x = _conv((x + y) * 2.0 - y / 3.0, 5)
    gate = layers.Dense(5, activation="sigmoid")(ops.mean(x, axis=(1, 2), keepdims=True))
    x = ops.relu(x * gate - 0.1)
    return _model(inputs, _conv(-x, 4) + 1.0, "operators")


def ops_functions() -> keras.Model:
    inputs = _image()
    x = ops.relu(_conv(inputs, 6, activation=None))
    x = ops.concatenate([x, ops.sigmoid(_conv(inputs, 4, activation=None))], axis=-1)
    x = _conv(ops.maximum(x, 0.1), 6)
    x = ops.reshape(x, (-1, 16, 24))
    x = layers.Conv1D(5, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(ops.mean(x, axis=1)), name="ops_functions")


def ops_squeeze() -> keras.Model:
    """Axes of size one come and go; maxima over places; a transposition."""
    inputs = _image()
    x = ops.max(_conv(inputs), axis=1)
    x = ops.expand_dims(x, 1)
    x = ops.transpose(_conv(x, 5), (0, 2, 1, 3))
    x = ops.squeeze(x, axis=2)
    x = ops.abs(layers.Conv1D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(3)(ops.sum(x, axis=1)), name="ops_squeeze")


def slices() -> keras.Model:
    """Slices of places, and of channels."""
    inputs = _image()
    x = _conv(inputs, 8)[:, 1:7, ::2]
    low, high = x[..., :3], x[:, :, :, 3:]
    x = _conv(layers.Concatenate()([_conv(low, 4), high]), 6)
    return keras.Model(inputs, layers.Dense(3)(x[:, 0, -1]), name="slices")


def slice_of_channels() -> keras.Model:
    """A slice that leaves channels unread."""
    inputs = _image()
    x = _conv(inputs, 8)[..., 2:6]
    return _model(inputs, _conv(x, 5), "slice_of_channels")


def splits() -> keras.Model:
    """Layers with several outputs: halves of the channels go ways of their own, as in CSPNet and ShuffleNet v2."""
    inputs = _image()
    left, right = ops.split(_conv(inputs, 8), 2, axis=-1)
    x = layers.Concatenate()([left, _conv(right, 4)])
    a, b, c = ops.split(_conv(x, 9), [2, 5], axis=-1)
    x = _conv(layers.Concatenate()([c, a]), 5) + _conv(b, 5)
    top, bottom = ops.split(x, 2, axis=1)
    return _model(inputs, _conv(top - bottom, 4), "splits")


def ops_mixing() -> keras.Model:
    """Operations that mix channels: they stay, and the rest can go."""
    inputs = _image()
    x = _conv(inputs, 6)
    spatial = ops.concatenate([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)], axis=-1)
    y = layers.Multiply()([_conv(inputs, 5), layers.Conv2D(1, 3, padding="same", activation="sigmoid")(spatial)])
    y = ops.softmax(_conv(y, 4), axis=-1)
    return _model(inputs, _conv(y, 7), "ops_mixing")


def ops_constants() -> keras.Model:
    """A constant a channel."""
    inputs = _image()
    x = _conv(inputs, 4) * np.array([1.0, 2.0, 0.5, 1.0], "float32")
    return _model(inputs, _conv(x, 5), "ops_constants")


PLACES: tuple[Net, ...] = (transposed_decoder, transposed_1d, upsampling, resizing, cropping, pools, volume)
MOVES: tuple[Net, ...] = (
    *(channel_shuffle, permuted_places, permuted_channels, channels_as_places, reshaped_channels, flattened_concat),
)
WEIGHTS: tuple[Net, ...] = (prelu, layer_norm, group_norm, softmax_channels, smooth_activations)
CONVOLUTIONS: tuple[Net, ...] = (
    *(depthwise_multiplier_1d, separable_multiplier, grouped_depthwise, grouped_blocks, dense_on_maps, dilated),
)
SEQUENCES: tuple[Net, ...] = (
    *(gru, lstm, simple_rnn, bidirectional, rnn_states, attention, embedding, repeat_vector, time_distributed),
)
INPUTS: tuple[Net, ...] = (preprocessing, preprocessing_inside)
MERGES: tuple[Net, ...] = (merges, merges_of_three, concat_places, dot, broadcast)
MODELS: tuple[Net, ...] = (*(nested_twice, nested_names, nested_many_inputs, shared_model, shared_layers, dict_inputs),)
OPS: tuple[Net, ...] = (
    *(operators, ops_functions, ops_squeeze, slices, slice_of_channels, splits, ops_mixing, ops_constants),
)
MORE: tuple[Net, ...] = (*PLACES, *MOVES, *WEIGHTS, *CONVOLUTIONS, *SEQUENCES, *INPUTS, *MERGES, *MODELS, *OPS)
