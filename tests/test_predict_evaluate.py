"""`predict` and `evaluate`: any number of files in, answers and measures out that other programs read."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

import tfopt
from tfopt import tasks
from tfopt.cli import main
from tfopt.data import BadImageError
from tfopt.data.random_access import random_access_of
from tfopt.distribute import launch
from tfopt.recipes import evaluate, predict
from tfopt.recipes.labeled_batches import LabeledBatches
from tfopt.recipes.run_folder import save_model

NAMES = ["red", "green", "blue"]


def color_model(activation="softmax", size=(16, 12)):
    """Knows the color of an image, by arithmetic."""
    inputs = keras.Input((*size, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(3, activation, kernel_initializer=keras.initializers.Identity(8.0))(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models of one kind each, and a folder of images in which two of 24 lie in a wrong class."""
    folder = tmp_path_factory.mktemp("files")
    save_model(color_model(), folder / "model.keras", NAMES)
    save_model(color_model(None), folder / "logits.keras", NAMES)
    save_model(color_model("sigmoid"), folder / "labels.keras", NAMES)
    save_model(color_model(), folder / "plain.keras")
    save_model(color_model(None), folder / "numbers.keras")
    with zipfile.ZipFile(folder / "numbers.keras", "a") as archive:
        archive.writestr("task.json", json.dumps({"task": "regression", "names": ["a", "b", "c"]}))
    sample = np.linspace(0, 255, 8 * 16 * 12 * 3, dtype="float32").reshape(8, 16, 12, 3)
    tfopt.compress.export(
        color_model(), folder / "model.tflite", "int8", representative_data=sample, class_names=NAMES
    )
    for place, name in enumerate(NAMES):
        (folder / "photos" / "test" / name).mkdir(parents=True)
        for number in range(8):
            pixel = np.full(3, 20, np.uint8)
            pixel[place] = 120 + number
            if number == 5 and name != "green":
                pixel = pixel[::-1]
            image = Image.new("RGB", (40, 50), tuple(pixel.tolist()))
            image.save(folder / "photos" / "test" / name / f"{number}.png")
    (folder / "photos" / "test" / "red" / "Thumbs.db").write_bytes(b"junk")
    return folder


@pytest.mark.parametrize("model", ["model.keras", "logits.keras", "model.tflite"])
def test_all_kinds_of_files_give_probabilities(model, files):
    found = predict(files / model, files / "photos" / "test" / "blue", top=2)
    assert [len(prediction.classes) for prediction in found] == [2] * 8
    assert [prediction.classes[0][0] for prediction in found] == ["blue"] * 5 + ["red"] + ["blue"] * 2
    assert 0.5 < found[0].classes[0][1] <= 1.0


