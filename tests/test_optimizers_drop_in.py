"""Where Keras's own optimizers just work: models built by their first step, other types, files, copies."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import CASES, Case
from contract import values
from test_optimizers_fit import X, Y, train

import tfopt.optimizers as to

# Those whose state starts as a copy of the weights, and one of each other way to build.
COPIES = [
    case if case.name == "Lookahead" else pytest.param(case, marks=pytest.mark.full)
    for case in CASES
    if case.name.startswith(("Lookahead", "Prodigy", "ScheduleFree", "AdamW"))
]


class Lazy(keras.Model):
    """Builds its layers in its first call, within the traced step."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = keras.layers.Dense(3), keras.layers.Dense(3)

    def call(self, x):
        return self.outer(self.inner(x))


def sequential():
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(3)])


def marked_as_built():
    model = Lazy()
    model.built = True
    return model


def trained(make_model, optimizer, **options):
    keras.utils.set_random_seed(0)
    model = make_model()
    model.compile(optimizer, "mse", **options)
    return train(model, 1)


@pytest.mark.parametrize("make_model", [sequential, Lazy, marked_as_built])
@pytest.mark.parametrize("case", COPIES, ids=str)
def test_a_model_that_its_first_step_builds_trains_as_a_built_one(case: Case, make_model):
    keras.utils.set_random_seed(0)
    built = make_model()
    built(X[:1])
    start = built.get_weights()
    built.compile(case.make(), "mse", jit_compile=False)
    train(built, 1)
    keras.utils.set_random_seed(0)
    lazy = make_model()
    lazy.compile(case.make(), "mse", jit_compile=False)
    train(lazy, 1)
    if not all(np.array_equal(x, y) for x, y in zip(built.get_weights(), lazy.get_weights(), strict=True)):
        # Layers that a graph builds may draw other first weights: then only the training can be checked.
        assert all(np.isfinite(weight).all() for weight in lazy.get_weights())
        assert any(not np.array_equal(x, y) for x, y in zip(start, lazy.get_weights()))


@pytest.mark.full
@pytest.mark.parametrize("make", [lambda: to.Muon(0.01), lambda: to.Lookahead(to.SOAP(0.01))])
def test_the_first_step_of_a_loop_of_ones_own_builds_the_optimizer(make):
    """AutoGraph rewrote `apply` and `build`, and the search for layers met its undefined names."""
    model, optimizer = sequential(), make()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    losses = [float(step(X, Y)) for _ in range(20)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "make", [to.Adam, to.Nadam, lambda: to.Lookahead(to.Adam())], ids=["Adam", "Nadam", "L"]
)
@pytest.mark.filterwarnings("ignore")
def test_a_trained_model_loads_from_both_files_and_trains_on_as_if_not_saved(make, suffix, tmp_path):
    model = trained(lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), make())
    model.loss = keras.losses.MeanSquaredError()
    model.compile(model.optimizer, keras.losses.MeanSquaredError())
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    for each in (model, loaded):
        train(each, 1)
    for x, y in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert int(loaded.optimizer.iterations) == 8


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.filterwarnings("ignore")
def test_a_frozen_model_loads(suffix, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.trainable = False
    model.compile(to.Nadam(), keras.losses.MeanSquaredError())
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert loaded.predict(X, verbose=0).shape == Y.shape


@pytest.mark.parametrize("remake", [lambda o: type(o).from_config(o.get_config()), copy.deepcopy])
def test_exclusions_from_decay_survive_a_copy_made_before_build(remake):
    bias, kernel, other = (keras.Variable(np.ones(2, "float32"), name=n) for n in ("bias", "kernel", "other"))
    optimizer = to.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[kernel], var_names=["bias"])
    again = remake(remake(optimizer))
    again.apply([tf.zeros(2)] * 3, [bias, kernel, other])
    assert [float(each.numpy()[0]) == 1.0 for each in (bias, kernel, other)] == [True, True, False]


def test_the_average_of_a_large_weight_is_finite():
    optimizer, weight = to.SGD(0.0, use_ema=True), keras.Variable([1e30])
    optimizer.apply([tf.zeros(1)], [weight])
    np.testing.assert_array_equal(optimizer.average_values([weight])[0], [np.float32(1e30)])


def alternating(optimizer, heads):
    """Four cycles of two calls in which heads take turns; what the means of a cycle are."""
    cycles = [[(1.0, None, None), (None, 2.0, None)], [(None, None, 3.0), (1.0, None, None)]] * 2
    steps = {}
    for cycle in cycles:
        for call in cycle:
            key = tuple(value is None for value in call)

            def step(*grads, key=key):
                optimizer.apply([None if n else g for n, g in zip(key, grads)], heads)

            steps.setdefault(key, tf.function(step, autograph=False))
            steps[key](*[tf.fill([2], 0.0 if value is None else value) for value in call])
    for cycle in cycles:
        totals = [[value for value in head if value is not None] for head in zip(*cycle)]
        yield [tf.fill([2], sum(total) / 2) if total else None for total in totals]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(
    "make",
    [
        lambda: to.Adam(0.1),
        lambda: to.SGD(0.1, momentum=0.9, weight_decay=0.1),
        lambda: keras.optimizers.Adam(0.1),
        lambda: to.Cautious(to.AdamW(0.1)),
    ],
    ids=["Adam", "SGD", "Keras", "Cautious"],
)
def test_accumulation_updates_all_that_had_a_gradient_in_the_cycle(make):
    heads, expected = ([keras.Variable(np.ones(2, "float32"), name=n) for n in "abc"] for _ in range(2))
    accumulated, plain = to.GradientAccumulation(make(), 2), make()
    accumulated.build(heads)
    for means in alternating(accumulated, heads):
        plain.apply(means, expected)
    for x, y in zip(values(heads), values(expected)):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("make", [to.SGD, to.Adam, to.LazyAdam, lambda: to.Lookahead(to.Lion())])
def test_sparse_gradients_may_have_tuples_as_indices_and_shape(make):
    """As in Keras's own tests, and as Keras takes them."""
    weights = [keras.Variable(np.ones((5, 2), "float32")) for _ in range(2)]
    values, indices, shape = tf.ones((3, 2)), (0, 2, 4), (5, 2)
    for weight, sparse in zip(weights, ((indices, shape), (tf.constant(indices), tf.constant(shape)))):
        make().apply([tf.IndexedSlices(values, *sparse)], [weight])
    np.testing.assert_array_equal(*(weight.numpy() for weight in weights))
    assert (weights[0].numpy()[0] != 1).all()
