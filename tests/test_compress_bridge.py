"""The bridge to tf_keras: same weights and outputs both ways, and tfmot's masks equal ours across it."""

import keras
import numpy as np
import pytest
import tf_keras
from applications import application

import tfopt
from tfopt._tfmot import tfmot
from tfopt.compress import Pruning, from_tf_keras, to_tf_keras

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def sequential():
    layers = [
        L.Rescaling(1 / 255, name="rescaling"),
        L.Conv2D(8, 3, activation="silu", kernel_regularizer=keras.regularizers.L2(1e-4)),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.SeparableConv2D(8, 3, depthwise_constraint=keras.constraints.MaxNorm(2.0)),
        L.ReLU(6.0),
        L.Flatten(),
        L.Dropout(0.3),
        L.Dense(5, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers], name="sequential")


def nested():
    base = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35
    )
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = L.GlobalAveragePooling2D()(base(inputs, training=False))
    return keras.Model(inputs, L.Dense(5)(x))


def shared_and_merged():
    first, second = keras.Input((32, 32, 3), name="a"), keras.Input((32, 32, 3), name="b")
    layer = L.Conv2D(4, 3, padding="same", name="shared")
    x = L.Concatenate()([layer(first), L.Multiply()([layer(second), layer(first)])])
    return keras.Model([first, second], [L.GlobalAveragePooling2D()(x), L.Subtract()([first, second])])


MODELS = {
    "sequential": sequential,
    "nested": nested,
    "shared and merged": shared_and_merged,
    "MobileNet": application("MobileNet", 32, alpha=0.25),
}
LARGE = {
    name: application(name, 32)
    for name in ("MobileNet", "MobileNetV2", "ResNet50", "ResNet50V2", "DenseNet121")
}
LARGE["tfopt's MobileNetV2"] = lambda: tfopt.models.mobilenet("mobilenet_v2", 5, image_size=32, alpha=0.35)


def lively(model):
    """Random statistics and shifts, so that equality is not trivial."""
    for variable in model.weights:
        if variable.path.endswith("moving_variance"):
            variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
        if variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(RNG.normal(0, 0.1, variable.shape))
    return model


def outputs(model):
    """Outputs of either Keras, in one list."""
    values = model([IMAGES, IMAGES[::-1]] if len(model.inputs) == 2 else IMAGES, training=False)
    return [np.asarray(value) for value in (values if isinstance(values, list) else [values])]


def check_round_trip(model):
    model = lively(model)
    bridged = to_tf_keras(model)
    back = from_tf_keras(bridged)
    assert isinstance(bridged, tf_keras.Model) and isinstance(back, keras.Model)
    for ours, there, again in zip(outputs(model), outputs(bridged), outputs(back), strict=True):
        scale = max(np.abs(ours).max(), 1e-3)
        np.testing.assert_allclose(there, ours, atol=2e-5 * scale)
        np.testing.assert_allclose(again, ours, atol=2e-5 * scale)
    assert bridged.count_params() == model.count_params() == back.count_params()
    for old, new in zip(bridged.get_weights(), back.get_weights()):
        np.testing.assert_array_equal(old, new)
    return bridged, back


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name):
    check_round_trip(MODELS[name]())


@pytest.mark.full
@pytest.mark.parametrize("name", LARGE)
def test_round_trip_of_large_models(name):
    check_round_trip(LARGE[name]())


def test_names_options_and_trainability_cross():
    model = sequential()
    model.layers[1].trainable = False
    bridged, back = check_round_trip(model)
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in bridged.layers[1:]] == names
    assert [layer.name for layer in back.layers if not isinstance(layer, L.InputLayer)] == names
    assert bridged.get_layer(names[1]).trainable is False and back.get_layer(names[1]).trainable is False
    assert back.get_layer(names[1]).kernel_regularizer.l2 == pytest.approx(1e-4)
    assert back.get_layer(names[4]).depthwise_constraint.max_value == 2.0
    bridged.compile("adam", "sparse_categorical_crossentropy")
    bridged.fit(IMAGES, np.arange(4), verbose=0)
    assert not np.array_equal(bridged.get_weights()[-1], model.get_weights()[-1])


