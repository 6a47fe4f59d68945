"""Distillation: the loss against NumPy, the teacher untouched, the model the one it was."""

import keras
import numpy as np
import pytest

import tfopt
from tfopt.compress import Clustering, Distillation, Pruning, SoftTargets, SparseTraining, quantize_aware

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12)).astype("float32")
Y = RNG.integers(0, 3, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy


def make(units=8, activation=None, seed=0, optimizer=None, **options):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12,))
    hidden = L.Dense(units, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, L.Dense(3, activation=activation, name="logits")(hidden))
    loss = LOSS(from_logits=activation is None)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **{"jit_compile": False, **options})
    return model


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(teacher, student, temperature):
    p, q = (softmax(logits.astype("float64") / temperature) for logits in (teacher, student))
    return temperature**2 * np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1))


@pytest.mark.parametrize("ends", ["logits", "probabilities"])
def test_loss_equals_numpy_from_logits_and_from_probabilities(ends):
    teacher, student = (3.0 * RNG.normal(size=(16, 5)).astype("float32") for _ in range(2))
    expected = divergence(teacher, student, 4.0)
    logits = ends == "logits"
    given = (teacher, student) if logits else (softmax(teacher), softmax(student))
    loss = SoftTargets(4.0, teacher_logits=logits, student_logits=logits)
    assert float(loss.compute_loss(*given)) == pytest.approx(expected, rel=1e-4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    keras_own = keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence())
    assert not logits or float(keras_own.compute_loss(*given)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_one_step_is_that_of_the_mixed_loss(activation):
    """The gradient step of `fit` against the same loss written by hand."""
    import tensorflow as tf

    teacher, model, expected = make(16, seed=1), make(activation=activation), make(activation=activation)
    with tf.GradientTape() as tape:
        outputs = expected(X)
        logits = outputs if activation is None else tf.math.log(outputs)
        p = tf.nn.log_softmax(teacher(X) / 2.0)
        q = tf.nn.log_softmax(logits / 2.0)
        soft = 4.0 * tf.reduce_mean(tf.reduce_sum(tf.exp(p) * (p - q), axis=-1))
        loss = 0.25 * expected.loss(Y, outputs) + 0.75 * soft
    variables = expected.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables])):
        variable.assign(variable - 0.1 * gradient)
    history = model.fit(X, Y, batch_size=64, verbose=0, callbacks=[Distillation(teacher, 0.75, 2.0)])
    assert history.history["loss"][0] == pytest.approx(float(loss), rel=1e-5)
    for one, two in zip(model.get_weights(), expected.get_weights()):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_teacher_is_not_changed_and_leaves_after_fit(tmp_path):
    teacher, model = make(16, seed=1), make()
    teacher.get_layer("hidden").trainable = False
    before = teacher.get_weights()
    callback = Distillation(teacher, weight=1.0)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback], validation_data=(X, Y))
    for old, new in zip(before, teacher.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert teacher.trainable and teacher.get_layer("logits").trainable
    assert not teacher.get_layer("hidden").trainable
    assert len(model.weights) == 4 and len(model.trainable_weights) == 4
    plain = make()
    plain.set_weights(model.get_weights())
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(plain.evaluate(X, Y, verbose=0))
    for each in (model, plain):
        each.fit(X, Y, shuffle=False, verbose=0)  # without the teacher
    for one, two in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(one, two, atol=1e-6)
    model.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").count_params() == model.count_params()


def test_teacher_alone_makes_the_student_agree():
    teacher, model = make(16, "softmax", seed=1), make(16, "softmax", optimizer=keras.optimizers.Adam(1e-2))
    wrong = np.zeros_like(Y)
    model.fit(X, wrong, epochs=150, verbose=0, callbacks=[Distillation(teacher, weight=1.0)])
    agreement = np.mean(model.predict(X, verbose=0).argmax(-1) == teacher.predict(X, verbose=0).argmax(-1))
    assert agreement > 0.95


@pytest.mark.parametrize(
    "callback",
    [
        lambda t: Pruning(0.5, teacher=t),
        lambda t: Clustering(4, teacher=t),
        lambda t: SparseTraining(0.5, teacher=t),
    ],
    ids=["pruning", "clustering", "sparse training"],
)
def test_callbacks_take_a_teacher(callback):
    teacher = make(16, seed=1)
    with_teacher, without = make(), make()
    losses, options = [], {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    for model, given in ((with_teacher, teacher), (without, None)):
        history = model.fit(X, Y, **options, callbacks=[callback(given)])
        losses.append(history.history["loss"])
    kernel = with_teacher.get_layer("hidden").kernel.numpy()
    assert np.mean(kernel == 0) >= 0.5 or len(np.unique(kernel)) == 4
    assert losses[0] != losses[1]
    assert "compute_loss" not in vars(with_teacher)


def test_quantized_clone_takes_a_teacher():
    teacher = make(activation="softmax")
    quantized = quantize_aware(teacher, teacher=teacher)
    quantized.compile("sgd", LOSS(), jit_compile=False)
    loss = quantized.fit(X, Y, batch_size=64, verbose=0).history["loss"][0]
    assert loss == pytest.approx(0.5 * quantized.evaluate(X, Y, verbose=0), rel=0.1)  # it agrees with itself


def test_replicas_learn_as_one_device(two_replicas):
    results = []
    for scope in (two_replicas.scope, keras.name_scope):
        with scope() if scope == two_replicas.scope else scope("one"):
            teacher, model = make(16, seed=1), make()
        model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[Distillation(teacher)])
        results.append(model.get_weights())
    for one, two in zip(*results):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_features_and_a_sharpness_aware_student():
    teacher = make(8, seed=1)
    features = keras.distillation.FeatureDistillation("mse", "hidden", "hidden")
    model = make()
    model.fit(X, Y, verbose=0, callbacks=[Distillation(teacher, losses=[features])])
    inner = make()
    sharp = tfopt.models.SharpnessAware(inner)
    sharp.compile("sgd", LOSS(from_logits=True), jit_compile=False)
    sharp.fit(X, Y, verbose=0, callbacks=[Distillation(teacher)])


def several(seed, named=False):
    """Classes, labels on their own, and a quantity."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12,))
    hidden = L.Dense(8, activation="relu")(inputs)
    ends = {"kind": (3, "softmax"), "labels": (4, "sigmoid"), "size": (2, None)}
    outputs = {name: L.Dense(n, act, name=name)(hidden) for name, (n, act) in ends.items()}
    model = keras.Model(inputs, outputs if named else list(outputs.values()))
    losses = {"kind": "sparse_categorical_crossentropy", "labels": "binary_crossentropy", "size": "mse"}
    model.compile(keras.optimizers.Adam(0.01), losses if named else list(losses.values()), jit_compile=False)
    return model


@pytest.mark.parametrize("named", [True, False])
def test_each_output_follows_that_of_the_teacher(named):
    teacher, student = several(1, named), several(2, named)
    labels = {"kind": Y, "labels": np.zeros((64, 4)), "size": np.zeros((64, 2))}
    target = labels if named else list(labels.values())

    def apart():
        pairs = zip(*(keras.tree.flatten(model.predict(X, verbose=0)) for model in (teacher, student)))
        return np.array([np.mean((a - b) ** 2) for a, b in pairs])

    before = apart()
    student.fit(X, target, epochs=50, verbose=0, callbacks=[Distillation(teacher, weight=1.0)])
    assert (apart() < 0.35 * before).all()


def test_a_single_number_is_taught_by_its_difference():
    """The softmax of one number is 1 whatever it is: such a student learned nothing."""
    for activation in (None, "sigmoid"):
        keras.utils.set_random_seed(0)
        teacher, student = (keras.Sequential([keras.Input((12,)), L.Dense(1, activation)]) for _ in range(2))
        student.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
        before = np.mean((teacher.predict(X, verbose=0) - student.predict(X, verbose=0)) ** 2)
        student.fit(X, np.zeros((64, 1)), epochs=20, verbose=0, callbacks=[Distillation(teacher, weight=1.0)])
        after = np.mean((teacher.predict(X, verbose=0) - student.predict(X, verbose=0)) ** 2)
        assert after < 0.3 * before


def test_bad_input_is_named():
    model = make()
    with pytest.raises(TypeError, match="`teacher` must be an instance of Model"):
        Distillation("teacher")
    with pytest.raises(ValueError, match="weight=1.5"):
        Distillation(model, weight=1.5)
    with pytest.raises(ValueError, match="temperature=0"):
        Distillation(model, temperature=0)
    with pytest.raises(ValueError, match="another model than the one that learns"):
        model.fit(X, Y, verbose=0, callbacks=[Distillation(model)])
    other = keras.Sequential([keras.Input((12,)), L.Dense(4)])
    with pytest.raises(ValueError, match="shapes are incompatible"):
        model.fit(X, Y, verbose=0, callbacks=[Distillation(other)])