def test_folders_patterns_and_lists_of_files_are_read(files, monkeypatch, capsys):
    photos = files / "photos" / "test"
    model = str(files / "model.keras")
    assert main(["predict", model, str(photos)]) == 0
    everything = capsys.readouterr().out.splitlines()
    assert len(everything) == 24 and everything[0].startswith(f"{photos / 'blue' / '0.png'}: blue ")
    assert main(["predict", model, str(photos / "*" / "1.png")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'red' / '0.png'}\n\n{photos / 'green'}\n"))
    assert main(["predict", model, "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_one_bad_file_does_not_end_it(files, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    good = files / "photos" / "test" / "green" / "0.png"
    paths = [str(tmp_path / "bad.jpg"), str(good), str(tmp_path / "missing.png")]
    assert main(["predict", str(files / "model.keras"), *paths]) == 3
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}: green ") and len(captured.out.splitlines()) == 1
    assert "bad.jpg: cannot be read" in captured.err and "2 of 3 images" in captured.err
    assert "on_bad_image" not in captured.err, "which is no flag here"
    with pytest.raises(BadImageError, match="bad.jpg"):
        predict(files / "model.keras", paths)
    skipped = predict(files / "model.keras", paths, on_bad_image="skip")
    assert [prediction.error is None for prediction in skipped] == [False, True, False]


def test_answers_are_written_as_csv_and_json_lines(files, tmp_path, capsys):
    paths = [str(files / "photos" / "test" / "blue" / f"{number}.png") for number in (0, 5)]
    (tmp_path / "bad,1.jpg").write_bytes(b"")
    words = ["predict", str(files / "model.keras"), *paths, str(tmp_path / "bad,1.jpg"), "--top", "2"]
    assert main([*words, "--output", str(tmp_path / "answers.csv")]) == 3
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert [row["path"] for row in rows] == [*paths, str(tmp_path / "bad,1.jpg")]
    assert [row["class"] for row in rows] == ["blue", "red", ""] and rows[0]["class_2"] == "red"
    assert "empty" in rows[2]["error"] and float(rows[0]["probability"]) > 0.5
    capsys.readouterr()
    assert main([*words, "--output", "jsonl"]) == 3
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert entries[0]["classes"][0]["name"] == "blue" and set(entries[2]) == {"path", "error"}


def test_answers_in_csv_are_labels_that_load_reads(files, tmp_path):
    photos = str(files / "photos" / "test")
    main(["predict", str(files / "model.keras"), photos, "--output", str(tmp_path / "answers.csv")])
    data = tfopt.data.load(tmp_path / "answers.csv", label_column="class")
    assert data.class_names == ("blue", "green", "red") and sum(data.example_counts.values()) == 24


def test_several_labels_and_numbers_are_answered_by_their_task(files, tmp_path, capsys):
    Image.new("RGB", (12, 16), (255, 200, 0)).save(tmp_path / "yellow.png")
    image = str(tmp_path / "yellow.png")
    assert [name for name, _ in predict(files / "labels.keras", image)[0].classes] == ["red", "green", "blue"]
    found = predict(files / "labels.keras", image, threshold=0.9)[0].classes
    assert [name for name, _ in found] == ["red", "green"]
    numbers = dict(predict(files / "numbers.keras", [image])[0].classes)
    assert numbers == pytest.approx({"a": 8.0, "b": 8 * 200 / 255, "c": 0.0}, abs=1e-3)
    main(["predict", str(files / "numbers.keras"), image, "--output", "csv"])
    assert capsys.readouterr().out.splitlines()[0] == "path,a,b,c,error"


def test_exif_orientation_is_applied_as_in_training(files, tmp_path):
    """Upright, the upper half is red; a model that looks at the upper half alone sees that."""
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[:8, :, 0] = pixels[8:, :, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(pixels[::-1]).save(tmp_path / "turned.png", exif=exif)
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Cropping2D(((0, 8), (0, 0)))(inputs))
    save_model(keras.Model(inputs, keras.layers.Softmax()(x)), tmp_path / "upper.keras", NAMES)
    assert predict(tmp_path / "upper.keras", tmp_path / "turned.png")[0].classes[0][0] == "red"


def test_names_can_be_given_to_a_model_that_holds_none(files, tmp_path, capsys):
    image = str(files / "photos" / "test" / "green" / "0.png")
    words = ["predict", str(files / "plain.keras"), image]
    assert main(words) == 1
    assert "give them with `--class-names`" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")
    assert main([*words, "--class-names", str(tmp_path / "names.txt")]) == 0
    assert "grün 9" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("rot\ngrün\n", encoding="utf-8")
    assert main([*words, "--class-names", str(tmp_path / "names.txt")]) == 1
    assert "has outputs of shape (3,) and 2 names" in capsys.readouterr().err


def test_control_characters_in_names_do_not_reach_the_terminal(files, tmp_path, capsys):
    save_model(color_model(), tmp_path / "evil.keras", ["\x1b[2Jred", "green\x07", "blue"])
    assert (
        main(["predict", str(tmp_path / "evil.keras"), str(files / "photos" / "test" / "red" / "0.png")]) == 0
    )
    assert "\\x1b[2Jred 9" in capsys.readouterr().out


def flipped(path, target, place):
    data = bytearray(path.read_bytes())
    data[place(len(data))] ^= 255
    target.write_bytes(data)


@pytest.mark.parametrize("name", ["model.keras", "model.tflite"])
def test_a_damaged_model_is_told_in_one_sentence(name, files, tmp_path, capsys):
    damaged = tmp_path / name
    image = str(files / "photos" / "test" / "red" / "0.png")
    if name == "model.keras":
        flipped(files / name, damaged, lambda length: length // 3)
        assert main(["predict", str(damaged), image]) == 1
        error = capsys.readouterr().err
        assert "is damaged" in error and "Copy it again" in error and len(error.splitlines()) == 1
    for content in (b"", (files / name).read_bytes()[:200]):
        damaged.write_bytes(content)
        assert main(["predict", str(damaged), image]) == 1
        error = capsys.readouterr().err
        assert name in error and "Traceback" not in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "part",
    [
        ("labels.txt", b"\xff\xfe\xfd"),
        ("task.json", b"{}"),
        ("task.json", b"[1"),
        ("labels.txt", b"a" * 5_000_000),
    ],
)
def test_damaged_labels_are_told(part, files, tmp_path):
    (tmp_path / "m.keras").write_bytes((files / "plain.keras").read_bytes())
    with zipfile.ZipFile(tmp_path / "m.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*part)
    with pytest.raises(ValueError, match="labels in .*m.keras' cannot be read"):
        predict(tmp_path / "m.keras", "a.jpg")


def test_evaluation_equals_scikit_learn_and_counts_every_class(files):
    truth = np.repeat([0, 1, 2], 8)
    guess = truth.copy()
    guess[5], guess[21] = 2, 0
    for model in ("model.keras", "model.tflite"):
        found = evaluate(files / model, files / "photos" / "test")
        assert (found.split, found.samples, found.task) == ("all", 24, "classification")
        assert found.measures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
        assert found.measures["macro_f1"] == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
        assert found.measures["confusion"] == metrics.confusion_matrix(truth, guess).tolist()
        red = found.measures["classes"][0]
        assert (red["name"], red["support"], red["recall"]) == ("red", 8, pytest.approx(7 / 8))
        assert found.bytes == (files / model).stat().st_size
        assert (found.latency_ms is None) == (model == "model.keras")


def test_splits_are_chosen_by_name_and_told(files, capsys):
    photos = str(files / "photos" / "test")
    assert evaluate(files / "model.keras", photos, split="test").samples < 24
    assert main(["evaluate", str(files / "model.keras"), "--data", photos, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["split"], told["samples"], told["data"]) == ("all", 24, photos)
    assert main(["evaluate", str(files / "model.keras"), "--data", photos]) == 0
    text = capsys.readouterr().out
    assert "on 24 images (all images of" in text and "accuracy" in text and "recall" in text
    arrays = np.zeros((4, 16, 12, 3), "uint8"), np.array([0, 1, 2, 0])
    whole = {"train": arrays, "test": arrays}
    names = ["0", "1", "2"]
    assert evaluate(files / "plain.keras", whole, split="all", class_names=names).samples == 8
    data = tfopt.data.load(whole, validation_split=0)
    with pytest.raises(ValueError, match="one of 'train', 'test', 'all', which the data has"):
        evaluate(files / "plain.keras", data, split="validation", class_names=names)


def test_classes_are_matched_by_name(files, tmp_path):
    """The data lacks a class of the model; a class that the model does not know is refused."""
    for name in ("blue", "red"):
        os.symlink(files / "photos" / "test" / name, tmp_path / name)
    found = evaluate(files / "model.keras", tmp_path, split="all")
    assert [row["support"] for row in found.measures["classes"]] == [8, 0, 8]
    assert json.loads(found.to_json())["measures"]["accuracy"] == pytest.approx(14 / 16)
    os.symlink(files / "photos" / "test" / "green", tmp_path / "violet")
    with pytest.raises(ValueError, match="classes of the model and of the data differ"):
        evaluate(files / "model.keras", tmp_path)


@pytest.mark.parametrize("count", [2, 3])
def test_sigmoid_outputs_are_classes_where_each_image_has_one(count, files, tmp_path):
    """`evaluate` asked for a table of several labels, and two sigmoid outputs went through a softmax."""
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    head = keras.layers.Dense(count, "sigmoid")
    model = keras.Model(inputs, head(x))
    head.set_weights([8.0 * np.eye(3, count), np.zeros(count)])
    save_model(model, tmp_path / "model.keras", NAMES[:count])
    image = files / "photos" / "test" / "red" / "0.png"
    ((_, probability), *_) = predict(tmp_path / "model.keras", image, threshold=0.0)[0].classes
    assert probability == pytest.approx(1 / (1 + np.exp(-8 * 120 / 255)), abs=0.01), "no softmax behind it"
    for name in NAMES[:count]:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for file in (files / "photos" / "test" / name).glob("*.png"):
            (tmp_path / "photos" / name / file.name).write_bytes(file.read_bytes())
    found = evaluate(tmp_path / "model.keras", tmp_path / "photos", split="all")
    assert found.task == "classification" and found.samples == 8 * count
    assert found.measures["accuracy"] == 1 - 2 / 24 if count == 3 else 15 / 16


@pytest.mark.parametrize("ending", [[], ["linear"], [None]], ids=["dense", "activation", "nested"])
@pytest.mark.parametrize("count", [1, 2])
def test_logits_between_0_and_1_are_logits(count, ending, files, tmp_path):
    """They were taken for probabilities: of one output also where they were negative."""
    head = keras.layers.Dense(count)
    x = head(keras.layers.GlobalAveragePooling2D()(inputs := keras.Input((16, 12, 3))))
    head.set_weights([np.zeros((3, count)), np.array([0.3, 0.7][-count:])])
    model = keras.Model(inputs, x)
    if ending:
        model = keras.Sequential(
            [keras.Input((16, 12, 3)), model, *map(keras.layers.Activation, filter(None, ending))]
        )
    save_model(model, tmp_path / "model.keras", NAMES[:2])
    image = files / "photos" / "test" / "red" / "0.png"
    ((name, probability), *_) = predict(tmp_path / "model.keras", image)[0].classes
    expected = np.exp(0.7) / (1 + np.exp(0.7)) if count == 1 else 1 / (1 + np.exp(-0.4))
    assert name == "green" and probability == pytest.approx(expected)


def test_a_model_with_several_outputs_is_refused_with_a_way_to_one(files, tmp_path):
    model = color_model()
    keras.Model(model.input, [model.output, model.layers[-2].output]).save(tmp_path / "two.keras")
    for ask in (evaluate, predict):
        with pytest.raises(ValueError, match="one output. Received: .*1 inputs and 2 outputs.*outputs.0."):
            ask(tmp_path / "two.keras", files / "photos", class_names=NAMES)
    keras.Model(model.inputs[0], model.outputs[0]).save(tmp_path / "one.keras")
    assert evaluate(tmp_path / "one.keras", files / "photos" / "test", class_names=NAMES).samples == 24


def test_numbers_are_evaluated_by_the_columns_of_a_table(files, tmp_path):
    """The columns stand in another order than the outputs."""
    low, high = 8 * 20 / 255, 8 * 120 / 255
    values = {"red": f"{low + 0.5},{low},{high}", "blue": f"{high + 0.5},{low},{low}"}
    rows = [f"{files / 'photos' / 'test' / name / '0.png'},{numbers}" for name, numbers in values.items()]
    (tmp_path / "numbers.csv").write_text("\n".join(["path,c,b,a", *rows]))
    options = {"task": "regression", "label_column": ["c", "b", "a"], "validation_split": 0, "test_split": 0}
    data = tfopt.data.load(tmp_path / "numbers.csv", **options)
    found = evaluate(files / "numbers.keras", data, split="all")
    assert [row["name"] for row in found.measures["targets"]] == ["a", "b", "c"]
    assert [row["mae"] for row in found.measures["targets"]] == pytest.approx([0, 0, 0.5], abs=1e-4)
    assert "RMSE" in str(found)


@pytest.mark.process
def test_a_tflite_file_is_run_without_tensorflow(files, tmp_path):
    code = (
        "import sys\nfrom tfopt.cli import main\n"
        f"model, photos = {str(files / 'model.tflite')!r}, {str(files / 'photos' / 'test')!r}\n"
        "assert main(['predict', model, photos]) == 0\n"
        "assert main(['evaluate', model, '--data', photos, '--json']) == 0\n"
        "print('heavy', [name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "heavy []"


def test_a_table_is_evaluated_by_the_columns_that_are_named(files, tmp_path, capsys):
    photos = files / "photos" / "test"
    rows = [
        f"{photos / name / '0.png'},{name},{label}" for name, label in zip(NAMES, ("blue", "green", "red"))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,color,guess", *rows]))
    words = ["evaluate", str(files / "model.keras"), "--data", str(tmp_path / "table.csv"), "--split", "all"]
    for column, accuracy in (("color", 1.0), ("guess", 1 / 3)):
        assert main([*words, "--label-column", column, "--json"]) == 0
        measures = json.loads(capsys.readouterr().out)["measures"]
        assert measures["accuracy"] == pytest.approx(accuracy)


def assert_equal_measures(found, expected):
    """But for the last digits of sums over parts."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, list) else pytest.approx(value, rel=1e-12)), name


def test_what_workers_have_counted_adds_up_to_the_measures_of_one():
    random = np.random.default_rng(0)
    outputs = random.dirichlet(np.ones(3), 20)
    cases = [
        (tasks.Classification(NAMES), random.integers(0, 3, 20)),
        (tasks.MultiLabel(NAMES), random.integers(0, 2, (20, 3))),
        (tasks.Regression(NAMES), random.normal(size=(20, 3))),
    ]
    for task, labels in cases:
        whole, together = task.tally(), task.tally()
        whole.add(labels, outputs)
        for rows in (slice(0, 7), slice(7, 7), slice(7, 20)):
            part = task.tally()
            if len(labels[rows]):
                part.add(labels[rows], outputs[rows])
            together.add_bytes(part.to_bytes())
        assert_equal_measures(together.measures(), whole.measures())
        assert together.count == 20 and together.chance() == whole.chance()


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_read_each_image_once_and_in_order(workers, files):
    data = tfopt.data.load(files / "photos" / "test", validation_split=0.3, test_split=0.3)
    splits = [random_access_of(part) for part in data.splits().values()]
    labels = [label for split in splits for label in split.labels.tolist()] * 3
    batches = LabeledBatches(splits * 3, (16, 12))
    found = [labels for worker in range(workers) for _, labels in batches.part(worker, workers)]
    assert np.concatenate(found).tolist() == labels


@pytest.mark.full
@pytest.mark.process
def test_commands_on_two_workers_answer_as_on_one(files, tmp_path, capfd):
    photos = tmp_path / "photos"
    for place, name in enumerate(NAMES):
        shutil.copytree(files / "photos" / "test" / name, photos / name)
        for number in range(8, 40):
            pixel = np.random.default_rng(number).integers(0, 200, 3)
            pixel[place] += 40
            image = Image.new("RGB", (9, 9), tuple(pixel.tolist()))
            image.save(photos / name / f"{number}.png")
    model = str(files / "model.tflite")
    judge = ["evaluate", model, "--data", str(photos), "--split", "all", "--json"]
    assert main(judge) == 0
    one = json.loads(capfd.readouterr().out)
    two = io.StringIO()
    assert launch(judge, 2, output=two) == 0
    lines = two.getvalue().splitlines()
    assert {line[:3] for line in lines} == {"[0]"}, "the chief alone tells"
    text = "\n".join(line[4:] for line in lines)
    together = json.loads(text[text.index("{") :])  # a warning comes before it
    assert together.pop("latency_ms") > 0 and one.pop("latency_ms") > 0
    assert together["samples"] == 120
    assert_equal_measures(together["measures"], one["measures"])

    (photos / "blue" / "torn.png").write_bytes(b"torn")
    answers = ["predict", model, str(photos), "--batch-size", "2", "--output"]
    assert main([*answers, str(tmp_path / "one.csv")]) == 3
    told = io.StringIO()
    assert launch([*answers, str(tmp_path / "two.csv")], 2, output=told) == 3
    assert told.getvalue().count("1 of 121 images cannot be read") == 1
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()

    told = io.StringIO()
    assert launch(judge, 2, output=told) == 1
    errors = [line for line in told.getvalue().splitlines() if "torn.png" in line]
    assert len(errors) == 1 and errors[0].startswith("[0] tfopt evaluate:")
