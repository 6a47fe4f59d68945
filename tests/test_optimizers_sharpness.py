"""SharpnessAware against NumPy, and under every way of training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import close, values
from reference import sgd
from test_optimizers_fit import X, gradient, linear_model, train

import tfopt.optimizers as to
from tfopt.models import SharpnessAware

RATE, RHO = float(np.float32(0.1)), 0.1


def climbing_gradient(adaptive):
    """The gradient at w + e, from arXiv:2010.01412 (equation 2) and 2102.11600 (equation 4)."""

    def at(t, w):
        slopes = gradient(t, w)
        sizes = [np.abs(x) if adaptive else np.ones_like(x) for x in w]
        norm = np.sqrt(sum(np.sum((s * g) ** 2) for s, g in zip(sizes, slopes)))
        return gradient(t, [x + RHO * s**2 * g / norm for x, s, g in zip(w, sizes, slopes)])

    return at


def wrapped(optimizer, adaptive=False, **options):
    model = SharpnessAware(linear_model("sgd"), rho=RHO, adaptive=adaptive)
    model.compile(optimizer, "mse", **options)
    return model


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("options", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}])
def test_fit_equals_the_reference(adaptive, options):
    model = wrapped(to.SGD(RATE), adaptive, **options)
    start = values(model.weights)
    train(model)
    close(model.weights, sgd.run(start, climbing_gradient(adaptive), 12, RATE), 1e-5)
    assert model.optimizer.iterations.numpy() == 12


def test_two_replicas_and_loss_scaling_equal_one_device(two_replicas):
    one = train(wrapped(to.AdamW(0.01)))
    scaled = train(wrapped(keras.optimizers.LossScaleOptimizer(to.AdamW(0.01))))
    with two_replicas.scope():
        both = wrapped(to.GradientAccumulation(to.AdamW(0.01), steps=1))
    train(both)
    close(scaled.weights, one.weights, 1e-5)
    close(both.weights, one.weights, 1e-5)
    for variable in both.weights:
        np.testing.assert_array_equal(*[copy.numpy() for copy in variable.value.values])


def test_the_second_pass_leaves_no_trace():
    """Batch statistics move once per step; dropout is the same in both passes; the loss is the plain one."""

    def fit(wrap):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        trained = SharpnessAware(model, rho=RHO) if wrap else model
        trained.compile(to.SGD(0.0), "mse")
        history = trained.fit(X, np.zeros((32, 3)), batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model, history.history["loss"]

    (plain, plain_loss), (model, loss) = fit(False), fit(True)
    close(model.non_trainable_variables, plain.non_trainable_variables, 1e-6)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-5)
    close(model.trainable_variables, plain.trainable_variables, 0.0)


def test_a_saved_wrapper_trains_on_identically(tmp_path):
    model = train(wrapped(to.AdamW(0.01)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    train(model, 1)
    train(loaded, 1)
    close(loaded.weights, model.weights, 0.0)


def test_bad_arguments_are_refused():
    model = linear_model("sgd")
    for rho in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`rho` must be a number > 0"):
            SharpnessAware(model, rho=rho)
    with pytest.raises(TypeError, match="`model`"):
        SharpnessAware("model")
    with pytest.raises(ValueError, match="`model` must be built"):
        SharpnessAware(keras.Sequential([keras.layers.Dense(1)]))
    assert tf.convert_to_tensor(SharpnessAware(model)(X)).shape == (32, 3)


@pytest.mark.parametrize("outputs", [list, dict])
def test_several_outputs_have_losses_by_name(outputs):
    """As the model inside has them: the same history."""

    def fit(wrap):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        heads = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("low", "high")}
        model = keras.Model(inputs, heads if outputs is dict else list(heads.values()))
        trained = SharpnessAware(model, rho=RHO) if wrap else model
        options = {"loss_weights": {"high": 2.0, "low": 1.0}, "metrics": {"low": "mae"}}
        trained.compile(to.SGD(0.0), {"low": "mse", "high": "mae"}, **options)
        targets = {name: np.full((32, 1), value, "float32") for name, value in (("low", 1.0), ("high", 5.0))}
        y = targets if outputs is dict else list(targets.values())
        return trained.fit(X, y, batch_size=8, shuffle=False, verbose=0).history

    plain, sharp = fit(False), fit(True)
    assert set(sharp) == set(plain) == {"loss", "low_loss", "high_loss", "low_mae"}
    for name, value in plain.items():
        np.testing.assert_allclose(sharp[name], value, rtol=1e-5)


@pytest.mark.parametrize("name", ["train_step", "compute_loss"])
def test_a_step_or_loss_of_the_model_that_would_not_be_called_is_refused(name):
    own = type("Own", (keras.Model,), {name: lambda self, *args, **options: None})
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match=f"would not call `Own.{name}`.*subclass of `SharpnessAware`"):
        SharpnessAware(own(inputs, keras.layers.Dense(1)(inputs)))


def test_the_loss_of_a_subclass_is_used_in_both_passes():
    class Doubled(SharpnessAware):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 2.0 * keras.ops.mean((y - y_pred) ** 2)

    model = Doubled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    model.compile(keras.optimizers.SGD(0.0))
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    expected = 2.0 * float(((y - model.predict(x, verbose=0)) ** 2).mean())
    assert model.fit(x, y, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-5)
