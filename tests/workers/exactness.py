"""Several replicas against one device on the same global batches: the cases, for threads or processes."""

import keras
import numpy as np
import tensorflow as tf

import tfopt

ONE_DEVICE = tf.distribute.get_strategy()


def regression(rows: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 8)).astype("float32")
    return x, np.tanh(x @ rng.normal(size=(8, 2))).astype("float32")


def dense(units: int = 4, **options) -> keras.Model:
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units, "tanh", **options), keras.layers.Dense(2, **options)]
    )


def train(strategy, optimizer, *, model=dense, data=None, callbacks=(), epochs=2, **fit) -> list[np.ndarray]:
    """Trains from fixed weights. `optimizer`, `model`, `data`, each callback: functions that make them."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = model()
        network.compile(optimizer(), "mse", metrics=["mae"], jit_compile=False)
    if data is None:
        x, y = regression()
        fit |= {"x": x, "y": y, "batch_size": 16, "shuffle": False}
    else:
        batches = data(strategy)
        fit |= {"x": batches, "steps_per_epoch": getattr(batches, "steps_per_epoch", None)}
    history = network.fit(epochs=epochs, verbose=0, callbacks=[make() for make in callbacks], **fit).history
    state = [network.optimizer.iterations.numpy(), *history["loss"], *history["mae"]]
    return [*network.get_weights(), np.array(state, "float64")]


def images() -> tf.data.Dataset:
    pixels = np.random.default_rng(1).integers(0, 256, (100, 2, 2, 3)).astype("uint8")
    return tf.data.Dataset.from_tensor_slices((pixels, pixels[:, 0, 0, 0].astype("int64") // 100))


def image_model() -> keras.Model:
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((2, 2, 3)), *layers])


def pipeline(strategy) -> tf.data.Dataset:
    return tfopt.data.pipeline(images(), 16, image_size=2, drop_remainder=True)


def sharded(strategy) -> tf.data.Dataset:
    def make(size, shard):
        return tfopt.data.pipeline(images(), size, image_size=2, drop_remainder=True, shard=shard)

    return tfopt.distribute.sharded(strategy, make, 16)


def ramp(strategy) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_tensor_slices(regression(96))
    return tfopt.data.ramped_batches(dataset, tfopt.schedules.GeometricRamp(8, 32, ramp_samples=96), epochs=2)


def normalized(synchronized: bool = True) -> keras.Model:
    # Without a bias, whose gradient here is noise, which Adam amplifies.
    first = keras.layers.Dense(4, use_bias=False)
    normalization = keras.layers.BatchNormalization(synchronized=synchronized)
    return keras.Sequential([keras.Input((8,)), first, normalization, keras.layers.Dense(2)])


def dropped() -> keras.Model:
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((8,)), *layers])


def quantized() -> keras.Model:
    return tfopt.compress.quantize_aware(dense())


def judged(strategy) -> list[np.ndarray]:
    """`evaluate` and `predict`, with a last batch that the replicas cannot share evenly."""
    keras.utils.set_random_seed(0)
    x, y = regression(61)
    with strategy.scope():
        model = dense()
        model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
    losses = model.evaluate(x[:48], y[:48], batch_size=16, verbose=0)
    mae = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)["mae"]
    return [np.array([*losses, mae]), model.predict(x, batch_size=16, verbose=0)]


def overflow(strategy, row: int, optimizer) -> list[np.ndarray]:
    """Loss-scaled float16 in which row `row` of the second batch overflows: one update is skipped."""
    x, y = regression()
    x[16 + row] *= 30000.0
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    make = keras.optimizers.LossScaleOptimizer
    return train(
        strategy,
        lambda: make(optimizer(), initial_scale=1024.0),
        model=lambda: dense(dtype="mixed_float16"),
        data=lambda _: data,
        epochs=1,
    )[:-1]  # the loss of that batch is NaN


def sgd() -> keras.optimizers.Optimizer:
    return tfopt.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.05)


def adam() -> keras.optimizers.Optimizer:
    return tfopt.optimizers.Adam(0.01)


def lookahead() -> keras.optimizers.Optimizer:
    return tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(0.01, clipnorm=0.05), sync_period=3)


def accumulation() -> keras.optimizers.Optimizer:
    return tfopt.optimizers.GradientAccumulation(keras.optimizers.Adam(0.01), steps=2)


CASES = {
    "SGD, clipped": lambda strategy: train(strategy, sgd),
    "Keras Adam": lambda strategy: train(strategy, lambda: keras.optimizers.Adam(0.01)),
    "Lookahead of AdamW, clipped": lambda strategy: train(strategy, lookahead),
    "accumulation": lambda strategy: train(strategy, accumulation),
    "EMA, validated": lambda strategy: train(
        strategy,
        adam,
        callbacks=[lambda: tfopt.callbacks.WeightAveraging(decay=0.9)],
        validation_data=regression(),
        validation_batch_size=16,
    ),
    "ramp": lambda strategy: train(strategy, adam, data=ramp),
    "pipeline": lambda strategy: train(strategy, adam, data=pipeline, model=image_model),
    "sharded pipeline": lambda strategy: train(strategy, adam, data=sharded, model=image_model),
    "synchronized batch norm": lambda strategy: train(strategy, adam, model=normalized),
    "float16, overflow in the first half": lambda strategy: overflow(strategy, 1, sgd),
    "float16, overflow in the second half": lambda strategy: overflow(strategy, 9, sgd),
    "Adam in float16, overflow in the first half": lambda strategy: overflow(strategy, 1, adam),
    "Adam in float16, overflow in the second half": lambda strategy: overflow(strategy, 9, adam),
    "pruning": lambda strategy: train(
        strategy, adam, callbacks=[lambda: tfopt.compress.Pruning(0.5)], epochs=3
    ),
    "clustering": lambda strategy: train(strategy, adam, callbacks=[lambda: tfopt.compress.Clustering(4)]),
    "sparse training": lambda strategy: train(
        strategy, adam, callbacks=[lambda: tfopt.compress.SparseTraining(0.5, every=2)], epochs=3
    ),
    "quantization": lambda strategy: train(strategy, adam, model=quantized),
    "evaluate and predict": judged,
}

# What depends on how a batch is divided, but not on whether the replicas share a machine.
DIVIDED = {
    "dropout": lambda strategy: train(strategy, adam, model=dropped),
    "batch norm per replica": lambda strategy: train(strategy, adam, model=lambda: normalized(False)),
}

ALL = CASES | DIVIDED


def largest(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest difference between the arrays of two lists."""
    return max(float(np.abs(a.astype("float64") - b).max()) for a, b in zip(one, other, strict=True))


def difference(case: str, strategy) -> float:
    """The largest difference between `strategy` and one device, over weights, updates, loss and metrics."""
    return largest(CASES[case](strategy), CASES[case](ONE_DEVICE))
