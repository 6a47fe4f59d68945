"""What is better: of every metric and loss of Keras, by the name that `fit` logs; unknown ones are asked."""

import inspect

import keras
import numpy as np
import pytest

import tfopt
from tfopt._directions import direction_of_metric, direction_of_name

NO_DIRECTION = {"Mean", "Sum", "MeanMetricWrapper", "Metric"}
ARGUMENTS = {
    "MeanIoU": {"num_classes": 2},
    "IoU": {"num_classes": 2, "target_class_ids": [0]},
    "OneHotIoU": {"num_classes": 2, "target_class_ids": [0]},
    "OneHotMeanIoU": {"num_classes": 2},
    **{n: {n.split("At")[1].lower(): 0.5} for n in ("PrecisionAtRecall", "RecallAtPrecision")},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}
METRICS = [
    name
    for name, value in vars(keras.metrics).items()
    if inspect.isclass(value) and issubclass(value, keras.Metric) and name not in NO_DIRECTION
]
LOSSES = [
    name
    for name, value in vars(keras.losses).items()
    if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and name != "Loss"
]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_keras_has_the_direction_that_keras_says(name):
    metric = getattr(keras.metrics, name)(**ARGUMENTS.get(name, {}))
    direction = getattr(metric, "_direction", None)
    expected = {"up": "max", "down": "min", None: direction_of_name(metric.name)}[direction]
    assert expected is not None
    for logged in (metric.name, f"val_{metric.name}", f"head_{metric.name}", f"{metric.name}_1"):
        assert direction_of_name(logged) == expected, logged
    assert direction_of_metric(f"val_head_{metric.name}", [metric]) == expected


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_of_keras_is_maximized(name):
    loss = getattr(keras.losses, name)().name
    assert direction_of_name(f"val_{loss}_loss") == "min"
    # `cosine_similarity` is the metric of that name in logs; `dice` and others may be either: asked for.
    assert direction_of_name(loss) in ({"max"} if name == "CosineSimilarity" else {"min", None})


@pytest.mark.parametrize(
    "name",
    [
        "mae",
        "val_mse",
        "rmse",
        "error",
        "perplexity",
        "wer",
        "latency",
        "latency_ms",
        "total_loss",
        "log_loss",
        "val_head_loss",
        "accuracy_loss",
        "bytes_zipped",
        "false_positives",
    ],
)
def test_losses_errors_and_costs_are_minimized(name):
    assert tfopt.tune.Objective(name).direction == "min"


@pytest.mark.parametrize(
    "name",
    [
        "accuracy",
        "val_acc",
        "r2",
        "r2_score",
        "psnr",
        "ssim",
        "cosine_similarity",
        "mean_io_u",
        "map",
        "map50",
        "top_5",
        "top_5_accuracy",
        "kappa",
        "ndcg",
        "matthews",
        "size_accuracy",
        "dice_coef",
        "val_hit_rate",
        "hit_ratio@10",
        "true_positives",
        "AUC",
    ],
)
def test_known_gains_are_maximized(name):
    assert tfopt.tune.Objective(name).direction == "max"


@pytest.mark.parametrize("name", ["dice", "quality", "accuracy_gap", "g", "size_reduction"])
def test_unknown_names_are_asked_for(name):
    with pytest.raises(ValueError, match='direction="max"'):
        tfopt.tune.Objective(name)
    assert tfopt.tune.Objective(name, direction="max").direction == "max"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r'PlateauDecay\(mode="max"\)'):
        model.fit(np.ones((2, 2)), np.ones(2), callbacks=[tfopt.callbacks.PlateauDecay(name)], verbose=0)


def test_plateau_decay_asks_the_metric_object():
    class Quality(keras.metrics.Mean):
        def __init__(self):
            super().__init__("quality_error")  # the name lies
            self._direction = "up"

        def update_state(self, y, prediction, sample_weight=None):
            super().update_state(prediction)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Quality()])
    plateau = tfopt.callbacks.PlateauDecay("quality_error")
    model.fit(np.ones((2, 2)), np.ones(2), callbacks=[plateau], verbose=0)
    assert plateau.mode == "max"
