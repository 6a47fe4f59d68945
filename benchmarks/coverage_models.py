"""The models of benchmarks/coverage.py: small ones of the kinds that people put on devices, random weights.

`build(name, keras)` makes one, `inputs(name, count)` arrays for it, one for each input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfopt._keras_internals import every_layer

L, ops = keras.layers, keras.ops
WORDS = 100


@dataclass(frozen=True)
class Row:
    """How a model is made, the shapes of its inputs, and what they hold: pixels, signal or tokens."""

    make: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    data: str


MODELS: dict[str, Row] = {}


def row(*shapes: tuple[int, ...], data: str = "pixels", name: str = "") -> Callable[[Any], Any]:
    """Adds a function from inputs to outputs to the models."""

    def note(make: Callable[..., Any]) -> Callable[..., Any]:
        MODELS[name or make.__name__] = Row(make, shapes, data)
        return make

    return note


def build(name: str, keras: Any = keras) -> Any:
    """A model whose batch normalizations have the statistics of its data."""
    spec = MODELS[name]
    dtype = "int32" if spec.data == "tokens" else "float32"
    entries = [keras.Input(shape, dtype=dtype, name=f"in_{i}") for i, shape in enumerate(spec.shapes)]
    outputs = spec.make(*entries)
    if isinstance(outputs, keras.Model):
        outputs(inputs(name, 2)[0])  # builds a subclassed one
        model = outputs
    else:
        model = keras.Model(entries if len(entries) > 1 else entries[0], outputs)
    _condition(model, inputs(name, 64, seed=1))
    return model


def inputs(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth random pictures and signals, or random words."""
    random, spec = np.random.default_rng(seed), MODELS[name]
    return [_draw(spec.data, shape, count, random) for shape in spec.shapes]


def _draw(kind: str, shape: tuple[int, ...], count: int, random: np.random.Generator) -> np.ndarray:
    if kind == "tokens":
        return random.integers(1, WORDS, (count, *shape)).astype("int32")
    values = random.normal(size=(count, *shape))
    if len(shape) > 1:
        values = 0.4 * values + random.normal(size=(count, *(1,) * (len(shape) - 1), shape[-1]))
    if kind == "signal" or len(shape) == 1:
        return values.astype("float32")
    return np.clip(np.round(128 + 50 * values), 0, 255).astype("float32")


def _condition(model: Any, batch: list[np.ndarray]) -> None:
    random = np.random.default_rng(2)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1 and "gamma" not in variable.path and "bias" in variable.path:
            variable.assign(np.asarray(variable) + 0.1 * random.normal(size=variable.shape))
    layers = every_layer(model)
    for layer in [layer for layer in layers if isinstance(layer, L.Dense)][-1:]:
        layer.kernel.assign(4.0 * layer.kernel)  # outputs that differ from sample to sample
    norms = [layer for layer in layers if isinstance(layer, L.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        model(batch if len(batch) > 1 else batch[0], training=True)
    for layer in norms:
        layer.momentum = 0.99


def conv(x: Any, filters: int, size: int = 3, strides: int = 1, act: Any = "relu", **options: Any) -> Any:
    """Convolution, batch normalization, activation."""
    x = L.Conv2D(filters, size, strides, padding="same", use_bias=False, **options)(x)
    x = L.BatchNormalization()(x)
    return L.Activation(act)(x) if isinstance(act, str) else act(x) if act else x


def stem(x: Any, filters: int = 12) -> Any:
    """Pixels to features of half the size."""
    return conv(L.Rescaling(1 / 127.5, -1.0)(x), filters, strides=2)


def head(x: Any, classes: int = 6, act: str = "softmax") -> Any:
    """Mean over places, then classes."""
    x = L.GlobalAveragePooling2D()(x) if x.ndim == 4 else L.GlobalAveragePooling1D()(x)
    return L.Dense(classes, activation=act)(x)


def chain(x: Any, *layers: Any) -> Any:
    """Layers one behind the other."""
    for layer in layers:
        x = layer(x)
    return x


IMAGE = (24, 24, 3)


@row((25, 10, 1), data="signal")
def keywords_ds_cnn(x: Any) -> Any:
    x = conv(x, 16, (5, 3), 2)
    for _ in range(2):
        x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(x)))
        x = conv(x, 16, 1)
    return head(x)


@row((800,), data="signal")
def keywords_spectrogram(x: Any) -> Any:
    x = L.STFTSpectrogram(frame_length=64, frame_step=32, fft_length=64)(x)
    return head(L.Conv1D(8, 3, activation="relu")(x))


