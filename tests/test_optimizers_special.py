"""What is special to one optimizer or wrapper: rows, groups, accumulation, averages, files."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import CASES
from contract import apply, close, gradients, values, variables
from reference import schedule_free
from test_optimizers_fit import BATCH, X, Y, linear_model, train

import tfopt.optimizers as to
from tfopt.schedules import Steps


def rows_of(table, indices, value=1.0):
    shape = tf.constant(table.shape, tf.int64)
    return tf.IndexedSlices(tf.fill((len(indices), table.shape[1]), value), tf.constant(indices), shape)


@pytest.mark.parametrize("make", [lambda: to.LazyAdam(0.1), lambda: to.Adagrad(0.1), lambda: to.SGD(0.1)])
def test_rows_without_a_gradient_stay_with_their_state(make):
    table, optimizer = keras.Variable(tf.ones((6, 2))), make()
    optimizer.build([table])
    before = values(optimizer.variables)
    optimizer.apply([rows_of(table, [1, 4, 1])], [table])
    moved = np.any(table.numpy() != 1.0, axis=1)
    assert moved.tolist() == [False, True, False, False, True, False]
    for old, new in zip(before, values(optimizer.variables)):
        if old.shape == (6, 2):
            assert np.array_equal(old[[0, 2, 3, 5]], new[[0, 2, 3, 5]])


@pytest.mark.parametrize("make", [lambda: to.Muon(0.1), lambda: to.SOAP(0.1, refresh_period=2)])
def test_each_channel_of_a_depthwise_kernel_is_a_column_of_its_matrix(make):
    start = np.random.default_rng(0).normal(size=(9, 5)).astype("float32")
    results = []
    for shape in ((3, 3, 5, 1), (9, 5)):
        kernel, optimizer = keras.Variable(start.reshape(shape)), make()
        optimizer.build([kernel])
        for step in range(5):
            grad = np.random.default_rng(step).normal(size=shape).astype("float32")
            optimizer.apply([tf.constant(grad)], [kernel])
        results.append(kernel.numpy().reshape(9, 5))
        assert max(max(variable.shape, default=0) for variable in optimizer.variables) <= 9
    np.testing.assert_allclose(*results, rtol=1e-6)
    assert np.abs(results[0] - start).max() > 0.01


class OneHotEmbedding(keras.layers.Embedding):
    """An embedding with a dense gradient."""

    def call(self, inputs):
        return tf.one_hot(tf.cast(inputs, tf.int32), self.input_dim) @ self.embeddings


@pytest.mark.parametrize("jit", [False, True])
def test_an_embedding_trains_in_fit_by_rows(jit):
    def fit(optimizer, kind):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,), dtype="int32"), kind(10, 3), keras.layers.Flatten()])
        model.add(keras.layers.Dense(1))
        model.compile(optimizer, "mse", jit_compile=jit)
        ids = np.random.default_rng(0).integers(0, 10, (16, 4))
        model.fit(ids, np.ones((16, 1)), batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.weights

    clipped = {"global_clipnorm": 0.5}
    for make, options in ((to.Adagrad, clipped), (to.SGD, clipped), (to.SGD, {"weight_decay": 0.1})):
        rows = fit(make(0.1, **options), keras.layers.Embedding)
        close(rows, fit(make(0.1, **options), OneHotEmbedding), 1e-5)


def test_clipping_counts_duplicate_rows_once():
    sparse, dense = keras.Variable(tf.ones((4, 2))), keras.Variable(tf.ones((4, 2)))
    to.SGD(1.0, global_clipnorm=1.0).apply([rows_of(sparse, [1, 1, 2])], [sparse])
    gradient = tf.constant([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    to.SGD(1.0, global_clipnorm=1.0).apply([gradient], [dense])
    close([sparse], [dense], 1e-6)


# Groups -----------------------------------------------------------------------------------------------


def deep_model():
    layers = [keras.layers.Dense(4, name=f"d{i}") for i in range(3)]
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.BatchNormalization(name="bn")])


@pytest.mark.parametrize("inner", [to.AdamW, keras.optimizers.AdamW])
def test_groups_equal_separate_optimizers(inner):
    grouped = to.ParameterGroups(inner(0.01, weight_decay=0.1), [to.Group("v1", 0.5, weight_decay=0.0)])
    whole, parts = variables(), variables()
    one, other = inner(0.01, weight_decay=0.1), inner(0.005, weight_decay=0.0)
    for grads in gradients()[1:8]:
        apply(grouped, whole, grads)
        apply(one, [v for v in parts if v.name != "v1"], [g for i, g in enumerate(grads) if i != 1])
        apply(other, [parts[1]], [grads[1]])
    close(whole, parts, 1e-6)


def test_layer_decay_and_discriminative_rates():
    model = deep_model()
    groups = to.layer_decay(model, 0.5) + to.no_decay_on_norm_and_bias(model)
    optimizer = to.ParameterGroups(to.AdamW(0.01), groups)
    optimizer.build(model.trainable_variables)
    kernels = [optimizer.assignment[i] for i in (0, 2, 4)]
    assert [tuple(entry) for entry in kernels] == [(0.25, None), (0.5, None), (1.0, None)]
    assert all(tuple(optimizer.assignment[i])[1] == 0.0 for i in (1, 3, 5, 6, 7))
    rates = [group.learning_rate_multiplier for group in to.discriminative(model, 0.01)]
    np.testing.assert_allclose(rates, [0.01, 0.1, 1.0])


def test_the_assignment_survives_changed_paths(tmp_path):
    """A Sequential loses its name from the paths of its variables when it is loaded."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")], name="net")
    groups = [to.Group("net/out/kernel", 0.0)]
    model.compile(to.ParameterGroups(to.SGD(0.1), groups), "mse")
    train(model, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = loaded.layers[0].kernel.numpy()
    train(loaded, 1)
    train(model, 1)
    np.testing.assert_array_equal(loaded.layers[0].kernel.numpy(), before)
    close(loaded.weights, model.weights, 0.0)


def test_groups_refuse_what_does_not_match():
    with pytest.raises(ValueError, match="Near misses: .*d1/kernel"):
        to.ParameterGroups(to.SGD(0.1), [to.Group("d1/kernal")]).build(deep_model().trainable_variables)
    with pytest.raises(ValueError, match="regular expression"):
        to.Group("(")
    with pytest.raises(ValueError, match="`assignment`"):
        to.ParameterGroups(to.SGD(0.1), [], [(1.0, None)]).build(variables())
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`learning_rate_multiplier`"):
            to.Group("a", bad)
        with pytest.raises(ValueError, match="`weight_decay`"):
            to.Group("a", weight_decay=bad)


# Accumulation -----------------------------------------------------------------------------------------


def test_accumulation_equals_the_big_batch_with_everything_on(two_replicas):
    options = {"weight_decay": 0.1, "global_clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.9}
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)

    def run(optimizer, batch):
        model = linear_model(optimizer)
        model.fit(X, Y, batch_size=batch, epochs=4, shuffle=False, verbose=0)
        return model

    big = run(to.AdamW(rate, **options), 16)
    for make in (to.AdamW, keras.optimizers.AdamW):
        small = run(to.GradientAccumulation(make(rate, **options), steps=2), 8)
        close(small.weights, big.weights, 1e-5)
    with two_replicas.scope():
        model = linear_model(to.GradientAccumulation(to.AdamW(rate, **options), steps=2))
    model.fit(X, Y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    close(model.weights, big.weights, 1e-5)
    assert model.optimizer.iterations.numpy() == 8


def test_steps_change_at_run_time_without_a_new_trace():
    optimizer, weight = to.GradientAccumulation(to.SGD(1.0), steps=1), keras.Variable([0.0])
    optimizer.build([weight])
    step = tf.function(lambda g: optimizer.apply([g], [weight]))
    seen = []
    for steps in (1, 3):
        optimizer.set_steps(steps)
        for _ in range(3):
            step(tf.constant([1.0]))
            seen.append(float(weight.numpy()[0]))
    assert seen == [-1.0, -2.0, -3.0, -3.0, -3.0, -4.0]
    assert step.experimental_get_tracing_count() == 1
    with pytest.raises(ValueError, match="`steps` must be an integer >= 1"):
        optimizer.set_steps(0)


def test_steps_follow_a_batch_size_schedule():
    schedule = Steps({0: BATCH, 2 * BATCH: 2 * BATCH})
    model = linear_model(to.GradientAccumulation(to.SGD(0.01), schedule, micro_batch_size=BATCH))
    train(model, 2)  # 8 batches: two updates from one batch each, three from two
    assert int(model.optimizer.iterations) == 5
    again = to.GradientAccumulation.from_config(model.optimizer.get_config())
    assert again.steps.sizes.tolist() == [BATCH, 2 * BATCH]
    with pytest.raises(ValueError, match=r"rounded_to\(5\)"):
        to.GradientAccumulation(to.SGD(0.01), schedule, micro_batch_size=5)
    with pytest.raises(TypeError, match="`micro_batch_size`"):
        to.GradientAccumulation(to.SGD(0.01), schedule)


# Averages and wrappers --------------------------------------------------------------------------------


def test_schedule_free_evaluates_at_the_average():
    weights, grads = variables("float64"), gradients()
    expected = schedule_free.run(
        values(weights), lambda t, w: grads[t], 20, np.float32(0.1), beta_2=0.999, averages=True
    )
    optimizer = to.ScheduleFreeAdamW(0.1)
    for t in range(1, 21):
        apply(optimizer, weights, grads[t])
    before = values(weights)
    close(optimizer.average_values(weights), expected, 1e-7)
    close(weights, before, 0.0)  # nothing was written
    ema = to.SGD(0.1, use_ema=True)
    apply(ema, weights, grads[1])
    close(ema.average_values(weights), weights, 1e-12)
    assert to.SGD(0.1).average_values(weights) is None


def test_schedule_free_starts_from_weights_loaded_after_build():
    loaded, fresh = variables(), variables()
    optimizer = to.ScheduleFreeSGD(0.1)
    optimizer.build(loaded)
    for weight in loaded + fresh:
        weight.assign(weight * 0 + 7.0)
    other = to.ScheduleFreeSGD(0.1)
    for grads in gradients()[1:6]:
        apply(optimizer, loaded, grads)
        apply(other, fresh, grads)
    close(loaded, fresh, 0.0)


@pytest.mark.parametrize("wrapper", [to.Lookahead, to.Cautious])
def test_wrappers_refuse_optimizers_with_their_own_average(wrapper):
    for inner in (to.ScheduleFreeSGD(0.1), to.SGD(0.1, use_ema=True)):
        with pytest.raises(ValueError, match=f"`{wrapper.__name__}` must not wrap"):
            wrapper(inner)


def test_wrappers_refuse_what_is_no_optimizer():
    with pytest.raises(TypeError, match="`optimizer` must be an instance of Optimizer"):
        to.Lookahead(3)
    with pytest.raises(ValueError, match="LossScaleOptimizer outside"):
        to.Lookahead(keras.optimizers.LossScaleOptimizer(to.SGD(0.1)))


def test_learning_rates_that_keras_would_bake_in_are_refused():
    for rate, kind, text in ((1, TypeError, "Write 1.0"), (lambda: 0.1, TypeError, "schedule")):
        with pytest.raises(kind, match=text):
            to.Adam(rate)
    with pytest.raises(ValueError, match="GradientAccumulation"):
        to.Adam(gradient_accumulation_steps=2)
    for rate in (float("nan"), float("inf"), -0.1):
        with pytest.raises(ValueError, match="`learning_rate` must be"):
            to.Adam(rate)


@pytest.mark.parametrize("make", [lambda: to.Adam(0.1), lambda: to.Lookahead(keras.optimizers.Adam(0.1))])
def test_a_bad_learning_rate_set_later_changes_nothing(make):
    optimizer = make()
    for bad in (
        float("nan"),
        -0.1,
        np.float32("inf"),
        np.array(np.nan),
        tf.constant(-1.0),
        tf.Variable(np.nan),
    ):
        with pytest.raises(ValueError, match="`learning_rate` must be"):
            optimizer.learning_rate = bad
    for bad in ("0.1", None, True, lambda: 0.1):
        with pytest.raises(TypeError, match="`learning_rate` must be"):
            optimizer.learning_rate = bad
    assert float(optimizer.learning_rate) == np.float32(0.1)
    for good in (0.5, np.float32(0.5), np.array(0.5), tf.constant(0.5), keras.Variable(0.5)):
        optimizer.learning_rate = 1
        optimizer.learning_rate = good
        assert float(optimizer.learning_rate) == 0.5
    scheduled = to.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))
    scheduled.learning_rate = keras.optimizers.schedules.CosineDecay(0.2, 10)
    assert float(scheduled.learning_rate) == np.float32(0.2)


