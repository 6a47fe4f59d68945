"""tfopt.models.load: files of Keras 2 and 3 under any name give the model that wrote them."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import tfopt
from tfopt.models import load

K = tf_keras.layers
RNG = np.random.default_rng(0)


def images(*shape):
    return RNG.uniform(-1, 1, (4, *shape)).astype("float32")


def teachable_machine():
    """A nested trunk and a head with its own input shape, as Teachable Machine writes them."""
    trunk = tf_keras.Sequential(
        [
            K.InputLayer((16, 16, 3)),
            K.Conv2D(4, 3, strides=2, use_bias=False, name="Conv1"),
            K.BatchNormalization(name="bn_Conv1"),
            K.ReLU(6.0, name="Conv1_relu"),
            K.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            K.BatchNormalization(name="bn_depthwise"),
            K.ReLU(6.0),
        ]
    )
    inner = tf_keras.Model(trunk.input, trunk.output, name="model1")
    features = tf_keras.Sequential([inner, K.GlobalAveragePooling2D()], name="sequential_1")
    head = tf_keras.Sequential(
        [
            K.Dense(8, activation="relu", batch_input_shape=(None, 4), name="dense_Dense1"),
            K.Dense(3, activation="softmax", use_bias=False, name="dense_Dense2"),
        ],
        name="sequential_3",
    )
    return tf_keras.Sequential([features, head], name="sequential_4"), images(16, 16, 3)


def frozen_transfer():
    """The transfer learning tutorial: operators on tensors, a frozen base, augmentation."""
    base = tf_keras.Sequential(
        [
            K.InputLayer((12, 12, 3)),
            K.Conv2D(4, 3, use_bias=False, name="conv"),
            K.BatchNormalization(name="norm"),
            K.Conv2D(4, 3, use_bias=False, name="conv_2"),
            K.BatchNormalization(name="norm_2"),
        ],
        name="base",
    )
    base.trainable = False
    inputs = tf_keras.Input((12, 12, 3))
    x = K.RandomFlip()(inputs)
    x = 1.0 - base(x * 2.0 / 127.5 - 1.0, training=False)[:, 1:-1, ::2]
    x = K.LeakyReLU(alpha=0.2)(x)
    return tf_keras.Model(inputs, K.Dense(2)(K.GlobalMaxPooling2D()(x))), 100 * images(12, 12, 3)


def recurrent():
    layers = [
        K.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid", input_shape=(6, 2)),
        K.Dropout(0.2),
        K.Bidirectional(K.GRU(4, return_sequences=True)),
        K.TimeDistributed(K.Dense(3, activation="tanh")),
        K.GRU(3, reset_after=False),
        K.Dense(1, kernel_regularizer="l2", kernel_initializer="he_normal"),
    ]
    return tf_keras.Sequential(layers), images(6, 2)


def attention():
    tokens = tf_keras.Input((7,), name="tokens")
    extra = tf_keras.Input((3,), name="extra")
    x = K.Embedding(11, 8)(tokens)
    x = K.LayerNormalization()(x + K.MultiHeadAttention(2, 4, name="attention")(x, x))
    scale = K.Normalization()
    scale.adapt(images(3))
    joined = K.Concatenate()([K.GlobalAveragePooling1D()(x), scale(extra)])
    outputs = {
        "kind": K.Dense(3, activation="softmax", name="kind")(joined),
        "size": K.Dense(1, name="size")(joined),
    }
    words = RNG.integers(0, 11, (4, 7)).astype("float32")
    return tf_keras.Model([tokens, extra], outputs), [words, images(3)]


MAKERS = (teachable_machine, frozen_transfer, recurrent, attention)


def lively(model):
    """Random weights everywhere, so that none can take another's place unseen."""
    values = [RNG.uniform(0.2, 0.9, value.shape).astype(value.dtype) for value in model.get_weights()]
    model.set_weights(values)
    return model


