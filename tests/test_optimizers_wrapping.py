"""What has to pass through wrappers: exclusion from weight decay, groups, half precision, raw gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt.optimizers as to


def pair():
    return [keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")]


def test_exclusion_from_weight_decay_reaches_the_optimizer_inside():
    for inner in (to.AdamW, keras.optimizers.AdamW):
        optimizer, weights = to.Lookahead(to.Cautious(inner(0.1, weight_decay=0.5)), slow_step=1.0), pair()
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(weights)
        assert [optimizer.inner_optimizer.inner_optimizer._use_weight_decay(v) for v in weights] == [
            True,
            False,
        ]
        with pytest.raises(ValueError, match="before the optimizer"):
            optimizer.exclude_from_weight_decay(var_names=["kernel"])


def test_groups_inherit_the_exclusion_also_after_loading():
    core, weights = to.AdamW(0.1, weight_decay=0.5), pair()
    optimizer = to.ParameterGroups(core, [to.Group("kernel", 0.5)])
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(weights)
    loaded = to.ParameterGroups.from_config(optimizer.get_config())
    for each in (optimizer, loaded):
        for weight in weights:
            weight.assign([1.0])
        each.build(weights)
        each.apply([tf.zeros(1), tf.zeros(1)], weights)
        np.testing.assert_allclose([weight.numpy()[0] for weight in weights], (0.975, 1.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adaptive_clipping_of_half_precision_takes_its_norms_in_float32(dtype):
    """The square of 400 is more than float16 can hold, that of 0.0001 less."""
    for weight, size, expected in ((1000.0, 400.0, 900.0), (0.0, 0.0001, -0.00005)):
        kernel = keras.Variable(tf.fill((4,), weight), dtype=dtype)
        optimizer = to.AdaptiveGradientClipping(to.SGD(1.0), clip_factor=0.1)
        optimizer.apply([tf.cast(tf.fill((4,), size), dtype)], [kernel])
        np.testing.assert_allclose(tf.cast(kernel, "float32"), expected, rtol=0.01)


def test_centralization_of_half_precision_takes_its_means_in_float32():
    """The sum of so many gradients is more than float16 can hold."""
    kernel = keras.Variable(tf.zeros((1000, 2)), dtype="float16")
    gradient = tf.concat([tf.fill((999, 2), 100.0), tf.fill((1, 2), 101.0)], axis=0)
    to.GradientCentralization(to.SGD(1.0)).apply([tf.cast(gradient, "float16")], [kernel])
    np.testing.assert_allclose(kernel.numpy()[-1], -1.0, rtol=0.01)
    np.testing.assert_allclose(kernel.numpy()[0], 0.0, atol=0.01)


def model_with(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("make", [to.AdamW, lambda: to.Lookahead(to.AdamW())])
def test_weights_load_into_a_model_that_has_not_trained(make, tmp_path):
    """Whose optimizer has no variables yet; as in Keras its state is left out with a warning."""
    model = model_with(make())
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other = model_with(make())
    with pytest.warns(UserWarning, match=r"not built.*`optimizer.build\(model.trainable_variables\)`"):
        other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    built = model_with(make())
    built.optimizer.build(built.trainable_variables)
    built.load_weights(tmp_path / "model.weights.h5")
    assert int(built.optimizer.iterations) == 1


def test_custom_loops_may_have_numpy_gradients_and_plain_variables():
    groups = [to.Group("kernel", 0.5)]
    for optimizer in (to.SGD(0.1), to.Lookahead(to.SGD(0.1)), to.GradientAccumulation(to.SGD(0.1), 1)):
        optimizer = to.ParameterGroups(optimizer, groups)
        weights = [tf.Variable([1.0], name="kernel"), tf.Variable([1.0], name="bias")]
        optimizer.apply_gradients(zip([np.ones(1, "float32"), np.ones(1, "float32")], weights))
        np.testing.assert_allclose([weight.numpy()[0] for weight in weights], (0.95, 0.9))
    weight = keras.Variable([1.0])
    to.Adam(0.1, clipnorm=1.0, loss_scale_factor=1.0).apply([np.ones(1, "float32")], [weight])
    np.testing.assert_allclose(weight.numpy(), 0.9, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: to.Adagrad(0.1), lambda: to.SGD(0.1)], ids=["Adagrad", "SGD"])
def test_accumulation_takes_optimizers_that_leave_rows_without_gradient_alone(make):
    """Only LazyAdam is refused: its rows without a gradient stay, which a dense mean cannot say."""
    accumulated, plain = (keras.Variable(np.ones((3, 2), "float32"), name="v") for _ in range(2))
    optimizer, once = to.GradientAccumulation(make(), 2), make()
    for row in (0, 2):
        slices = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([row]), tf.constant([3, 2]))
        optimizer.apply([slices], [accumulated])
    once.apply([tf.constant([[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]])], [plain])
    np.testing.assert_allclose(accumulated, plain, rtol=1e-6)


def test_cautious_must_not_see_one_batch_of_several():
    with pytest.raises(ValueError, match="`Cautious` must not wrap a `GradientAccumulation`"):
        to.Cautious(to.Lookahead(to.GradientAccumulation(to.SGD(0.1), 2)))
    to.GradientAccumulation(to.Cautious(to.SGD(0.1)), 2)


def test_groups_that_are_no_list_of_groups_are_refused():
    for bad in (to.Group("kernel"), "kernel", None):
        with pytest.raises(TypeError, match="`groups` must be an instance of list or tuple"):
            to.ParameterGroups(to.SGD(0.1), bad)
    for bad in (3, None):
        with pytest.raises(TypeError, match="`match` must be an instance of str or list or tuple"):
            to.Group(bad)


@pytest.mark.parametrize("make", [lambda: to.Adam(0.1), lambda: to.Lookahead(to.Cautious(to.AdamW(0.1)))])
def test_a_model_trained_with_loss_scaling_loads_and_goes_on_without(tmp_path, make):
    policy = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_float16")
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile(make(), "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=2, verbose=0)
        model.save(tmp_path / "model.keras")
    finally:
        keras.mixed_precision.set_global_policy(policy)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(loaded.optimizer) is type(model.optimizer.inner_optimizer)
    assert loaded.optimizer.iterations > 0
    for old, new in zip(model.optimizer.inner_optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    loaded.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: to.GradientAccumulation(to.LazyAdam(), 2), "must not wrap `LazyAdam`"),
        (lambda: to.GradientAccumulation(to.Cautious(to.LazyAdam()), 2), "must not wrap `LazyAdam`"),
        (lambda: to.Cautious(to.Lookahead(to.Adam())), "must not wrap a `Lookahead`"),
        (lambda: to.Cautious(keras.optimizers.Adam(gradient_accumulation_steps=2)), "accumulation_steps"),
        (lambda: to.AdaptiveGradientClipping(to.GradientAccumulation(to.SGD(), 2)), "clipped alone"),
        (
            lambda: to.GradientAccumulation(keras.optimizers.Adam(gradient_accumulation_steps=2), 2),
            "single call",
        ),
    ],
)
def test_wrappers_refuse_what_would_change_the_meaning(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrappers_take_names_and_configs_as_compile_does():
    assert type(to.Lookahead("adam").inner_optimizer) is keras.optimizers.Adam
    assert type(to.Lookahead("tfopt>Lion").inner_optimizer) is to.Lion
    config = keras.optimizers.serialize(to.AdamW(0.5))
    assert float(to.GradientAccumulation(config, 2).learning_rate) == 0.5
    with pytest.raises(TypeError, match=r"Make one of the class: Adam\(\)"):
        to.Lookahead(to.Adam)
    with pytest.raises(ValueError, match="Could not interpret|Could not deserialize|Unknown"):
        to.Lookahead("no optimizer")


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("gradient", [float("nan"), float("inf"), 1e20])
def test_soap_survives_gradients_that_no_decomposition_takes(gradient, run_eagerly):
    optimizer, weight = to.SOAP(0.01), keras.Variable(np.ones((3, 2), "float32"))
    optimizer.build([weight])

    @tf.function(input_signature=[tf.TensorSpec(None)])
    def step(grad):
        optimizer.apply([grad], [weight])

    apply = step.python_function if run_eagerly else step
    for value in (1.0, gradient, 1.0, 1.0):
        apply(tf.fill((3, 2), value))
    assert int(optimizer.iterations) == 4