def test_indices_without_decay_must_exist():
    for bad in ([2], [-1], ["a"], [0.0]):
        with pytest.raises((TypeError, ValueError), match="`undecayed` must be"):
            to.AdamW(0.1, undecayed=bad).build(variables(shapes=[(2,), (3,)]))


def test_loss_scale_moves_to_the_wrapper():
    grads = gradients()
    plain, scaled = variables(), variables()
    one = to.AdaptiveGradientClipping(to.SGD(0.1))
    two = to.AdaptiveGradientClipping(to.SGD(0.1, loss_scale_factor=64.0))
    assert two.loss_scale_factor == 64.0 and two.inner_optimizer.loss_scale_factor is None
    apply(one, plain, grads[1])
    apply(two, scaled, [64.0 * g for g in grads[1]])
    close(plain, scaled, 1e-6)


def test_large_variables_use_xla_with_the_same_result():
    shape = [(256, 300), (3,)]
    compiled, plain, grads = variables(shapes=shape), variables(shapes=shape), gradients(shapes=shape)
    a, b = to.Lion(0.01, weight_decay=0.1), to.Lion(0.01, weight_decay=0.1)
    a.build(compiled)
    step = tf.function(lambda g: apply(a, compiled, g))
    for t in range(1, 4):
        step([tf.constant(g, tf.float32) for g in grads[t]])
        apply(b, plain, grads[t])
    close(compiled, plain, 1e-6)


@pytest.mark.process
def test_every_saved_optimizer_loads_in_a_fresh_process(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    for case in CASES:
        model.compile(case.make(), "mse")
        model.optimizer.build(model.trainable_variables)
        model.save(tmp_path / f"{case}.keras")
    code = (
        "import pathlib, keras, tfopt\n"
        f"for path in sorted(pathlib.Path({str(tmp_path)!r}).glob('*.keras')):\n"
        "    assert keras.models.load_model(path).optimizer.built, path\n"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)
