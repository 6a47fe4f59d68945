"""How much images and classes count in training, and changes of images by the caller's own code."""

import argparse
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import tfopt
from tfopt.cli._arguments import add_options
from tfopt.recipes import class_weight
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.missing_classes import lacking_text
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run import Run
from tfopt.recipes.run_folder import StageRecord
from tfopt.recipes.session import Session
from tfopt.recipes.stages import FineTuning, Head, linear_head
from tfopt.recipes.starting import starting_model
from tfopt.tasks import Classification, MultiLabel

TASK = Classification(["cat", "dog", "eel"])


def images(count=24, wrong=0, weights=None):
    """Images of three colors; the first ones of the training split have a wrong label."""
    labels = np.arange(count) % 3
    pixels = np.random.default_rng(0).integers(0, 60, (count, 16, 16, 3)).astype("uint8")
    pixels[np.arange(count), :, :, labels] += 30
    given = np.where(np.arange(count) < wrong, (labels + 1) % 3, labels)
    clean = (pixels, labels, *([] if weights is None else [np.ones(count)]))
    train = (pixels, given, *([] if weights is None else [weights]))
    return {"train": train, "validation": clean, "test": clean}


def linear(outputs=3):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(x))
    return keras.Model(inputs, keras.layers.Dense(outputs, "softmax")(x))


def opened(source, **options):
    return Session.open(source, tfopt.FinetuneConfig(model=linear(), **{"augment": None, **options}))


def fitted(source, **options):
    """Kernel of the head that `refit_head` leaves."""
    session = opened(source, fit_on_validation=False, **options)
    model = starting_model(session)
    linear_head.refit_head(model, session)
    return linear_head.head_layer(model).kernel.numpy()


def test_the_head_learns_by_the_weights_of_images():
    weights = np.where(np.arange(24) < 6, 0.0, 2.0)
    clean = images()
    only = {**clean, "train": tuple(part[6:] for part in clean["train"])}
    np.testing.assert_allclose(fitted(images(wrong=6, weights=weights)), fitted(only), atol=0.05)
    assert np.abs(fitted(images(wrong=6)) - fitted(only)).max() > 0.1


def test_the_head_learns_by_the_weights_of_classes():
    times = np.repeat(np.arange(24), np.where(np.arange(24) % 3 == 1, 3, 1))
    clean = images()
    repeated = {**clean, "train": tuple(part[times] for part in clean["train"])}
    options = {"class_names": ["cat", "dog", "eel"]}
    expected = fitted(tfopt.data.load(repeated, **options))
    for given in ({"dog": 3}, {1: 3.0}):
        found = fitted(tfopt.data.load(clean, **options), class_weight=given)
        center = found.mean(axis=1, keepdims=True), expected.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(found - center[0], expected - center[1], rtol=0.05, atol=0.05)


def test_training_batches_have_the_weights_and_validation_those_of_images_only():
    weights = np.linspace(0.5, 2, 24)
    session = opened(images(weights=weights), class_weight={"0": 2, "2": 0}, batch_size=24)
    _, labels, found = next(iter(session.training(shuffle=False)))
    np.testing.assert_allclose(found, weights * np.array([2, 1, 0] * 8), rtol=1e-6)
    assert labels.numpy()[:3].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert len(next(iter(session.plain("validation")))) == 3
    assert len(next(iter(opened(images(), class_weight={0: 2}).plain("validation")))) == 2


def test_mixed_labels_count_by_the_weights_of_both_classes():
    labels = tf.constant([[0.25, 0.75, 0.0]])
    mixed, weight = class_weight.with_class_weights(np.array([2.0, 4.0, 1.0], "float32"), labels)
    logits = np.log([[0.2, 0.5, 0.3]])
    loss = float(keras.losses.CategoricalCrossentropy(from_logits=True)(mixed, logits, weight))
    assert loss == pytest.approx(-(0.25 * 2 * np.log(0.2) + 0.75 * 4 * np.log(0.5)), rel=1e-5)