@row((64, 3), data="signal")
def sensor_conv1d(x: Any) -> Any:
    x = L.ReLU()(L.BatchNormalization()(L.Conv1D(12, 5)(x)))
    x = L.Conv1D(12, 3, activation="relu")(L.MaxPooling1D()(x))
    return L.Dense(5, activation="softmax")(L.Dropout(0.2)(L.Flatten()(x)))


@row((48, 3), data="signal")
def sensor_dilated(x: Any) -> Any:
    x = L.Conv1D(8, 1)(x)
    for rate in (1, 2, 4):
        y = L.Conv1D(8, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
        x = L.Add()([x, y])
    return head(x)


@row((48, 4), data="signal")
def sensor_separable1d(x: Any) -> Any:
    x = L.SeparableConv1D(12, 5, activation="relu")(L.Normalization(mean=[0.1] * 4, variance=[1.2] * 4)(x))
    return head(L.ReLU()(L.BatchNormalization()(L.DepthwiseConv1D(3)(x))))


def _recurrent(name: str, *layers: Callable[[], Any]) -> None:
    row((20, 4), data="signal", name=name)(lambda x: L.Dense(2)(chain(x, *(make() for make in layers))))


_recurrent(
    "sensor_lstm", lambda: L.LSTM(12, return_sequences=True), lambda: L.Dropout(0.2), lambda: L.LSTM(8)
)
_recurrent("sensor_gru", lambda: L.GRU(10))
_recurrent("sensor_rnn", lambda: L.SimpleRNN(10))
_recurrent("sensor_bidirectional", lambda: L.Bidirectional(L.LSTM(6)))
_recurrent("sensor_conv_lstm", lambda: L.Conv1D(8, 3, activation="relu"), lambda: L.LSTM(8))


def _u_shaped(name: str, up: Callable[[Any, int], Any], classes: int = 3) -> None:
    @row(IMAGE, name=name)
    def make(x: Any) -> Any:
        top = conv(L.Rescaling(1 / 255.0)(x), 8)
        middle = conv(L.MaxPooling2D()(top), 12)
        x = up(conv(L.MaxPooling2D()(middle), 16), 12)
        x = conv(L.Concatenate()([x, middle]), 12)
        return L.Conv2D(classes, 1, activation="softmax")(conv(L.Concatenate()([up(x, 8), top]), 8))


_u_shaped("segment_transposed", lambda x, n: L.Conv2DTranspose(n, 2, 2, activation="relu")(x))
_u_shaped(
    "segment_transposed_norm",
    lambda x, n: chain(
        x,
        L.Conv2DTranspose(n, 3, 2, padding="same", use_bias=False),
        L.BatchNormalization(),
        L.ReLU(),
    ),
)
_u_shaped("segment_nearest", lambda x, n: L.UpSampling2D()(x))
_u_shaped("segment_bilinear", lambda x, n: L.UpSampling2D(interpolation="bilinear")(x))


@row(IMAGE)
def segment_pyramid(x: Any) -> Any:
    x = stem(x)
    parts = [conv(x, 6, dilation_rate=rate) for rate in (1, 2, 3)]
    whole = conv(L.GlobalAveragePooling2D(keepdims=True)(x), 6, 1)
    parts.append(L.Resizing(12, 12)(whole))
    return L.Conv2D(3, 1)(L.Resizing(24, 24)(conv(L.Concatenate()(parts), 8, 1)))


@row(IMAGE)
def detect_two_outputs(x: Any) -> Any:
    x = conv(stem(x), 16, strides=2)
    boxes = L.Reshape((-1, 4))(L.Conv2D(8, 3, padding="same", name="boxes")(x))
    scores = L.Reshape((-1, 3))(L.Conv2D(6, 3, padding="same")(x))
    return {"boxes": boxes, "scores": L.Activation("sigmoid")(scores)}


@row(IMAGE)
def detect_pyramid(x: Any) -> Any:
    act = L.LeakyReLU(0.1)
    x = conv(L.Rescaling(1 / 255.0)(x), 8, act=act)
    fine = conv(L.MaxPooling2D()(x), 12, act=act)
    coarse = conv(L.MaxPooling2D()(fine), 16, act=act)
    pools = [L.MaxPooling2D(size, 1, padding="same")(coarse) for size in (3, 5)]
    coarse = conv(L.Concatenate()([coarse, *pools]), 12, 1, act=act)
    joined = L.Concatenate()([L.UpSampling2D()(coarse), fine])
    return [L.Conv2D(7, 1)(coarse), L.Conv2D(7, 1)(joined)]


@row((16, 16, 1))
def enlarge_depth_to_space(x: Any) -> Any:
    x = chain(
        x,
        L.Rescaling(1 / 255.0),
        L.Conv2D(16, 5, padding="same", activation="tanh"),
        L.Conv2D(4, 3, padding="same"),
    )
    return ops.depth_to_space(x, 2)


@row((16, 16, 3))
def enlarge_residual(x: Any) -> Any:
    start = L.Rescaling(1 / 255.0)(x)
    y = chain(start, L.Conv2D(12, 3, padding="same", activation="relu"), L.Conv2D(3, 3, padding="same"))
    return L.Add()([start, y])


@row((40,), data="signal")
def autoencoder_dense(x: Any) -> Any:
    for units in (24, 6, 24):
        x = L.ReLU()(L.BatchNormalization()(L.Dense(units)(x)))
    return L.Dense(40)(x)


@row(IMAGE)
def autoencoder_conv(x: Any) -> Any:
    return chain(
        x,
        L.Rescaling(1 / 255.0),
        L.Conv2D(8, 3, 2, padding="same", activation="relu"),
        L.Conv2D(12, 3, 2, padding="same", activation="relu"),
        L.Conv2DTranspose(8, 3, 2, padding="same", activation="relu"),
        L.Conv2DTranspose(3, 3, 2, padding="same", activation="sigmoid"),
    )


def encoder(x: Any, width: int) -> Any:
    """A transformer's block, normalization in front."""
    y = L.LayerNormalization()(x)
    x = x + L.MultiHeadAttention(2, width // 2)(y, y)
    y = L.Dense(2 * width, activation="gelu")(L.LayerNormalization()(x))
    return x + L.Dense(width)(y)


@row(IMAGE)
def vision_transformer(x: Any) -> Any:
    x = L.Conv2D(16, 6, 6)(L.Rescaling(1 / 127.5, -1.0)(x))
    x = x + L.DepthwiseConv2D(3, padding="same")(x)
    return head(L.LayerNormalization()(encoder(encoder(L.Reshape((16, 16))(x), 16), 16)))


@row(IMAGE)
def mixer(x: Any) -> Any:
    x = L.Reshape((16, 16))(L.Conv2D(16, 6, 6)(L.Rescaling(1 / 127.5, -1.0)(x)))
    y = L.Permute((2, 1))(L.LayerNormalization()(x))
    x = x + L.Permute((2, 1))(L.Dense(16)(L.Dense(32, activation="gelu")(y)))
    return head(x + L.Dense(16)(L.Dense(32, activation="gelu")(L.LayerNormalization()(x))))


def _text(name: str, *layers: Callable[[], Any], masked: bool = False) -> None:
    def make(x: Any) -> Any:
        x = L.Embedding(WORDS, 12, mask_zero=masked)(x)
        return L.Dense(4, activation="softmax")(chain(x, *(layer() for layer in layers)))

    row((24,), data="tokens", name=name)(make)


_text("text_mean", lambda: L.GlobalAveragePooling1D(), lambda: L.Dense(12, activation="relu"))
_text("text_conv", lambda: L.Conv1D(12, 4, activation="relu"), lambda: L.GlobalMaxPooling1D())
_text("text_lstm", lambda: L.LSTM(10))
_text("text_masked", lambda: L.Bidirectional(L.LSTM(6)), masked=True)
_text("text_gru_unrolled", lambda: L.GRU(8, unroll=True))
_text("text_attention", lambda: lambda x: encoder(x, 12), lambda: L.GlobalAveragePooling1D())


@row((12,), data="signal")
def table(x: Any) -> Any:
    x = L.Normalization(mean=[0.2] * 12, variance=[1.5] * 12)(x)
    for _ in range(2):
        x = L.Dropout(0.1)(L.BatchNormalization()(L.Dense(24, activation="relu")(x)))
    return L.Dense(1, activation="sigmoid")(x)


@row((12,), data="signal")
def table_selu(x: Any) -> Any:
    for _ in range(2):
        x = L.AlphaDropout(0.1)(L.Dense(24, activation="selu", kernel_initializer="lecun_normal")(x))
    return L.Dense(3)(x)


def squeeze(x: Any) -> Any:
    """Squeeze and excitation."""
    gate = L.Dense(4, activation="relu")(L.GlobalAveragePooling2D()(x))
    gate = L.Reshape((1, 1, x.shape[-1]))(L.Dense(x.shape[-1], activation="sigmoid")(gate))
    return L.Multiply()([x, gate])


def efficient(x: Any) -> Any:
    """A gate of a convolution over channels."""
    gate = L.Reshape((x.shape[-1], 1))(L.GlobalAveragePooling2D()(x))
    gate = L.Conv1D(1, 3, padding="same", use_bias=False, activation="sigmoid")(gate)
    return L.Multiply()([x, L.Reshape((1, 1, x.shape[-1]))(gate)])


def spatial(x: Any) -> Any:
    """A gate for each place."""
    both = [ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)]
    return x * L.Conv2D(1, 5, padding="same", activation="sigmoid")(L.Concatenate()(both))


for _name, _gate in {"gate_channels": squeeze, "gate_eca": efficient, "gate_places": spatial}.items():
    row(IMAGE, name=_name)(lambda x, gate=_gate: head(conv(gate(conv(stem(x), 12)), 16, strides=2)))


def _activated(name: str, make: Callable[[], Any], inside: bool = False) -> None:
    @row(IMAGE, name=f"act_{name}")
    def model(x: Any) -> Any:
        x = L.Rescaling(1 / 127.5, -1.0)(x)
        if inside:
            return head(L.Conv2D(12, 3, activation=name)(L.Conv2D(8, 3, 2, activation=name)(x)))
        return head(conv(conv(x, 8, strides=2, act=make()), 12, act=make()))


for _name in ("silu", "hard_silu", "gelu", "mish", "elu", "selu", "softplus", "tanh", "hard_sigmoid"):
    _activated(_name, lambda name=_name: L.Activation(name))
_activated("prelu", lambda: L.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"))
_activated("leaky_relu", lambda: L.LeakyReLU(0.2))
_activated("relu6", lambda: L.ReLU(6.0))
_activated("swish", lambda: None, inside=True)


@row(IMAGE)
def grouped(x: Any) -> Any:
    return head(conv(conv(stem(x, 16), 16, groups=4), 16, 1))


@row(IMAGE)
def shuffled(x: Any) -> Any:
    x = stem(x, 16)
    left, right = ops.split(x, 2, axis=-1)
    right = conv(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(conv(right, 8, 1))), 8, 1)
    x = L.Reshape((12, 12, 2, 8))(L.Concatenate()([left, right]))
    return head(L.Reshape((12, 12, 16))(L.Permute((1, 2, 4, 3))(x)))


@row(IMAGE)
def separable(x: Any) -> Any:
    x = stem(x)
    y = L.BatchNormalization()(L.SeparableConv2D(16, 3, padding="same", use_bias=False)(x))
    y = L.MaxPooling2D(3, 2, padding="same")(L.ReLU()(y))
    return head(L.Add()([y, conv(x, 16, 1, 2, act=None)]))


@row(IMAGE)
def residual(x: Any) -> Any:
    x = stem(x, 16)
    for _ in range(2):
        y = L.ReLU()(L.BatchNormalization()(x))
        x = L.Add()([x, L.Conv2D(16, 3, padding="same")(conv(y, 16))])
    return head(L.ReLU()(L.BatchNormalization()(x)))


@row(IMAGE)
def dense_blocks(x: Any) -> Any:
    x = stem(x)
    for _ in range(3):
        y = L.Conv2D(6, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))
        x = L.Concatenate()([x, y])
    return head(L.ReLU()(L.BatchNormalization()(x)))


