"""The main job on small real data: results, files, resumption, reproducibility, bad options."""

import contextlib
import dataclasses
import json
from functools import partial

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import tfopt
from tfopt import schedules
from tfopt.cli import main
from tfopt.recipes import budgeting, own_model
from tfopt.recipes.best import KeepBest
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import RunFolder, StageRecord, save_model
from tfopt.recipes.sampling import stratified
from tfopt.recipes.session import SAMPLED_BATCHES, Session
from tfopt.recipes.stages import FineTuning, features, fit, linear_head
from tfopt.recipes.stages.features import Block, Examples, Spool
from tfopt.recipes.stages.optimizer import optimizer_of
from tfopt.recipes.starting import starting_model
from tfopt.recipes.stored_task import stored_class_names
from tfopt.tasks import Classification, MultiLabel, Regression

QUIET = ConsoleProgress(Console(quiet=True))


def digits(count=300):
    """A share of the embedded digits, in splits."""
    images, labels = (np.asarray(values) for values in _digits())
    cuts = {"train": slice(0, count // 3), "validation": slice(count // 3, count // 2)}
    cuts["test"] = slice(count // 2, count * 2 // 3)
    return {name: (images[cut], labels[cut]) for name, cut in cuts.items()}


def _digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.repeat((found.images * 15.9).astype("uint8")[..., None], 3, -1), found.target


def test_none_may_be_spelled_as_on_the_command_line():
    """`weights="none"` was taken for the path of a file."""
    spelled, given = tfopt.FinetuneConfig(weights="none"), tfopt.FinetuneConfig(weights=None)
    assert spelled == given and spelled.weights is None


def test_the_head_is_the_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    features = (random.normal(size=(200, 5)) + labels[:, None] * [1, -1, 0, 2, 0.5]).astype("float32") * 7 + 3
    targets = np.eye(3, dtype="float32")[labels]
    with QUIET.bar("", None) as bar:
        task = Classification("abc")
        examples = Examples.of([Block(features, targets)])
        kernel, bias = linear_head.fit_linear(examples, task.fit_of_head, bar)
    center, spread = features.mean(0), features.std()
    other = LogisticRegression(C=1 / (linear_head.PENALTY * 200), tol=1e-8).fit(
        (features - center) / spread, labels
    )
    found, expected = features @ kernel + bias, other.decision_function((features - center) / spread)
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected, atol=0.02)


@pytest.mark.parametrize("kind", ["classes", "mixed classes", "several labels", "numbers"])
def test_a_head_of_many_examples_is_that_of_few(kind, monkeypatch):
    """More features than fit into memory are in a file; the optimum is the same."""
    random = np.random.default_rng(0)
    task = {"several labels": MultiLabel("abc"), "numbers": Regression("abc")}.get(
        kind, Classification("abc")
    )
    rows = 400
    features_of = random.normal(size=(rows, 6)).astype("float32") * [1, 3, 1e-3, 1e4, 1, 1] + 5
    features_of = features_of.astype("float32")
    logits = (features_of[:, :3] - 5) / [1, 3, 1e-3] + random.normal(size=(rows, 3))
    labels = {
        "classes": np.eye(3)[logits.argmax(1)],
        "mixed classes": 0.7 * np.eye(3)[logits.argmax(1)] + 0.3 * np.eye(3)[logits.argmin(1)],
        "several labels": logits > 0,
        "numbers": logits,
    }[kind].astype("float32")
    weights = random.uniform(0.5, 2, (rows, 1)).astype("float32")
    parts = np.split(np.arange(rows), range(50, rows, 50))
    batches = [Block(features_of[part], labels[part], weights[part]) for part in parts]
    found = []
    for block, memory in ((features.BLOCK, features.IN_MEMORY), (100 * 6, 2500)):
        monkeypatch.setattr(features, "BLOCK", block)
        spool = Spool(memory)
        examples = Examples.of(batches[:6], spool).with_more(Examples.of(batches[6:], spool))
        assert (spool.left == memory - 2400) == (memory == 2500), "one block in memory, the others in a file"
        with QUIET.bar("", None) as bar:
            fitted = linear_head.fit_linear(examples, task.fit_of_head, bar)
        spreads = examples.spreads()
        found.append((fitted, linear_head.scores(examples, fitted, task), spreads, list(examples)))
    (one, *_, whole), (other, *_, blocks) = found
    assert len(whole) == 1 and len(blocks) == 4
    for place, values in enumerate((features_of, labels, weights)):
        kept = np.concatenate([block[place] for block in blocks])
        np.testing.assert_allclose(kept, values, rtol=1e-3, atol=1e-3 * (place < 2))
        np.testing.assert_array_equal(whole[0][place], values)
    for first, second in zip(found[0][2], found[1][2]):
        np.testing.assert_allclose(first, second, rtol=2e-3, atol=1e-3)
    answers = [features_of @ kernel + bias for kernel, bias in (one, other)]
    np.testing.assert_allclose(*answers, atol=0.05)
    for name, value in found[0][1].items():
        assert found[1][1][name] == pytest.approx(value, abs=0.01)


def test_a_full_disk_is_told_with_the_folder_and_a_way_out(monkeypatch):
    class Full:
        def seek(self, *_):
            return 0

        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(features.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="MB more of features do not fit into .*Make room, or set TMPDIR"):
        Spool(0).keep(Block(np.ones((4, 2), "float32"), np.ones((4, 1), "float32")))


def fitted_again(images, **options):
    """`refit_head` on a linear classifier of digits; returns the model and the setting."""
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(4)(keras.layers.Rescaling(1 / 255)(x))
    x = keras.layers.Dense(10, "softmax", kernel_initializer="zeros")(keras.layers.Flatten()(x))
    config = tfopt.FinetuneConfig(model=keras.Model(inputs, x), augment=None, **options)
    session = Session.open(images, config)
    model = starting_model(session)
    linear_head.refit_head(model, session)
    return model, session


def test_the_batch_of_the_second_stage_grows():
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(4)(keras.layers.Rescaling(1 / 255)(x))
    x = keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(x))
    options = dict(model=keras.Model(inputs, x), augment=None, batch_size=10, batch_growth=4)
    session = Session.open(digits(), tfopt.FinetuneConfig(epochs=6, **options))
    model = starting_model(session)
    history = FineTuning().train(model, session)  # 10 batches of 10 images in each epoch
    assert history["batch_size"] == [10, 10, 20, 20, 40, 40]
    assert int(model.optimizer.inner_optimizer.iterations) == 20 + 10 + 5
    rate = schedules.Warmup(keras.optimizers.schedules.CosineDecay(5e-4, 600), 60)
    assert history["learning_rate"][3] == pytest.approx(float(rate(400))), "by images, not by updates"
    for batches, largest in ((60, 80), (11, 20), (4, 20)):
        _, (ramping,) = optimizer_of(session.config, 1e-3, batches, [], 32)
        assert ramping.schedule.sizes[-1] == largest
    assert optimizer_of(session.config, 1e-3, 3, [], 32)[1] == []
    with pytest.raises(ValueError, match="batch_growth"):
        tfopt.FinetuneConfig(batch_growth=3)


def test_the_last_fit_of_the_head_learns_from_the_validation_split_too():
    splits = digits()
    joined = {**splits, "train": tuple(map(np.concatenate, zip(splits["train"], splits["validation"])))}
    cases = (splits, True), (joined, False), (splits, False)
    models = [fitted_again(images, fit_on_validation=last)[0] for images, last in cases]
    both, expected, alone = (linear_head.head_layer(model).kernel.numpy() for model in models)
    np.testing.assert_allclose(both, expected, atol=1e-3)
    assert np.abs(both - alone).max() > 0.1


def test_a_fit_of_the_head_that_costs_accuracy_is_dropped(monkeypatch):
    model, session = fitted_again(digits())
    before = linear_head.head_layer(model).get_weights()
    monkeypatch.setattr(linear_head, "fit_linear", lambda *_: [np.zeros((192, 10)), np.arange(10.0)])
    linear_head.refit_head(model, session)
    np.testing.assert_array_equal(linear_head.head_layer(model).kernel, before[0])


@pytest.mark.full
def test_classes_are_balanced_and_the_report_says_so(tmp_path):
    splits = digits()
    images, labels = splits["train"]
    kept = (labels != 3) | (np.cumsum(labels == 3) <= 2)
    splits["train"] = images[kept], labels[kept]
    most = int(np.bincount(labels[kept]).max())
    options = dict(
        balance="oversample", epochs=0, quantization=None, alpha=0.25, output=str(tmp_path / "run")
    )
    page = tfopt.finetune(splits, progress=QUIET, **options).report_path.read_text()
    assert f"an epoch has {10 * most} images" in page and f"2 → {most}" in page


def test_a_model_whose_last_layer_is_not_a_classifier_is_refused():
    with pytest.raises(ValueError, match="has a bias"):
        linear_head.head_layer(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run with every step: training, pruning, quantization, export, report."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    options = dict(weights=None, alpha=0.25, epochs=1, compress_epochs=1, sparsity=0.5, output=str(output))
    return output, options, tfopt.finetune(digits(), progress=QUIET, **options)


def test_the_whole_job_leaves_a_verified_file_and_a_report(run):
    output, _, result = run
    names = ["float", "pruned", "int8 (Keras)", "float file", "int8 file"]
    assert [row.name for row in result.comparison.rows] == names
    assert result.comparison.reference.name == "float file"
    assert set(result.history) == {"fine-tuning", "pruning", "quantization"}
    file = tfopt.compress.TFLiteModel(result.tflite_path)
    assert tuple(file.class_names) == result.class_names
    assert file.inspect().sparsity > 0.3, "quantization must not fill the pruned weights"
    page = result.report_path.read_text()
    assert page.lower().startswith("<!doctype html>")
    assert stored_class_names(output / "model.keras") == list(result.class_names)
    kept = keras.models.load_model(output / "model.keras")
    assert all(layer.trainable for layer in kept.layers)
    again = tfopt.FinetuneConfig.from_file(output / "config.json")
    assert again.sparsity == 0.5 and again.to_dict() == again.resolved(None).to_dict(), "nothing is left open"
    told = json.loads((output / "comparison.json").read_text())
    rows = told["rows"]
    assert told["class_names"] == list(result.class_names) and len(rows[-1]["recalls"]) == 10
    assert rows[0]["engine"] == "Keras" and rows[-1]["engine"] == rows[-2]["engine"] != "Keras"
    assert 'id="classes"' in page and "with quantization was" in page
    assert rows[-1]["bytes"] == (output / "model.tflite").stat().st_size


def test_the_same_command_takes_up_a_finished_run_and_refuses_another(run):
    output, options, result = run
    stages = {path.name: path.stat().st_mtime_ns for path in (output / "stages").iterdir()}
    again = tfopt.finetune(digits(), progress=QUIET, **options)
    assert {path.name: path.stat().st_mtime_ns for path in (output / "stages").iterdir()} == stages
    for old, new in zip(result.model.get_weights(), again.model.get_weights()):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(FileExistsError, match="holds another run: seed differ"):
        tfopt.finetune(digits(), progress=QUIET, **{**options, "seed": 1})


def test_predict_and_evaluate_work_on_both_files(run, tmp_path, capsys):
    output, _, result = run
    images, labels = digits()["test"]
    Image.fromarray(images[0]).save(tmp_path / "digit.png")
    for name in ("model.keras", "model.tflite"):
        assert main(["predict", str(output / name), str(tmp_path / "digit.png"), "--top", "2"]) == 0
        line = capsys.readouterr().out
        assert line.startswith(f"{tmp_path / 'digit.png'}: ") and line.count("%") == 2
    test = {"train": (images, labels), "test": (images, labels)}
    found = tfopt.recipes.evaluate(output / "model.tflite", test)
    assert found.measures["accuracy"] == pytest.approx(result.comparison["int8 file"].accuracy)


def test_interruption_keeps_what_is_trained(tmp_path, monkeypatch):
    def stop(self, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(KeepBest, "on_train_end", stop)
    options = dict(weights=None, epochs=1, output=str(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        tfopt.finetune(digits(90), progress=QUIET, **options)
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 10)


class StopsIn(ConsoleProgress):
    """Raises what Ctrl-C raises at the third batch of a stage."""

    def __init__(self, stage):
        super().__init__(Console(quiet=True))
        self.stage = stage

    @contextlib.contextmanager
    def bar(self, title, total):
        with super().bar(title, total) as bar:
            yield StopsAt(bar, 3) if title == self.stage else bar


class StopsAt:
    def __init__(self, bar, batch):
        self.bar, self.left = bar, batch
        self.show, self.move_to = bar.show, bar.move_to

    def advance(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.full
@pytest.mark.parametrize("stage", ["quantization", "fine-tuning"])
def test_a_run_stopped_inside_an_epoch_ends_like_the_one_that_was_not(stage, run, tmp_path, monkeypatch):
    """So two whole runs with one seed give the same weights, curves and file, bit for bit."""
    _, options, result = run
    options = {**options, "output": str(tmp_path / "run")}
    monkeypatch.setattr(fit.callbacks, "Resume", partial(tfopt.callbacks.Resume, every_batches=1))
    with pytest.raises(KeyboardInterrupt):
        tfopt.finetune(digits(), progress=StopsIn(stage), **options)
    checkpoints = tmp_path / "run" / "checkpoints" / stage
    assert any(checkpoints.iterdir())
    again = tfopt.finetune(digits(), progress=QUIET, **options)
    assert not checkpoints.exists(), "of no more use"
    for expected, weight in zip(result.model.get_weights(), again.model.get_weights()):
        np.testing.assert_array_equal(expected, weight)
    assert result.tflite_path.read_bytes() == again.tflite_path.read_bytes()
    for name, history in result.history.items():
        assert history["loss"] == again.history[name]["loss"], name


def test_keep_best_never_ends_worse_than_it_began():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    keep = KeepBest(Classification("ab").quality, {"accuracy": 0.9, "loss": 1.0})
    keep.set_model(model)
    start = model.get_weights()
    keep.on_train_begin()
    for accuracy, loss, better in [(0.8, 0.1, False), (0.9, 1.5, False), (0.9, 0.5, True)]:
        model.set_weights([weight + 1 for weight in model.get_weights()])
        kept = model.get_weights()
        keep.on_epoch_end(0, {"val_accuracy": accuracy, "val_loss": loss})
        keep.restore()
        expected = kept if better else start
        np.testing.assert_array_equal(model.get_weights()[0], expected[0])


def test_options_resolve_by_the_data():
    photographs = tfopt.FinetuneConfig().resolved(None)
    assert (photographs.image_size, photographs.weights, photographs.alpha) == (224, "imagenet", 0.25)
    drawings = tfopt.FinetuneConfig().resolved((8, 8))
    assert (drawings.image_size, drawings.weights, drawings.unfreeze) == (32, None, 1.0)
    assert drawings.augment.flip is None, "a mirrored digit is another character"


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(model="renset"), "model"),
        (dict(epochs=-1), "epochs"),
        (dict(sparsity=1.0), "sparsity"),
        (dict(learning_rate=float("nan")), "learning_rate"),
        (dict(quantization="int4"), "quantization"),
        (dict(augment="wild"), "augment"),
        (dict(unfreeze=0.0), "unfreeze"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=f"`{word}` must be"):
        tfopt.FinetuneConfig(**options)


def test_config_survives_a_file(tmp_path):
    config = tfopt.FinetuneConfig(seed=3, augment=tfopt.data.Augment(rotate=5.0))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert tfopt.FinetuneConfig.from_file(tmp_path / "config.json") == config
    (tmp_path / "bad.json").write_text('{"sead": 3}')
    with pytest.raises(ValueError, match="sead"):
        tfopt.FinetuneConfig.from_file(tmp_path / "bad.json")


@pytest.mark.parametrize("content", ["{bad", "[1]", '"x"', ""])
def test_a_file_that_holds_no_options_is_named(content, tmp_path):
    (tmp_path / "options.json").write_text(content)
    with pytest.raises(ValueError, match="options.json"):
        tfopt.FinetuneConfig.from_file(tmp_path / "options.json")


def test_run_folder_refuses_files_that_are_not_its_own(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="something else"):
            RunFolder(tmp_path, {"seed": 0}, overwrite)
    for content in ("{}", "[]", "no JSON"):
        (tmp_path / "run.json").write_text(content)
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match="run.json' is damaged.*Choose another `output`.$"):
                RunFolder(tmp_path, {"seed": 0}, overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_stage_counts_only_with_its_model(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with RunFolder(tmp_path / "run", {"seed": 0}, False) as folder:
        folder.finish(StageRecord("head", {"loss": [1.0]}, 2.0), model)
    again = RunFolder(tmp_path / "run", {"seed": 0}, False)
    assert again.finished("head") == StageRecord("head", {"loss": [1.0]}, 2.0)
    again.model_path("head").unlink()
    assert again.finished("head") is None


def test_command_line_reports_errors_in_one_line(capsys, tmp_path):
    assert main(["finetune", "--data", str(tmp_path / "missing"), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tfopt finetune: ") and "missing" in error and "Traceback" not in error
    assert main(["predict", str(tmp_path / "no.keras"), "a.jpg"]) == 1
    with pytest.raises(SystemExit):
        main(["finetune", "--data", "digits", "--epochs", "many"])
    assert "argument --epochs: must be an integer >= 0 or auto, not 'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["finetune", "--data", "x"], "the same command goes on"),
        (["finetune", "--data", "x", "--overwrite"], "the same command without --overwrite goes on"),
        (["lr-find", "--data", "x"], ""),
    ],
)
def test_what_an_interrupted_command_says(words, told, monkeypatch, capsys):
    def stop(parsed):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"tfopt.cli.{words[0].replace('-', '_')}.run", stop)
    assert main(words) == 130
    error = capsys.readouterr().err
    assert told in error and ("goes on" in error) == bool(told)


def test_many_files_are_not_in_memory_at_once(tmp_path):
    inputs = keras.Input((4, 4, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    save_model(keras.Model(inputs, keras.layers.Softmax()(features)), tmp_path / "m.keras", ["r", "g", "b"])
    for number in range(130):
        Image.new("RGB", (4, 4), (number, 100, 0)).save(tmp_path / f"{number:03d}.png")
    classifier, sizes = Classifier(tmp_path / "m.keras"), []
    predict = classifier._predict
    classifier._predict = lambda images: sizes.append(len(images)) or predict(images)
    answers = classifier.predict_files(sorted(tmp_path.glob("*.png")))
    assert answers.argmax(1).tolist() == [1] * 100 + answers.argmax(1)[100:101].tolist() + [0] * 29
    assert sizes == [64, 64, 2]


def test_paths_are_told_as_they_are():
    console = Console(width=40)
    path = "runs/[v2] a name that is longer than the console is wide[/v2]/report.html"
    with console.capture() as captured:
        ConsoleProgress(console).say(f"report {path}")
    assert captured.get() == f"report {path}\n"


def test_every_option_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(tfopt.FinetuneConfig):
        assert "--" + field.name.replace("_", "-") in text
    words = " ".join(text.split())
    assert "none: no pruning. Default: none." in words and "auto: on a GPU. Default: auto." in words


def test_a_sample_has_all_classes_in_proportion_in_every_stretch():
    labels = np.sort(np.random.default_rng(0).choice(5, 4000, p=[0.5, 0.3, 0.15, 0.049, 0.001]))
    counts = np.bincount(labels)
    chosen = stratified(labels, 400, seed=3)
    assert len(set(chosen.tolist())) == 400
    for stretch in (chosen[:100], chosen[:200], chosen[200:]):
        found = np.bincount(labels[stretch], minlength=5)[:4] / len(stretch)
        np.testing.assert_allclose(found, counts[:4] / 4000, atol=0.03)
    assert set(labels[chosen]) == set(range(5)), "the rarest too"
    assert sorted(stratified(labels, 10_000, 0)) == list(range(4000))
    np.testing.assert_array_equal(chosen, stratified(labels, 400, seed=3))


@pytest.mark.parametrize("balance", [None, "oversample"])
def test_statistics_come_from_all_classes_of_a_sorted_data_set(balance):
    splits = digits(900)
    for name, (images, labels) in splits.items():
        order = np.argsort(labels, kind="stable")
        splits[name] = images[order], labels[order]
    config = tfopt.FinetuneConfig(batch_size=8, weights=None, image_size=32, balance=balance)
    session = Session.open(splits, config)
    for augmented in (False, True):
        batches = list(session.sample(augmented=augmented).as_numpy_iterator())
        assert len(batches) == SAMPLED_BATCHES
        assert all(len(set(labels.argmax(1))) >= 6 for _, labels in batches)


def test_what_chooses_by_some_images_sees_all_classes_of_a_sorted_data_set(monkeypatch):
    """Scales of pixels and budgets were chosen by the first validation images of a folder: a few classes."""
    splits = digits(900)
    for name, (images, labels) in splits.items():
        order = np.argsort(labels, kind="stable")
        splits[name] = images[order], labels[order]
    session = Session.open(splits, tfopt.FinetuneConfig(weights=None, image_size=32))
    monkeypatch.setattr(own_model, "TRIED_IMAGES", 50)
    monkeypatch.setattr(budgeting, "SAMPLES", 50)
    chosen = own_model._examples(session), *(budgeting._images(session, name) for name in splits)
    for images, labels in chosen:
        assert len(images) == len(labels) == 50 and set(labels.argmax(1)) == set(range(10))


def test_channels_are_chosen_with_the_weights_of_images_and_classes():
    splits = {name: (*arrays, np.full(len(arrays[0]), 2.0)) for name, arrays in digits(90).items()}
    config = tfopt.FinetuneConfig(weights=None, image_size=32, class_weight={"3": 5.0}, batch_size=8)
    session = Session.open(splits, config)
    for images, labels, weights in session.sample(weighted=True).concatenate(session.sample(weighted=True)):
        expected = np.where(labels.numpy().argmax(1) == 3, 10.0, 2.0)
        np.testing.assert_allclose(weights, expected)
        assert images.shape[1:] == (32, 32, 3)
    assert len(session.sample().element_spec) == 2, "other uses take no weights"
