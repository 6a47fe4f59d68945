"""The three tasks: losses, scores and measures against scikit-learn and against each other."""

import json
import weakref

import keras
import numpy as np
import pytest
import sklearn.metrics

from tfopt.tasks import Classification, MultiLabel, Regression, infer_task, make_task

NAMES = ("a", "b", "c")


def examples(kind, count=400, seed=0):
    """A task, labels, the logits of an imperfect head, and the outputs of the activation."""
    random = np.random.default_rng(seed)
    if kind == "classification":
        labels = np.eye(3)[random.choice(3, count, p=[0.6, 0.3, 0.1])]
        logits = 2 * labels + random.normal(size=(count, 3))
        return Classification(NAMES), labels, logits, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if kind == "multilabel":
        labels = (random.uniform(size=(count, 3)) < [0.5, 0.2, 0.7]).astype(float)
        logits = 2 * labels - 1 + random.normal(size=(count, 3))
        return MultiLabel(NAMES), labels, logits, 1 / (1 + np.exp(-logits))
    labels = random.normal(size=(count, 3)) * [1, 10, 100] + [5, 0, -50]
    task = Regression(NAMES, labels.mean(0), labels.std(0))
    logits = (labels - task.mean) / task.deviation + random.normal(scale=0.5, size=(count, 3))
    return task, labels, logits, logits * task.deviation + task.mean


KINDS = ("classification", "multilabel", "regression")


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_head_is_that_of_its_loss(kind):
    task, labels, logits, _ = examples(kind, 20)
    loss, gradient = task.fit_of_head(logits, labels)
    weights = np.random.default_rng(2).integers(0, 3, (20, 1))
    times = np.repeat(np.arange(20), weights[:, 0])  # an example of weight 2 counts like two of them
    of_all, _ = task.fit_of_head(logits[times], labels[times])
    weighted, weighted_gradient = task.fit_of_head(logits, labels, weights)
    assert weighted * 20 == pytest.approx(of_all * len(times))
    np.testing.assert_allclose(weighted_gradient, weights * gradient)
    step = np.random.default_rng(1).normal(size=logits.shape) * 1e-6
    moved, _ = task.fit_of_head(logits + step, labels)
    assert moved - loss == pytest.approx(float((gradient * step).sum()), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_the_head_are_what_keras_logs(kind):
    task, labels, logits, outputs = examples(kind)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=task.loss(), metrics=task.metrics())
    logged = model.evaluate(outputs, labels, batch_size=400, verbose=0, return_dict=True)
    for name, value in task.scores_of_head(logits, labels).items():
        # Keras interpolates the area under the precision-recall curve between 200 thresholds.
        assert logged[name] == pytest.approx(value, rel=2e-2 if "average" in name else 1e-4), name
    better = {"val_" + name: value for name, value in task.scores_of_head(2 * labels - 1, labels).items()}
    if kind != "regression":
        worse = {"val_" + name: value for name, value in task.scores_of_head(-labels, labels).items()}
        assert task.quality(better) > task.quality(worse)
    assert "validation" in task.progress_text(better) and task.progress_text({}) == ""
    assert task.progress_text(better, "validation (learned from)").startswith("validation (learned from) ")


