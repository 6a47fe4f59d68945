"""Models: shapes, preprocessing inside, weights from files, and every bad file refused by name."""

import keras
import numpy as np
import pytest

import tfopt

NAMES = ["mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]


def build(name="mobilenet", classes=5, image_size=32, alpha=0.75, **options):
    return tfopt.models.mobilenet(name, classes, image_size=image_size, alpha=alpha, **options)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_in_probabilities_out(name):
    model = build(name, image_size=(32, 64))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 64, 3)).astype("float32")
    probabilities = model(images).numpy()
    assert model.name == name and probabilities.shape == (2, 5)
    assert isinstance(model.input, keras.KerasTensor), "a list makes Keras warn at every call"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    rescalings = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert [(r.scale, r.offset) for r in rescalings] == [(1 / 127.5, -1.0)]


def test_equals_keras_applications_on_its_own_preprocessing(mobilenet_weights):
    model = build(image_size=64, alpha=0.25, weights=mobilenet_weights)
    features = keras.Model(model.input, model.get_layer("features").output)
    reference = keras.applications.MobileNet(
        input_shape=(64, 64, 3), alpha=0.25, include_top=False, weights=mobilenet_weights, pooling="avg"
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = reference(keras.applications.mobilenet.preprocess_input(images.copy()))
    np.testing.assert_allclose(features(images), expected, atol=1e-4)


def test_weights_from_h5_and_keras_files(tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    backbone = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.75, include_top=False, weights=None
    )
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    for path, source in [("model.keras", model), ("backbone.weights.h5", backbone)]:
        loaded = build(classes=7, weights=tmp_path / path)
        expected = source.get_layer("conv_pw_13").get_weights()[0]
        np.testing.assert_array_equal(loaded.get_layer("conv_pw_13").get_weights()[0], expected)


def test_unfit_files_are_refused_and_named(tmp_path):
    build(alpha=0.5).save(tmp_path / "other.keras")
    whole = (tmp_path / "other.keras").read_bytes()
    (tmp_path / "torn.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("not weights")
    build("mobilenet_v2").save(tmp_path / "v2.keras")
    for name in ["other.keras", "torn.keras", "text.h5", "v2.keras"]:
        with pytest.raises(ValueError, match=rf"`weights` must be a complete file.*{name}"):
            build(weights=tmp_path / name)
    with pytest.raises(FileNotFoundError, match="missing.h5"):
        build(weights=tmp_path / "missing.h5")
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(ValueError, match="must be None, 'imagenet' or the path"):
        build(weights=tmp_path / "weights.txt")


def test_failed_download_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", offline)
    with pytest.raises(ConnectionError, match="could not be downloaded.*`weights=None`"):
        build(alpha=0.25, weights="imagenet")


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(name="mobilenet_v4"), "name"),
        (dict(classes=1), "classes"),
        (dict(alpha=0.0), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
        (dict(dropout=1.0), "dropout"),
        (dict(image_size=16), "image_size"),
        (dict(image_size=(64, 64, 3)), "image_size"),
    ],
)
def test_bad_arguments_are_named(options, word):
    with pytest.raises(ValueError, match=f"`{word}` must be"):
        build(**options)


def test_squeezenet_has_the_size_of_the_paper():
    model = tfopt.models.squeezenet(1000, image_size=224)
    assert model.count_params() == 1_235_496  # SqueezeNet 1.1 of the authors, 1,000 classes
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_stem_without_stride_keeps_the_weights_and_doubles_every_map(name):
    keras.utils.set_random_seed(0)
    whole = build(name)
    keras.utils.set_random_seed(0)
    fine = build(name, stem_stride=1)
    for expected, weight in zip(whole.get_weights()[:-2], fine.get_weights()[:-2]):  # but the head's
        np.testing.assert_array_equal(expected, weight)
    sides = [model.get_layer("features").input.shape[1] for model in (whole, fine)]
    assert sides == [1, 2] and fine.input_shape == (None, 32, 32, 3)
