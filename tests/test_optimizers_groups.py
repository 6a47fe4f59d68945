"""Groups of variables: by identity, for other models, and with optimizers of their own."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import apply, close, gradients, values, variables
from test_optimizers_fit import X, Y, replicas_are_equal

import tfopt.optimizers as to


def encoder(name):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, name="low")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="high")(hidden), name=name)


def two_towers():
    """Two encoders whose variables have equal paths."""
    inputs, left, right = keras.Input((4,)), encoder("left"), encoder("right")
    model = keras.Model(inputs, keras.layers.Add()([left(inputs), right(inputs)]))
    return model, left, right


def multipliers(model, groups):
    optimizer = to.ParameterGroups(to.SGD(1.0), groups)
    optimizer.build(model.trainable_variables)
    return [entry[0] for entry in optimizer.assignment]


def test_parts_with_equal_paths_get_their_own_rates():
    model, left, right = two_towers()
    assert len({v.path for v in model.trainable_variables}) < len(model.trainable_variables)
    assert sorted(set(multipliers(model, to.layer_decay(model, 0.5)))) == [0.125, 0.25, 0.5, 1.0]
    assert multipliers(model, [to.Group(left, 0.1)]) == [0.1] * 4 + [1.0] * 4
    assert multipliers(model, [to.Group([right.layers[1], left.weights[0]], 0.1)]).count(0.1) == 3


def test_equal_paths_of_a_config_made_before_build_are_refused():
    model, left, _ = two_towers()
    optimizer = to.ParameterGroups(to.SGD(1.0), [to.Group(left, 0.1)])
    again = to.ParameterGroups.from_config(optimizer.get_config())
    with pytest.raises(ValueError, match="Build the optimizer before it is saved"):
        again.build(model.trainable_variables)
    optimizer.build(model.trainable_variables)
    again = to.ParameterGroups.from_config(optimizer.get_config())
    again.build(model.trainable_variables)
    assert [tuple(entry) for entry in again.assignment] == [tuple(entry) for entry in optimizer.assignment]


def test_adapters_that_a_layer_gets_later_belong_to_its_group():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)])
    groups = to.layer_decay(model, 0.5)
    model.layers[0].enable_lora(2)
    assert multipliers(model, groups) == [0.5, 0.5, 0.5, 1.0, 1.0]


def test_the_assignment_of_another_model_is_not_used():
    def model(first, second):
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, name=first), keras.layers.Dense(3, name=second)]
        )

    optimizer = to.ParameterGroups(to.SGD(1.0), [to.Group("body", 0.1)])
    optimizer.build(model("body", "head").trainable_variables)
    again = to.ParameterGroups.from_config(optimizer.get_config())
    again.build(model("entry", "body").trainable_variables)
    assert [entry[0] for entry in again.assignment] == [1.0, 1.0, 0.1, 0.1]
    lost = to.ParameterGroups.from_config(
        optimizer.get_config() | {"groups": [to.Group("body", 0.1, optional=True).get_config()]}
    )
    with pytest.raises(ValueError, match="made for other variables"):
        lost.build(model("a", "b").trainable_variables)


# Optimizers of their own ------------------------------------------------------------------------------


def mixed(**options):
    kernels = to.Group("kernel", optimizer=to.Muon(0.02, weight_decay=0.1))
    return to.ParameterGroups(to.AdamW(0.01, **options), [kernels, to.Group("low/kernel", 0.5)])


def fitted(optimizer, epochs=2, **options):
    keras.utils.set_random_seed(0)
    model = encoder("model")
    model.compile(optimizer, keras.losses.MeanSquaredError(), **options)
    return train(model, epochs)


def train(model, epochs):
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def test_each_group_is_updated_by_its_optimizer():
    weights, separate = variables(), variables()
    matrices = [f"v{i}" for i in (2, 4)]
    optimizer = to.ParameterGroups(to.AdamW(0.01), [to.Group(matrices, 0.5, optimizer=to.Muon(0.02))])
    adamw, muon = to.AdamW(0.01), to.Muon(0.01)
    for grads in gradients()[1:6]:
        apply(optimizer, weights, grads)
        for own, places in ((adamw, (0, 1, 3)), (muon, (2, 4))):
            apply(own, [separate[i] for i in places], [grads[i] for i in places])
    close(weights, separate, 1e-6)
    assert [int(each.iterations) for each in (optimizer, *optimizer.group_optimizers)] == [5, 5]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: inner,
        pytest.param(lambda inner: to.Lookahead(inner, sync_period=2), marks=pytest.mark.full),
        lambda inner: to.GradientAccumulation(inner, 2),
        pytest.param(lambda inner: to.Cautious(inner), marks=pytest.mark.full),
        pytest.param(keras.optimizers.LossScaleOptimizer, marks=pytest.mark.full),
    ],
    ids=["alone", "Lookahead", "GradientAccumulation", "Cautious", "LossScale"],
)
@pytest.mark.filterwarnings("ignore")
def test_optimizers_of_groups_are_saved_copied_and_trained_on(wrap, tmp_path):
    model = fitted(wrap(mixed()), jit_compile=False)
    model.save(tmp_path / "model.keras")
    again = [keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model)]
    model.save_weights(tmp_path / "w.weights.h5")
    fresh = fitted(wrap(mixed()), 1, jit_compile=False)
    fresh.load_weights(tmp_path / "w.weights.h5")
    for each in (model, *again, fresh):
        train(each, 1)
    for each in (*again, fresh):
        for x, y in zip(values(model.weights), values(each.weights), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
        assert int(each.optimizer.iterations) == int(model.optimizer.iterations)


def test_optimizers_of_groups_on_replicas_equal_one_device(two_replicas):
    one = fitted(mixed(), jit_compile=False)
    with two_replicas.scope():
        both = encoder("model")
        both.compile(mixed(), keras.losses.MeanSquaredError())
        both.set_weights(fitted(mixed(), 0).get_weights())
    train(both, 2)
    close(both.weights, one.weights, 1e-4)
    replicas_are_equal(both, both.optimizer)


def test_an_optimizer_without_gradients_counts_on():
    kernel, bias = keras.Variable([[1.0]], name="kernel"), keras.Variable([1.0], name="bias")
    optimizer = mixed()
    optimizer.groups = optimizer.groups[:1]
    optimizer.build([kernel, bias])
    for grads in ([tf.ones((1, 1)), None], [None, tf.ones(1)], [tf.ones((1, 1)), tf.ones(1)]):
        optimizer.apply(grads, [kernel, bias])
    assert [int(each.iterations) for each in (optimizer, *optimizer.group_optimizers)] == [3, 3]


def test_one_learning_rate_moves_all_in_proportion():
    optimizer = mixed()
    for rate in (0.005, 0.0, 0.02):
        optimizer.learning_rate = rate
        np.testing.assert_allclose(float(optimizer.group_optimizers[0].learning_rate), 2 * rate, rtol=1e-6)


def test_the_average_of_a_group_is_offered():
    optimizer = to.ParameterGroups(to.SGD(0.1), [to.Group("v2", optimizer=to.ScheduleFreeSGD(0.1))])
    weights = variables()
    for grads in gradients()[1:4]:
        apply(optimizer, weights, grads)
    averages = optimizer.average_values(weights)
    equal = [np.array_equal(x, y) for x, y in zip(values(averages), values(weights))]
    assert equal == [True, True, False, True, True]
    with pytest.raises(ValueError, match="derives the weights"):
        to.Lookahead(optimizer)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: to.ParameterGroups(to.ParameterGroups(to.SGD(), []), []), "Add the lists of groups"),
        (lambda: to.ParameterGroups(to.Prodigy(), [to.Group("a", 0.5)]), "one learning rate"),
        (
            lambda: to.ParameterGroups(
                to.SGD(), [to.Group("a", optimizer=to.GradientAccumulation(to.SGD(), 2))]
            ),
            "same updates",
        ),
        (lambda: to.ParameterGroups(to.SGD(name="s"), [to.Group("a", optimizer=to.SGD(name="s"))]), "names"),
    ],
)
def test_groups_refuse_what_would_change_an_optimizer(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pattern_that_misses_where_paths_are_equal_names_the_way_out():
    def layer():
        made = keras.layers.Dense(2, name="fc")
        made.build((None, 3))
        return made

    one, two = layer(), layer()
    variables = [*one.weights, *two.weights]
    with pytest.raises(ValueError, match=r"have equal paths: give the layer .* as in Group\(layer, 0.1\)"):
        to.ParameterGroups(to.SGD(1.0), [to.Group("^query/fc", 0.1)]).build(variables)
    optimizer = to.ParameterGroups(to.SGD(1.0), [to.Group(one, 0.1)])
    optimizer.build(variables)
    assert [multiplier for multiplier, *_ in optimizer.assignment] == [0.1, 0.1, 1.0, 1.0]