def test_models_made_in_tf_keras_come_over():
    inner = tf_keras.Sequential([tf_keras.layers.Conv2D(4, 3), tf_keras.layers.ReLU()], name="inner")
    inputs = tf_keras.Input((32, 32, 3))
    x = tf_keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(3, activation="swish")(x), name="outer")
    np.testing.assert_allclose(outputs(from_tf_keras(model))[0], outputs(model)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "layer, text",
    [
        (lambda: L.LayerNormalization(name="bad"), "'bad' .LayerNormalization. cannot cross"),
        (lambda: L.Dense(3, activation="hard_sigmoid", name="bad"), "'bad' .Dense.*hard_sigmoid.*differs"),
        (lambda: L.Activation("relu6", name="bad"), "'bad' .Activation.*relu6"),
        (
            lambda: L.BatchNormalization(renorm=True, name="bad"),
            "'bad' .BatchNormalization.*renorm.*does not exist there",
        ),
        (lambda: lambda x: keras.ops.abs(x), "Operation 'absolute' .Absolute. cannot cross"),
    ],
)
def test_what_cannot_cross_is_named(layer, text):
    inputs = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match=text):
        to_tf_keras(keras.Model(inputs, layer()(inputs)))


def test_models_of_the_wrong_kind_are_named():
    with pytest.raises(TypeError, match="instance of Model"):
        from_tf_keras(sequential())
    with pytest.raises(ValueError, match="built Sequential"):
        from_tf_keras(tf_keras.Sequential([tf_keras.layers.Dense(3)]))
    dense = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    wrapped = tfmot().sparsity.keras.prune_low_magnitude(to_tf_keras(dense))
    with pytest.raises(ValueError, match="PruneLowMagnitude"):
        from_tf_keras(wrapped)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_pruning_equals_tfmot_on_the_same_model(pattern):
    """Both prune without learning (rate 0), by the same schedule; then the weights are compared."""
    sparsity = tfmot().sparsity.keras
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Conv2D(8, 3, name="conv"),
            L.DepthwiseConv2D(3, name="depthwise"),
            L.Flatten(name="flatten"),
            L.Dense(12, name="dense"),
        ]
    )
    images, targets = RNG.normal(size=(24, 8, 8, 4)), RNG.normal(size=(24, 12))
    options = {"block_size": (1, 1)} if pattern == "unstructured" else {"sparsity_m_by_n": (2, 4)}
    target = 0.8 if pattern == "unstructured" else 0.5
    schedule = sparsity.PolynomialDecay(0.2, target, begin_step=0, end_step=4, frequency=1)
    wrapped = sparsity.prune_low_magnitude(to_tf_keras(model), schedule, **options)
    wrapped.compile(tf_keras.optimizers.SGD(0.0), "mse")
    callbacks = [sparsity.UpdatePruningStep()]
    wrapped.fit(images, targets, batch_size=4, epochs=1, callbacks=callbacks, verbose=0)
    theirs = from_tf_keras(sparsity.strip_pruning(wrapped))
    ours = keras.models.clone_model(model)
    ours.set_weights(model.get_weights())
    ours.compile(keras.optimizers.SGD(0.0), "mse")
    pruning = Pruning(schedule if pattern == "unstructured" else 0.5, pattern=pattern)
    ours.fit(images, targets, batch_size=4, epochs=1, callbacks=[pruning], verbose=0)
    for name in ("conv", "depthwise", "dense"):
        expected, received = theirs.get_layer(name).kernel.numpy(), ours.get_layer(name).kernel.numpy()
        np.testing.assert_array_equal(received, expected, err_msg=name)
    assert np.mean(ours.get_layer("dense").kernel.numpy() == 0) == pytest.approx(target, abs=0.01)