def test_classification_measures_are_those_of_scikit_learn():
    task, labels, _, outputs = examples("classification")
    true, predicted = labels.argmax(1), outputs.argmax(1)
    found = task.measures(true, outputs)
    assert found == task.measures(labels, outputs), "integers and one-hot rows mean the same"
    report = sklearn.metrics.classification_report(true, predicted, target_names=NAMES, output_dict=True)
    assert found["accuracy"] == pytest.approx(report["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(report["macro avg"]["recall"])
    assert found["macro_precision"] == pytest.approx(report["macro avg"]["precision"])
    assert (found["macro_f1"], found["weighted_f1"]) == pytest.approx(
        (report["macro avg"]["f1-score"], report["weighted avg"]["f1-score"])
    )
    for row in found["classes"]:
        assert row["recall"] == pytest.approx(report[row["name"]]["recall"])
        assert row["support"] == report[row["name"]]["support"]
    assert found["confusion"] == sklearn.metrics.confusion_matrix(true, predicted).tolist()
    assert 0 < found["expected_calibration_error"] < 0.2
    assert json.loads(json.dumps(found)) == found


def test_multi_label_measures_are_those_of_scikit_learn():
    task, labels, _, outputs = examples("multilabel")
    found = task.measures(labels, outputs)
    expected = sklearn.metrics.average_precision_score(labels, outputs, average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["exact_match"] == pytest.approx(sklearn.metrics.accuracy_score(labels, outputs > 0.5))
    assert found["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, outputs > 0.5, average="macro")
    )
    for column, row in enumerate(found["classes"]):
        thresholds = np.linspace(0.02, 0.98, 25)
        scores = [
            sklearn.metrics.f1_score(labels[:, column], outputs[:, column] > t, zero_division=0)
            for t in thresholds
        ]
        reached = sklearn.metrics.f1_score(labels[:, column], outputs[:, column] > row["best_threshold"])
        assert reached >= max(scores) - 1e-9
    tied = task.measures(labels, np.round(outputs, 1))["mean_average_precision"]
    assert tied == pytest.approx(sklearn.metrics.average_precision_score(labels, np.round(outputs, 1)))


def test_regression_measures_are_those_of_scikit_learn():
    task, labels, _, outputs = examples("regression")
    found = task.measures(labels, outputs)
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(labels, outputs))
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(labels, outputs))
    assert [row["mae_of_mean"] > row["mae"] * 0.5 for row in found["targets"]] == [True] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_chance_is_what_an_ignorant_model_reaches(kind):
    task, labels, _, outputs = examples(kind)
    measure, chance, perfect = task.chance(labels)
    ignorant = np.tile(labels.mean(0), (len(labels), 1))
    assert task.measures(labels, ignorant)[measure] == pytest.approx(chance, abs=1e-6)
    assert chance < task.measures(labels, outputs)[measure] <= perfect


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_survives_being_stored(kind):
    task, labels, _, outputs = examples(kind)
    again = make_task(json.loads(json.dumps(task.stored())))
    assert type(again) is type(task) and again.names == NAMES
    assert again.measures(labels, outputs) == task.measures(labels, outputs)


def test_answers_name_what_matters():
    row = np.array([0.1, 0.7, 0.2])
    assert Classification(NAMES).answer(row, top=2) == [("b", 0.7), ("c", 0.2)]
    assert MultiLabel(NAMES).answer(row) == [("b", 0.7)]
    assert [name for name, _ in MultiLabel(NAMES).answer(row, threshold=0.15)] == ["b", "c"]
    assert MultiLabel(NAMES).answer_text([]) == "none"
    assert (
        Regression(("angle",)).answer_text(Regression(("angle",)).answer(np.array([12.3456])))
        == "angle 12.35"
    )
    assert isinstance(infer_task(NAMES, "sigmoid"), MultiLabel)
    assert isinstance(infer_task(NAMES, None), Classification)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_add_up_to_the_measures_of_all(kind):
    task, labels, _, outputs = examples(kind)
    tally = task.tally()
    for start in range(0, 400, 33):
        tally.add(labels[start : start + 33], outputs[start : start + 33])
    assert tally.count == 400 and tally.is_finite
    expected = task.measures(labels, outputs)
    found = tally.measures()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert tally.log_loss() == (
        None if kind == "regression" else pytest.approx(task.log_loss(labels, outputs))
    )
    assert tally.chance() == task.chance(labels)


def test_counts_of_classes_hold_no_outputs():
    """The memory of an evaluation must not grow with the images: of 20 batches nothing is held."""
    task = Classification([str(number) for number in range(100)])
    tally, batches = task.tally(), []
    for seed in range(20):
        outputs = np.random.default_rng(seed).uniform(size=(50, 100)).astype("float32")
        batches.append(weakref.ref(outputs))
        tally.add(np.arange(50), outputs)
    del outputs
    assert not any(batch() is not None for batch in batches)
    assert tally.measures()["top_5_accuracy"] == pytest.approx(0.05, abs=0.03)
    tally.add(np.arange(50), np.full((50, 100), np.nan))
    assert not tally.is_finite and np.isnan(tally.log_loss()), "a model that has diverged is counted, too"
    assert np.isfinite(tally.measures()["expected_calibration_error"])