def test_weights_of_classes_are_found_by_name_and_by_number():
    found = class_weight.class_weights({"dog": 3, 2: 0.5}, TASK, [5, 5, 5])
    assert found.tolist() == [1.0, 3.0, 0.5]
    balanced = class_weight.class_weights("balanced", TASK, [6, 2, 0])
    assert balanced[:2].tolist() == pytest.approx([8 / 12, 2.0])
    for given, words in [
        ({"dgo": 2}, "Did you mean 'dog'"),
        ({3: 2}, "Numbers go from 0 to 2"),
        ({"cat": -1}, "a number >= 0 for 'cat'"),
        ({"cat": 0, "dog": 0, "eel": 0}, "above 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            class_weight.class_weights(given, TASK, [5, 5, 5])
    with pytest.raises(ValueError, match="write names as text"):
        class_weight.class_weights({1: 2.0}, Classification(["1", "2"]), [5, 5])
    with pytest.raises(ValueError, match="a column `weight`"):
        class_weight.class_weights("balanced", MultiLabel(["a", "b"]), [5, 5])


def test_a_wrong_class_is_told_before_images_are_decoded(monkeypatch):
    monkeypatch.setattr(tfopt.data.ImageDataset, "resized", None)
    with pytest.raises(ValueError, match="by names or numbers of classes"):
        opened(images(), class_weight={"cat": 2})
    with pytest.raises(ValueError, match="twice"):
        opened(images(), class_weight="balanced", balance="oversample")


def double(pixels):
    return pixels * 2


@pytest.mark.parametrize(
    "augment",
    [double, keras.layers.Rescaling(2.0), [keras.layers.Rescaling(4.0), keras.layers.Rescaling(0.5)]],
)
def test_training_images_are_changed_by_layers_or_functions(augment):
    session, plain = opened(images(), augment=augment), opened(images())
    changed, expected = (next(iter(each.training(shuffle=False)))[0] for each in (session, plain))
    np.testing.assert_allclose(changed, 2.0 * np.asarray(expected, "float32"))
    unchanged, *_ = next(iter(session.plain("train")))
    np.testing.assert_array_equal(unchanged, expected)
    json.dumps(session.config.to_dict())


def test_random_layers_change_images_anew_in_every_epoch():
    session = opened(images(), augment=keras.layers.RandomFlip(seed=1))
    batches = session.training(shuffle=False)
    first, second = (np.concatenate([x for x, *_ in batches.as_numpy_iterator()]) for _ in range(2))
    assert (first != second).any()
    names = {opened(images(), augment=each).config.to_dict()["augment"] for each in (double, lambda x: x * 3)}
    assert len(names) == 2, "another function is another run"


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: x[:, :8],
        lambda x: np.asarray(x),
        keras.layers.RandomFlip,
        lambda x: x / 0.0,
        lambda x, y: x,
    ],
)
def test_a_function_that_gives_no_images_is_told_before_anything_trains(augment):
    with pytest.raises(ValueError, match="`augment` must be a tfopt.data.Augment, Keras layers"):
        opened(images(), augment=augment)


def test_the_command_takes_weights_of_classes(capsys):
    command = argparse.ArgumentParser(exit_on_error=False)
    add_options(command, CompressConfig)
    parsed = command.parse_args(["--class-weight", "cat=3,a=b=0.5"])
    assert CompressConfig(**vars(parsed)).class_weight == {"cat": 3.0, "a=b": 0.5}
    assert command.parse_args(["--class-weight", "balanced"]).class_weight == "balanced"
    for text in ("cat=x", "cat"):
        with pytest.raises(argparse.ArgumentError, match="CLASS="):
            command.parse_args(["--class-weight", text])


def test_finetune_tells_weights_of_classes_and_layers_in_its_files(tmp_path):
    tfopt.finetune(
        images(48),
        model=linear(),
        augment=[keras.layers.RandomFlip()],
        class_weight={"1": 3},
        epochs=0,
        quantization=None,
        output=str(tmp_path / "run"),
        progress=ConsoleProgress(Console(quiet=True)),
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["class_weight"] == {"1": 3} and "RandomFlip" in config["augment"][0]


def test_classes_that_a_split_lacks_are_told():
    splits = images()
    lacking = splits["test"][1] != 2
    splits["test"] = tuple(part[lacking] for part in splits["test"])
    found = tfopt.data.load(splits, class_names=["cat", "dog", "eel"])
    assert lacking_text(found) == "no test images of 'eel': the results say nothing about them"
    assert lacking_text(tfopt.data.load(images())) == ""


@pytest.mark.parametrize("learns", [True, False])
def test_validation_is_called_learned_from_when_the_head_was_fitted_to_it(learns):
    session = opened(images(), fit_on_validation=learns)
    finished = SimpleNamespace(finished=lambda name: StageRecord(name, {}, 0.0), checkpoints=None, logs=None)
    run = Run(finished, session)
    logs = {"val_accuracy": 0.5}
    for stage in (Head(), FineTuning()):
        assert run.session.progress_text(logs) == "validation 50.0%"
        run.stage(stage, None)
    assert run.session.progress_text(logs) == f"validation {'(learned from) ' * learns}50.0%"
