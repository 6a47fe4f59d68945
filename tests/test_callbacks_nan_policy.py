"""NanPolicy: bad batches change nothing, on every device, with XLA, in accumulation; it gives up in time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt import optimizers as O
from tfopt.callbacks import NanPolicy, Resume

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype("float32"), RNG.normal(size=(32, 1)).astype("float32")
BAD = 8  # the first example of a bad batch of 4
NUMBERS = {"NaN": np.nan, "infinite": np.inf, "too large": 1e25}


def make(optimizer=None, **options):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    optimizer = O.Adam(0.05) if optimizer is None else optimizer
    model.compile(optimizer, "mse", metrics=["mae"], **{"jit_compile": False, **options})
    return model


def spoiled(number, rows=slice(BAD, BAD + 4)):
    y = Y.copy()
    y[rows] = number
    return y


def fit(model, x, y, *callbacks, **options):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, callbacks=list(callbacks), **options).history


def without_bad_batch(model, **options):
    rows = np.r_[:BAD, BAD + 4 : len(X)]
    return fit(model, X[rows], Y[rows], **options)


def check_equal(a, b, tolerance=0.0):
    pairs = zip([*a.weights, *a.optimizer.variables], [*b.weights, *b.optimizer.variables])
    for one, two in pairs:
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_a_bad_batch_leaves_no_trace(number, caplog):
    skipping, plain = make(), make()
    history = fit(skipping, X, spoiled(number), NanPolicy("skip"))
    expected = without_bad_batch(plain)
    check_equal(skipping, plain)
    assert history.pop("skipped_batches") == [1]
    assert history == {name: pytest.approx(values) for name, values in expected.items()}
    assert "skipped batch 2 of epoch 0" in caplog.text
    fit(skipping, X, Y)  # the guard is gone
    fit(plain, X, Y)
    check_equal(skipping, plain)


@pytest.mark.parametrize(
    "options",
    [dict(jit_compile=True), dict(steps_per_execution=4), dict(run_eagerly=True)],
    ids=["XLA", "several steps", "eager"],
)
def test_in_every_mode(options):
    skipping, plain = make(**options), make(**options)
    assert fit(skipping, X, spoiled(np.nan), NanPolicy("skip"))["skipped_batches"] == [1]
    without_bad_batch(plain)
    check_equal(skipping, plain, 1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: O.GradientAccumulation(O.AdamW(0.05), 2),
        lambda: O.Lookahead(O.SGD(0.05, momentum=0.9), sync_period=2),
        pytest.param(lambda: keras.optimizers.Adam(0.05), marks=pytest.mark.full),
        pytest.param(lambda: O.SOAP(0.05), marks=pytest.mark.full),
    ],
    ids=["accumulation", "Lookahead", "Keras", "SOAP"],
)
def test_with_wrappers_and_with_keras(optimizer):
    skipping, plain = make(optimizer()), make(optimizer())
    fit(skipping, X, spoiled(np.inf), NanPolicy("skip"), epochs=2)
    without_bad_batch(plain, epochs=2)
    check_equal(skipping, plain)


def test_replicas_decide_together(two_replicas):
    with two_replicas.scope():
        skipping = make()
        plain = make()
    fit(skipping, X, spoiled(np.nan, BAD), NanPolicy("skip"))  # one example, of one replica
    without_bad_batch(plain)
    check_equal(skipping, plain, 1e-6)
    for variable in skipping.trainable_variables:
        one, two = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, two)


def test_raise_ends_with_the_last_good_weights_and_names_the_variable():
    raising, plain = make(), make()
    with pytest.raises(FloatingPointError, match=r"batch 2 of epoch 0: the gradient of `.*kernel` is NaN"):
        fit(raising, X, spoiled(np.nan), NanPolicy())
    fit(plain, X[:BAD], Y[:BAD])
    check_equal(raising, plain)


def test_it_gives_up_after_some_bad_batches_in_a_row():
    with pytest.raises(FloatingPointError, match="the last of 3 bad batches in a row"):
        fit(make(), X, spoiled(np.nan, slice(BAD, None)), NanPolicy("skip", patience=3))


def test_rollback_that_does_not_get_on_ends_in_a_sentence():
    model, first = make(), make().get_weights()
    with pytest.raises(FloatingPointError, match=r"went back 3 times to the same weights.*`every` below 100"):
        fit(model, X, spoiled(np.nan), NanPolicy("rollback", patience=3), epochs=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, model.get_weights()))
    model = make()  # with copies in between it gets on
    policy = NanPolicy("rollback", patience=3, every=2)
    assert fit(model, X, spoiled(np.nan), policy, epochs=5)["skipped_batches"] == [1] * 5


def test_rollback_goes_back_to_the_last_copy():
    rolling, plain = make(), make()
    history = fit(rolling, X[: BAD + 4], spoiled(np.nan)[: BAD + 4], NanPolicy("rollback", every=5))
    assert history["skipped_batches"] == [1]
    check_equal(rolling, plain) if plain.optimizer.built else None
    for one, two in zip(rolling.trainable_variables, plain.trainable_variables):
        np.testing.assert_array_equal(one.numpy(), two.numpy())  # the copy was made before the first batch
    assert int(rolling.optimizer.iterations) == 0


def scaled(initial_scale=2.0**15, **options):
    optimizer = keras.optimizers.LossScaleOptimizer(O.Adam(0.05), initial_scale=initial_scale)
    return make(optimizer, **options)


@pytest.mark.parametrize(
    "options", [dict(), pytest.param(dict(jit_compile=True), marks=pytest.mark.full)], ids=["graph", "XLA"]
)
def test_with_loss_scaling_bad_data_leave_no_trace_and_the_scale_stays(options):
    skipping, plain = scaled(**options), scaled(**options)
    history = fit(skipping, X, spoiled(np.nan), NanPolicy("skip"))
    expected = without_bad_batch(plain)
    check_equal(skipping, plain, 1e-6)
    assert history.pop("skipped_batches") == [1]
    assert history == {name: pytest.approx(values, rel=1e-5) for name, values in expected.items()}
    assert float(skipping.optimizer.dynamic_scale) == 2.0**15


def test_a_scale_that_is_too_large_is_lowered_and_not_counted():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        guarded, plain = (scaled(2.0**20) for _ in range(2))
    finally:
        keras.config.set_dtype_policy("float32")
    assert fit(guarded, X, Y, NanPolicy(), epochs=2)["skipped_batches"] == [0, 0]
    fit(plain, X, Y, epochs=2)
    check_equal(guarded, plain)
    assert 2.0 < float(plain.optimizer.dynamic_scale) < 2.0**20


def test_replicas_with_loss_scaling_decide_together(two_replicas):
    with two_replicas.scope():
        skipping, plain = scaled(), scaled()
    fit(skipping, X, spoiled(np.nan, BAD), NanPolicy("skip"))  # one example, of one replica
    without_bad_batch(plain)
    check_equal(skipping, plain, 1e-6)


def test_with_loss_scaling_the_loss_is_named():
    with pytest.raises(FloatingPointError, match="batch 2 of epoch 0: the loss is NaN"):
        fit(scaled(), X, spoiled(np.nan), NanPolicy())
    with pytest.raises(FloatingPointError, match=r"gradient of `.*kernel` is NaN, infinite or above 1e-06"):
        fit(scaled(), X, Y, NanPolicy(limit=1e-6))


def test_counters_survive_resume(tmp_path):
    def run(stop=None):
        def begin(epoch, logs=None):
            if epoch == stop:
                raise KeyboardInterrupt

        model = make()
        stopping = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
        callbacks = [Resume(tmp_path, every_seconds=0), NanPolicy("skip"), stopping]
        return fit(model, X, spoiled(np.nan), *callbacks, epochs=3)

    with pytest.raises(KeyboardInterrupt):
        run(stop=2)
    assert run()["skipped_batches"] == [1, 1, 1]


def test_rows_of_an_embedding_and_two_optimizers():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.head = keras.layers.Embedding(9, 4), keras.layers.Dense(1)
            self.opts = [O.LazyAdam(0.1), keras.optimizers.SGD(0.1)]

        def train_step(self, data):
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean((self.head(self.table(x)) - y) ** 2)
            for optimizer, part in zip(self.opts, (self.table, self.head)):
                optimizer.apply(tape.gradient(loss, part.trainable_variables), part.trainable_variables)
            return {"loss": loss}

    model = Two()
    model.compile()
    tokens = np.arange(32) % 9
    history = fit(model, tokens, spoiled(np.nan), NanPolicy("skip"))
    assert history["skipped_batches"] == [1]
    assert [int(each.iterations) for each in model.opts] == [7, 7]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