@row(IMAGE)
def inverted_residual(x: Any) -> Any:
    x = stem(x)
    y = conv(x, 36, 1, act=L.ReLU(6.0))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    return head(L.Add()([x, conv(y, 12, 1, act=None)]))


@row(IMAGE, (6,))
def image_and_table(x: Any, t: Any) -> Any:
    both = [L.GlobalAveragePooling2D()(conv(stem(x), 12)), L.Dense(8, activation="relu")(t)]
    return L.Dense(3, activation="softmax")(L.Concatenate()(both))


@row(IMAGE, IMAGE)
def siamese(a: Any, b: Any) -> Any:
    inside = keras.Input(IMAGE)
    tower = keras.Model(inside, L.Dense(8)(L.GlobalAveragePooling2D()(stem(inside))), name="tower")
    return L.Dense(1, activation="sigmoid")(ops.abs(tower(a) - tower(b)))


@row(IMAGE)
def one_layer_thrice(x: Any) -> Any:
    layer = L.Conv2D(12, 3, padding="same", activation="relu")
    return head(chain(stem(x), layer, layer, layer))


@row(IMAGE)
def quantity(x: Any) -> Any:
    x = L.Conv2D(12, 3, 2, activation="relu")(L.Rescaling(1 / 255.0)(x))
    return L.Dense(1)(L.Flatten()(x))


