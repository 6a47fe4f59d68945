"""Unfreeze: what trains when, optimizer state, batch norm, traces, restarts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import callbacks as C

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4)).astype("f"), RNG.normal(size=(16, 1)).astype("f")


@keras.saving.register_keras_serializable(package="test_unfreeze")
class Traces(keras.layers.Layer):
    count = 0

    def call(self, x, training=False):
        Traces.count += bool(training)
        return x


def make(optimizer=None, nested=True, **options):
    keras.utils.set_random_seed(1)
    backbone = [keras.layers.Dense(4, name="low"), keras.layers.BatchNormalization(name="norm")]
    backbone.append(keras.layers.Dense(4, name="middle"))
    body = [keras.Sequential([keras.Input((4,)), *backbone], name="backbone")] if nested else backbone
    model = keras.Sequential([keras.Input((4,)), Traces(), *body, keras.layers.Dense(1, name="head")])
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", **{"jit_compile": False, **options})
    return model


class Movement(keras.callbacks.Callback):
    """Names of the variables that an epoch changed."""

    def __init__(self):
        super().__init__()
        self.moved = []

    def on_epoch_begin(self, epoch, logs=None):
        self.before = {v.path: v.numpy() for v in self.model.weights}

    def on_epoch_end(self, epoch, logs=None):
        changed = (v.path for v in self.model.weights if not np.array_equal(v.numpy(), self.before[v.path]))
        self.moved.append({"/".join(path.split("/")[-2:]) for path in changed})


HEAD = {"head/kernel", "head/bias"}
MIDDLE = {"middle/kernel", "middle/bias"}
LOW = {"low/kernel", "low/bias"}
NORM = {"norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"}
OPTIMIZERS = {
    "keras": lambda: keras.optimizers.Adam(0.01),
    "tfopt": lambda: tfopt.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True),
    "wrapped": lambda: tfopt.optimizers.Lookahead(
        tfopt.optimizers.GradientAccumulation(keras.optimizers.SGD(0.01, momentum=0.9), 2), 2
    ),
}


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("keras", {}),
        ("wrapped", {"steps_per_execution": 2}),
        *(pytest.param(name, {}, marks=pytest.mark.full) for name in ("tfopt", "wrapped")),
        pytest.param("tfopt", {"jit_compile": True}, marks=pytest.mark.full),
    ],
)
def test_stages_by_pattern_and_share(optimizer, options):
    model, movement = make(OPTIMIZERS[optimizer](), **options), Movement()
    unfreeze = C.Unfreeze({0: "head", 2: "middle", 3: 1.0})
    Traces.count = 0
    model.fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[unfreeze, movement])
    assert movement.moved == [HEAD, HEAD, HEAD | MIDDLE, HEAD | MIDDLE | LOW, HEAD | MIDDLE | LOW]
    assert Traces.count <= 3 * 2  # stages times the passes of one tracing
    before = Traces.count
    model.fit(X, Y, batch_size=4, epochs=7, initial_epoch=5, verbose=0, callbacks=[unfreeze, movement])
    assert movement.moved[-1] == HEAD | MIDDLE | LOW and Traces.count <= before + 2


def test_shares_count_from_the_top_and_batch_norm_trains_if_asked():
    model, movement = make(nested=False), Movement()
    unfreeze = C.Unfreeze({0: 0.1, 1: 0.5, 2: 0.75, 3: 1.0}, train_batch_norm=True)
    model.fit(X, Y, batch_size=4, epochs=4, verbose=0, callbacks=[unfreeze, movement])
    parts = [HEAD, HEAD | MIDDLE, HEAD | MIDDLE | NORM, HEAD | MIDDLE | NORM | LOW]
    assert movement.moved == parts


def test_no_stage_loses_the_optimizers_state():
    """The head, which trains all the time, takes the steps of a run in which it alone was ever built."""
    alone = make()
    for layer in alone.layers[:-1]:
        layer.trainable = False
    alone.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    staged = make()
    unfreeze = C.Unfreeze({0: "head", 3: 1.0})
    unfreeze.prepare(staged)
    built = [id(v) for v in staged.optimizer.variables]
    assert len(built) == 2 + 2 * 6  # iterations, rate, two moments of three kernels and biases
    staged.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[unfreeze])
    alone.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(alone.get_weights(), staged.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    moments = [v.numpy() for v in staged.optimizer.variables if "head" in v.path]
    assert all(np.any(moment) for moment in moments)
    staged.fit(X, Y, batch_size=4, epochs=4, initial_epoch=3, verbose=0, callbacks=[unfreeze])
    assert [id(v) for v in staged.optimizer.variables] == built
    assert int(staged.optimizer.iterations) == 16


def test_a_model_saved_after_the_last_stage_keeps_its_optimizer(tmp_path):
    model = make()
    unfreeze = C.Unfreeze({0: "head", 1: 1.0})
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[unfreeze])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.full
def test_resume_in_any_stage(tmp_path):
    class Stop(Exception):
        pass

    def run(folder, stop_at=None):
        def stop(epoch, logs):
            if epoch == stop_at:
                raise Stop

        model, unfreeze = make(), C.Unfreeze({0: "head", 1: "middle", 3: 1.0})
        unfreeze.prepare(model)
        callbacks = [C.Resume(folder, every_seconds=0), unfreeze]
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=stop))
        model.fit(X, Y, batch_size=4, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
        return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]

    whole = run(tmp_path / "whole")
    for epoch in (1, 2, 4):
        with pytest.raises(Stop):
            run(tmp_path / str(epoch), epoch)
        again = run(tmp_path / str(epoch))
        assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True)), epoch


def test_under_a_strategy(two_replicas):
    with two_replicas.scope():
        model = make()
    movement = Movement()
    callbacks = [C.Unfreeze({0: "head", 1: 1.0}), movement]
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    assert movement.moved == [HEAD, HEAD | MIDDLE | LOW]


def two_towers():
    def encoder(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(2, name="proj")(inputs), name=name)

    query, document, inputs = encoder("query"), encoder("document"), keras.Input((4,))
    outputs = keras.layers.Dense(1, name="head")(keras.layers.Multiply()([query(inputs), document(inputs)]))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    return model


def test_the_name_of_a_part_lets_its_layers_train_though_their_paths_are_those_of_another():
    model = two_towers()
    C.Unfreeze({0: "head", 1: "document"}).prepare(model)
    assert [v.path for v in model.trainable_variables] == ["head/kernel", "head/bias"]
    C.Unfreeze({0: "^document$"}).prepare(model)
    trained = {id(variable) for variable in model.trainable_variables}
    assert trained == {id(variable) for variable in model.get_layer("document").weights}
    with pytest.raises(ValueError, match=r"Models and blocks: \['query', 'document'\]"):
        C.Unfreeze({0: "encoder"}).prepare(model)


def test_what_does_not_fit_is_refused():
    for stages, error, word in (
        ({1: 0.5}, ValueError, "epoch 0"),
        ({0: 0.0}, ValueError, r"stages\[0\]"),
        ({0: 1.5}, ValueError, r"stages\[0\]"),
        ({-1: 0.5, 0: 1.0}, ValueError, "epoch"),
        ([0.5], TypeError, "stages"),
    ):
        with pytest.raises(error, match=word):
            C.Unfreeze(stages)
    with pytest.raises(ValueError, match="match a variable.*'tail'.*Layers:.*head"):
        make().fit(X, Y, verbose=0, callbacks=[C.Unfreeze({0: "tail"})])
    model = make()
    C.Unfreeze({0: "head"}).prepare(model)
    with pytest.raises(ValueError, match="Unfreeze.prepare"):
        model.fit(X, Y, verbose=0, callbacks=[C.Unfreeze({0: "head", 1: 1.0})])


def test_resume_inside_an_epoch_of_an_earlier_stage_leaves_the_last_training_step(tmp_path):
    class Stop(Exception):
        pass

    def run(stop_at=None):
        def stop(batch, logs):
            if stop_at is not None and int(model.optimizer.iterations) == stop_at:
                raise Stop

        images = tf.data.Dataset.from_tensor_slices((np.arange(192).reshape(16, 2, 2, 3), np.arange(16) % 2))
        batches = tfopt.data.pipeline(images, 4)
        keras.utils.set_random_seed(1)
        layers = [
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="low"),
            keras.layers.Dense(2, name="head"),
        ]
        model = keras.Sequential([keras.Input((2, 2, 3)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-5), loss, jit_compile=False)
        unfreeze = C.Unfreeze({0: "head", 2: 1.0})
        unfreeze.prepare(model)
        callbacks = [C.Resume(tmp_path, batches, every_seconds=0), unfreeze]
        callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_end=stop))
        model.fit(batches, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        return model, batches

    with pytest.raises(Stop):
        run(stop_at=6)  # within the second epoch
    model, batches = run()
    before = model.get_layer("low").get_weights()
    model.fit(batches, verbose=0, shuffle=False)
    assert not np.array_equal(before[0], model.get_layer("low").get_weights()[0])