def flat(outputs):
    return [np.asarray(value) for value in keras.tree.flatten(outputs)]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_files_of_keras_2_give_the_outputs_that_they_gave_there(tmp_path, make, caplog):
    old, data = make()
    if make is not frozen_transfer:
        lively(old)
    expected = flat(old(data, training=False))
    for name in ("model.h5", "model.keras"):
        old.save(tmp_path / name)
        model = load(tmp_path / name)
        assert "is rebuilt for Keras 3" in caplog.text
        for want, got in zip(expected, flat(model(data, training=False)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "last", [K.Flatten, pytest.param(lambda: K.Bidirectional(K.LSTM(3)), marks=pytest.mark.full)]
)
def test_the_folder_that_keras_2_saved_opens_without_running_its_graph(tmp_path, last):
    inputs = tf_keras.Input((6, 2))
    base = tf_keras.Sequential([K.InputLayer((6, 2)), K.SeparableConv1D(4, 3), K.BatchNormalization()])
    old, data = lively(tf_keras.Model(inputs, K.Dense(2)(last()(base(inputs))))), images(6, 2)
    old.save(tmp_path / "saved", save_format="tf")
    model = load(tmp_path / "saved")
    np.testing.assert_allclose(model(data), old(data), rtol=1e-4, atol=1e-5)
    (tmp_path / "saved" / "keras_metadata.pb").unlink()
    with pytest.raises(ValueError, match="does not tell its layers.*from_saved_model"):
        load(tmp_path / "saved")


def test_the_content_decides_and_not_the_name(tmp_path):
    old = tf_keras.Sequential([K.Dense(3, input_shape=(5,))])
    new, data = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]), images(5)
    old.save(tmp_path / "a.h5")
    shutil.move(tmp_path / "a.h5", tmp_path / "hdf5 inside.keras")
    np.testing.assert_allclose(load(tmp_path / "hdf5 inside.keras")(data), old(data), atol=1e-6)
    new.save(tmp_path / "b.keras")
    shutil.move(tmp_path / "b.keras", tmp_path / "model")
    new.save(tmp_path / "c.h5")
    shutil.move(tmp_path / "c.h5", tmp_path / "weights.bin")
    for name in ("model", "weights.bin"):
        np.testing.assert_allclose(load(tmp_path / name)(data), new(data), atol=1e-6)


def test_old_activations_keep_their_function(tmp_path, caplog):
    old = tf_keras.Sequential([K.Activation("hard_sigmoid", input_shape=(9,))])
    old.save(tmp_path / "m.h5")
    model, data = load(tmp_path / "m.h5"), 3 * images(9)
    np.testing.assert_allclose(model(data), old(data), atol=1e-6)
    assert "hard_sigmoid" in caplog.text
    model.save(tmp_path / "again.keras")
    np.testing.assert_allclose(load(tmp_path / "again.keras")(data), old(data), atol=1e-6)


def test_python_code_in_files_is_refused_by_name(tmp_path):
    old = tf_keras.Sequential([K.Lambda(lambda x: x + 1, input_shape=(3,), name="plus_one")])
    new = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1, name="plus_one")])
    for model, name in ((old, "old.h5"), (old, "old.keras"), (new, "new.h5"), (new, "new.keras")):
        model.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"Python code, in Lambda layers .*plus_one"):
            load(tmp_path / name)


def test_what_cannot_be_opened_is_named_with_the_way_out(tmp_path):
    class Own(tf_keras.layers.Layer):
        pass

    old = tf_keras.Sequential([K.InputLayer((3,)), Own(name="mine")])
    old.save(tmp_path / "own.h5")
    with pytest.raises(ValueError, match=r"'mine' has the class 'Own'.*custom_objects=\{'Own': Own\}"):
        load(tmp_path / "own.h5")

    class OwnOfKeras3(keras.layers.Layer):
        pass

    assert load(tmp_path / "own.h5", {"Own": OwnOfKeras3}).layers[-1].name == "mine"
    local = tf_keras.Sequential([K.LocallyConnected1D(2, 2, input_shape=(4, 2), name="local")])
    local.save(tmp_path / "local.h5")
    with pytest.raises(ValueError, match="'local' has the class 'LocallyConnected1D'"):
        load(tmp_path / "local.h5")
    old.save_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match="weights only.*load_weights"):
        load(tmp_path / "w.h5")
    (tmp_path / "text.keras").write_text("nothing")
    with pytest.raises(ValueError, match="which is no model"):
        load(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="another zip archive"):
        load(tmp_path / "other.keras")
    with pytest.raises(FileNotFoundError, match="must be a model file"):
        load(tmp_path / "absent.keras")
    with pytest.raises(ValueError, match="must be a SavedModel or a model file"):
        load(tmp_path)


def test_damaged_files_are_refused_in_a_sentence(tmp_path):
    old = tf_keras.Sequential([K.Dense(3, input_shape=(5,))])
    old.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["units"] = 4
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=r"must have the shapes \[\(5, 4\), \(4,\)\]. The file has"):
        load(tmp_path / "m.h5")
    content = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="must be a complete Keras model"):
        load(tmp_path / "cut.h5")


def test_a_loaded_model_is_exported_like_any_other(tmp_path):
    old, data = teachable_machine()
    old.save(tmp_path / "keras_model.h5")
    file = tfopt.compress.export(load(tmp_path / "keras_model.h5"), tmp_path / "m.tflite")
    np.testing.assert_allclose(file.predict(data), old(data, training=False), atol=1e-4)