@row(IMAGE)
def group_normalized(x: Any) -> Any:
    x = L.Conv2D(16, 3, 2, padding="same")(L.Rescaling(1 / 127.5, -1.0)(x))
    return head(L.ReLU()(L.GroupNormalization(4)(x)))


@row((6, 12, 12, 3), data="signal")
def video(x: Any) -> Any:
    x = L.Conv3D(8, 3, activation="relu")(x)
    return L.Dense(4, activation="softmax")(L.GlobalAveragePooling3D()(L.MaxPooling3D((1, 2, 2))(x)))


@row((16, 32, 1), data="signal")
def characters(x: Any) -> Any:
    x = L.MaxPooling2D()(L.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = L.Reshape((16, 64))(L.Permute((2, 1, 3))(x))
    return L.Dense(9, activation="softmax")(L.Bidirectional(L.GRU(8, return_sequences=True))(x))


@row(IMAGE)
def operators(x: Any) -> Any:
    x = L.Conv2D(12, 3, 2, padding="same", activation="relu")(x / 127.5 - 1.0)
    x = x + 0.5 * L.Conv2D(12, 3, padding="same")(x)
    return L.Dense(4)(ops.mean(ops.relu(x), axis=(1, 2)))


@row(IMAGE)
def lambda_inside(x: Any) -> Any:
    x = L.Conv2D(8, 3, 2, activation="relu")(L.Rescaling(1 / 255.0)(x))
    return head(L.Conv2D(8, 1)(L.Lambda(lambda y: y * ops.sigmoid(y), output_shape=lambda s: s)(x)))


@keras.saving.register_keras_serializable("coverage")
class Powers(L.Layer):
    """A mean with a learned power: a layer of one's own that has no kernel."""

    def build(self, shape: Any) -> None:
        self.power = self.add_weight(shape=(), initializer=keras.initializers.Constant(3.0), name="power")
        super().build(shape)

    def call(self, x: Any) -> Any:
        x = ops.power(ops.clip(x, 1e-3, 1e3), self.power)
        return ops.power(ops.mean(x, axis=(1, 2)), 1.0 / self.power)


@keras.saving.register_keras_serializable("coverage")
class Block(L.Layer):
    """A layer of one's own that consists of Keras's."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters
        self.convolution = L.Conv2D(filters, 3, padding="same", use_bias=False)
        self.norm = L.BatchNormalization()

    def build(self, shape: Any) -> None:
        self.convolution.build(shape)
        self.norm.build((*shape[:-1], self.filters))
        super().build(shape)

    def call(self, x: Any, training: Any = None) -> Any:
        return ops.relu(x + self.norm(self.convolution(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("coverage")
class Centered(L.Conv2D):
    """A subclass of a usual layer that computes its kernel otherwise."""

    def convolution_op(self, x: Any, kernel: Any) -> Any:
        return super().convolution_op(x, kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True))


@keras.saving.register_keras_serializable("coverage")
class Net(keras.Model):
    """A subclassed model."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = L.Rescaling(1 / 127.5, -1.0)
        self.convolutions = [L.Conv2D(filters, 3, 2, use_bias=False) for filters in (12, 16)]
        self.norms = [L.BatchNormalization() for _ in range(2)]
        self.pool, self.classes = L.GlobalAveragePooling2D(), L.Dense(5, activation="softmax")

    def call(self, x: Any, training: Any = None) -> Any:
        x = self.scale(x)
        for convolution, norm in zip(self.convolutions, self.norms):
            x = keras.activations.relu(norm(convolution(x), training=training))
        return self.classes(self.pool(x))


row(IMAGE, name="subclassed")(lambda x: Net())
row(IMAGE, name="own_layer")(lambda x: L.Dense(4)(Powers()(conv(stem(x), 12))))
row(IMAGE, name="own_block")(lambda x: head(Block(12)(stem(x))))
row(IMAGE, name="own_convolution")(lambda x: head(Centered(12, 3, activation="relu")(stem(x))))
