"""Whether more or less of a logged value is better. It is never guessed: unknown names are asked for."""

import re
from typing import Any, Literal

Direction = Literal["min", "max"]

_LESS = frozenset(
    [
        "loss",
        "losses",
        "error",
        "errors",
        "err",
        "mae",
        "mse",
        "rmse",
        "mape",
        "smape",
        "msle",
        "rmsle",
        "wer",
        "cer",
        "nll",
        "perplexity",
        "ppl",
        "bpc",
        "bpb",
        "brier",
        "ece",
        "crossentropy",
        "divergence",
        "kl",
        "hinge",
        "poisson",
        "huber",
        "logcosh",
        "tversky",
        "ctc",
        "fid",
        "lpips",
        "eer",
        "fpr",
        "fnr",
        "fp",
        "fn",
        "hamming",
        "cost",
        "regret",
        "latency",
        "ms",
        "seconds",
        "duration",
        "size",
        "bytes",
        "kb",
        "mb",
        "gb",
        "flops",
        "macs",
        "parameters",
        "params",
        "memory",
        "deviance",
    ]
)
_MORE = frozenset(
    [
        "accuracy",
        "acc",
        "auc",
        "auroc",
        "auprc",
        "roc",
        "precision",
        "recall",
        "f1",
        "fbeta",
        "iou",
        "miou",
        "jaccard",
        "psnr",
        "ssim",
        "similarity",
        "correlation",
        "pearson",
        "spearman",
        "r2",
        "kappa",
        "ndcg",
        "mrr",
        "map",
        "bleu",
        "rouge",
        "meteor",
        "matthews",
        "mcc",
        "reward",
        "specificity",
        "sensitivity",
        "tpr",
        "tnr",
        "tp",
        "tn",
    ]
)
_PHRASES = {  # of several words; in the form that `fit` logs
    r"cross_entropy": "crossentropy",
    r"log_cosh": "logcosh",
    r"io_u": "iou",
    r"false_(positive|negative)s?": "fp",
    r"true_(positive|negative)s?": "tp",
    r"f1_score|f_1": "f1",
    r"(top)_?(k|\d+)": "accuracy",
    r"map_?\d+": "map",
    r"dice_(coefficient|coef|score)": "iou",
    r"(mean|average)_precision": "precision",
    r"hit_(rate|ratio)": "recall",
}
# What turns a gain into something else: `accuracy_gap`, `size_reduction`.
_UNKNOWN = frozenset(["gap", "drop", "difference", "reduction", "ratio", "change", "delta", "gain", "saved"])


def direction_of_name(name: str) -> Direction | None:
    """What is better for a metric of this name: "min", "max", or None if the name does not say.

    The last word that says something decides: `auc_loss` is a loss, `size_accuracy` the accuracy of an output
    that is called "size".

    Args:
        name: As `fit` logs it: with `val_`, the name of an output and a number, or without.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    text = re.sub(r"[^a-z0-9]+", "_", text)
    for phrase, word in _PHRASES.items():
        text = re.sub(rf"(?<![a-z0-9])({phrase})(?![a-z0-9])", word, text)
    words = text.split("_")
    if _UNKNOWN & set(words):
        return None
    for word in reversed(words):
        for form in (word, word.rstrip("0123456789")):  # `loss2`; but `r2` and `f1` are words
            if form in _LESS:
                return "min"
            if form in _MORE:
                return "max"
    return None


def direction_of_metric(name: str, metrics: list[Any]) -> Direction | None:
    """The same, but the metric object is asked first, which knows its `_direction` in Keras.

    Args:
        name: As `fit` logs it.
        metrics: The metric objects of the model.
    """
    bare = name.removeprefix("val_")
    for metric in metrics:
        direction = getattr(metric, "_direction", None)
        if direction is not None and (bare == metric.name or bare.endswith(f"_{metric.name}")):
            return "max" if direction == "up" else "min"
    return direction_of_name(name)


def ask_for_direction(argument: str, name: str, end: str = "") -> str:
    """The message of the error that asks the user: how to say what is better.

    Args:
        argument: What takes "min" or "max", as it is written in a call.
        name: Of the value.
        end: What closes the call.
    """
    return (
        f"It is not known whether more or less of `{name}` is better. "
        f'Pass `{argument}="max"{end}` if more is better, `{argument}="min"{end}` if less is.'
    )
