"""Plans: limits are kept by the real file, or refused with the nearest that can be reached."""

import zlib

import keras
import numpy as np
import pytest

from tfopt.compress.planning import Budget, carry_out, front, plan
from tfopt.compress.planning.measuring import taking_pixels

L = keras.layers
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 128)
X = (RNG.normal(size=(128, 8, 8, 3)) + 1.5 * Y[:, None, None, None]).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [
        L.Conv2D(32, 3, activation="relu"),
        L.Conv2D(32, 3, activation="relu"),
        L.GlobalAveragePooling2D(),
    ]
    made = keras.Sequential([keras.Input((8, 8, 3)), *layers, L.Dense(2, activation="softmax")])
    made.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    made.fit(X, Y, epochs=4, verbose=0)
    return made


@pytest.mark.full
def test_a_plan_keeps_bytes_and_is_carried_out(model, tmp_path):
    made = plan(model, (X, Y), Budget(bytes="9k", drop="20%"))
    assert made.expected.bytes <= 9000 and (made.keep < 1.0 or made.precision is not None)
    result = carry_out(made, (X, Y), tmp_path / "s.tflite", epochs=1)
    assert result.missed == {} and len((tmp_path / "s.tflite").read_bytes()) == result.measured.bytes <= 9000
    assert result.drop <= 0.2 and "channels kept" in str(made)


def test_data_that_judges_does_not_choose(model, tmp_path):
    wrong = (X, 1 - Y)
    result = carry_out(plan(model, (X, Y), Budget(bytes="1M"), judge=wrong), path=tmp_path / "j.tflite")
    assert result.measured.score < 0.5 < result.stages["export"]
    assert len((tmp_path / "j.tflite").read_bytes()) == result.measured.bytes


@pytest.mark.full
def test_zipped_is_kept_by_pruning_single_layers(model, tmp_path):
    whole = plan(model, (X, Y), Budget(bytes="1M")).tried[0][1]
    limit = 0.25 * whole.zipped
    result = carry_out(plan(model, (X, Y), Budget(zipped=limit)), path=tmp_path / "z.tflite")
    assert len(zlib.compress((tmp_path / "z.tflite").read_bytes(), 6)) <= limit and not result.missed


def test_a_budget_below_the_smallest_model_names_the_nearest(model):
    with pytest.raises(ValueError, match=r"reachable.*100.0.*The nearest .*bytes, "):
        plan(model, X, Budget(bytes=100))


def test_data_without_labels_is_judged_by_agreement_and_said(model, caplog):
    made = plan(model, X[:66], Budget(drop=0.5))
    assert "agreement with the float model" in caplog.text and made.float_score == 1.0
    assert (len(made.chooser.inputs), len(made.judge.inputs)) == (44, 22)


@pytest.mark.parametrize(
    "limits, text",
    [
        ({}, "must have a limit"),
        ({"bytes": "250 apples"}, "`bytes` must be a number with one of the units"),
        ({"bytes": "1.2.3k"}, "`bytes` must be a number with one of the units"),
        ({"bytes": 0}, "`bytes` must be a number > 0"),
        ({"drop": 3}, "'1%' is one point"),
        ({"latency_ms": -1.0}, "`latency_ms`"),
    ],
)
def test_bad_limits_are_named(limits, text):
    with pytest.raises(ValueError, match=text):
        Budget(**limits)


def test_sizes_and_shares_are_read():
    budget = Budget(bytes="1.5 KiB", zipped="2k", latency_ms="5ms", arena="1MB", drop="1%")
    assert budget.limits() == {"bytes": 1536, "zipped": 2000, "latency_ms": 5, "arena": 1e6, "drop": 0.01}


def test_the_scale_of_pixels_is_found_and_becomes_part_of_the_model(caplog):
    """A model that wants [0, 1] was planned by the answers that it gives to [0, 255], which are by chance."""
    x = inputs = keras.Input((8, 8, 3))
    x = L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x))
    bright = keras.Model(inputs, L.Softmax()(x))
    bright.get_layer("head").set_weights([np.array([[0, 9], [0, 0], [0, 0]]), np.array([4.5, 0])])
    levels = np.tile([20, 60, 100, 160, 200, 250], 12)
    pixels, labels = (np.ones((72, 8, 8, 3)) * levels[:, None, None, None]).astype("uint8"), levels > 127
    made = plan(bright, (pixels, labels.astype(int)), Budget(bytes="1M"))
    assert made.float_score == 1.0 and "scaled to [0, 1]" in caplog.text
    assert made.expected.score == 1.0 and (made.model.predict(pixels, verbose=0).argmax(1) == labels).all()
    assert taking_pixels(made.model, (pixels, labels), None) is made.model, "it scales pixels itself now"


def test_a_front_measures_each_form_once_and_names_what_is_out_of_reach(model):
    seen = []
    budgets = [Budget(bytes=size) for size in ("1M", "900k", 100)]
    found = front(model, (X, Y), budgets, on_measured=lambda name, measured: seen.append(name))
    assert [plan.budget.bytes for plan in found.plans] == [1e6, 9e5] and len(seen) == len(set(seen))
    assert all(plan.expected.bytes <= plan.budget.bytes for plan in found.plans)
    ((budget, reason),) = found.refused
    assert budget.bytes == 100 and "The nearest that was measured" in reason
    assert "bytes 900000" in str(found) and "out of reach" in str(found)
    with pytest.raises(ValueError, match="`budgets` must be one `Budget` or more"):
        front(model, (X, Y), [])
    with pytest.raises(ValueError, match="nearest"):
        front(model, (X, Y), budgets[2:])


def test_a_limit_on_the_loss_alone_takes_channels_as_long_as_it_holds(model):
    made = plan(model, (X, Y), Budget(drop="30%"))
    whole = dict(made.tried)[f"keep=1.00, multiplier=0, {made.precision or 'float32'}"]
    assert made.keep < 1.0 and made.expected.bytes < whole.bytes
    chosen = [m for name, m in made.tried if name.startswith(f"keep={made.keep:.2f}, ")]
    assert all(made.chooser.float_score - each.score <= 0.3 for each in chosen if each.bytes <= whole.bytes)
