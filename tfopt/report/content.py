"""What a report shows, as plain data: the sections know nothing about how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfopt._checks import check_instance, message


@dataclass(frozen=True)
class Stage:
    """One call of `fit`, as a stretch of the training curves.

    Args:
        name: What was trained, in a word or two: "head", "fine-tuning", "pruning".
        history: Metric name -> one number per epoch, as `History.history` has it. `val_loss` is drawn
            with `loss`; `learning_rate` and `images_per_second` get charts of their own. NaN is allowed.
        seconds: Wall time of the stage.
        learned_validation: Whether the model had learned from the validation images before this stage. Its
            validation curves then say how the training went, not how good the model is.
    """

    name: str
    history: Mapping[str, Sequence[float]]
    seconds: float | None = None
    learned_validation: bool = False

    @property
    def epochs(self) -> int:
        """Length of the longest series."""
        return max((len(values) for values in self.history.values()), default=0)


@dataclass(frozen=True)
class ModelRow:
    """One line of the comparison table; what was not measured stays None.

    Args:
        name: Such as "float32", "pruned", "int8".
        accuracy: Fraction in [0, 1] on the test split.
        interval: Bounds of the 95 % interval of `accuracy`, fractions.
        bytes: Size of the file.
        zipped_bytes: Size of the file after gzip.
        latency_ms: Median time for one image, in milliseconds, measured by `engine`.
        latency_spread: Two quantiles of it, in milliseconds.
        agreement: Fraction of the test images on which it answers as the first row does.
        note: A remark for the reader, such as "this file was exported".
        engine: What ran the model, such as "LiteRT, 1 thread" or "Keras". Latencies are compared only
            between rows of the same engine; those of Keras have a column of their own.
        balanced_accuracy: Mean of `recalls`, a fraction.
        recalls: For each class the share of its test images that were recognized; None for a class without
            test images. Shown for the first and the last row that have them.
        result: What takes the place of accuracy for numbers, such as "mae 0.051, rmse 0.066".
    """

    name: str
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    bytes: int | None = None
    zipped_bytes: int | None = None
    latency_ms: float | None = None
    latency_spread: tuple[float, float] | None = None
    agreement: float | None = None
    note: str = ""
    engine: str = ""
    balanced_accuracy: float | None = None
    recalls: Sequence[float | None] | None = None
    result: str = ""


@dataclass(frozen=True)
class LabelScore:
    """How well one of several labels per image is found.

    Args:
        name: Of the label.
        support: Test images that have it.
        average_precision: Area under the curve of precision over recall, a fraction; None without images.
        reference: That of the first model, or None.
        precision: Of the answers at a probability of 0.5, a fraction.
        recall: Likewise.
        f1: Likewise.
        threshold: The probability from which on F1 is best on the test images, or None.
    """

    name: str
    support: int
    average_precision: float | None = None
    reference: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class TargetScore:
    """How well one number is predicted.

    Args:
        name: Of the number.
        truth: Of each test image, [examples].
        answers: Of the model, [examples].
        error_of_mean: The mean absolute error of a model that always answers the mean, or None.
    """

    name: str
    truth: np.ndarray
    answers: np.ndarray
    error_of_mean: float | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.truth) != 1 or np.shape(self.truth) != np.shape(self.answers):
            expected = "of shape [examples], as `truth` is"
            raise ValueError(message("answers", expected, np.shape(self.answers), f"{np.shape(self.truth)}."))


@dataclass(frozen=True)
class LayerChange:
    """What compression left of one layer.

    Args:
        name: Name of the layer.
        channels: Number of output channels before and after compression.
        weights: Number of weights before and after compression.
        zeros: Share of zeros in the kernel after compression, in [0, 1].
    """

    name: str
    channels: tuple[int, int]
    weights: tuple[int, int]
    zeros: float = 0.0


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Args:
        image: uint8 pixels, [height, width, 1 or 3].
        true: Index of the right class.
        predicted: Index of the class that was answered.
        confidence: Probability given to the wrong class, a fraction.
        overlay: The same picture with its Grad-CAM on top, uint8, or None.
        name: Where the image comes from, such as its file name.
    """

    image: np.ndarray
    true: int
    predicted: int
    confidence: float
    overlay: np.ndarray | None = None
    name: str = ""


@dataclass(frozen=True)
class Embedding:
    """Images as points in the plane.

    Args:
        points: Coordinates, [examples, 2].
        labels: Class index of each point, [examples].
        method: How the points were made, such as "t-SNE of the features before the head".
    """

    points: np.ndarray
    labels: np.ndarray
    method: str = ""

    def __post_init__(self) -> None:
        points, labels = np.asarray(self.points), np.asarray(self.labels)
        if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
            expected = "of shape [examples, 2], with one label per point"
            raise ValueError(message("points", expected, points.shape, f"labels: {labels.shape}."))


@dataclass(frozen=True)
class Report:
    """Everything the page shows. Only `title` and `class_names` are needed; empty sections are left out.

    Args:
        title: Heading of the page.
        class_names: Names of the classes, in the order of the model's outputs.
        subtitle: One line below the heading: model, data, date.
        models: Rows of the comparison, the reference first and the one to ship last.
        stages: Training stages in their order.
        layers: Layers that lost channels or weights.
        measures: What the result is besides accuracy, the most important first: {"mAP": "93.1 %"}.
        labels: Scores of each label, where images have several.
        targets: Scores of each number, in a regression.
        class_counts: Split name -> number of images of each class.
        balanced_counts: Images of each class in an epoch of training, if `tfopt.data.balance` changed them.
        samples: Augmented images, uint8, [examples, height, width, 1 or 3].
        sample_labels: Class index of each sample, or None.
        confusion: Counts, [classes, classes]; row = true class, column = predicted class.
        evaluated_on: What the accuracies, `confusion` and `mistakes` were counted on, in the plural.
        evaluated_model: Which of the models `confusion` and `mistakes` are about.
        mistakes: Wrong answers, the most confident first.
        embedding: Images as points in the plane.
        options: Every option of the run.
        environment: Versions, device, threads, seed.
        notes: Remarks and warnings that a reader must not miss, such as skipped images.
        failed: Title of a section that could not be made -> the reason, which stands in its place.
        seconds: Wall time of the whole run.
    """

    title: str
    class_names: Sequence[str]
    subtitle: str = ""
    models: Sequence[ModelRow] = ()
    stages: Sequence[Stage] = ()
    layers: Sequence[LayerChange] = ()
    measures: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[LabelScore] = ()
    targets: Sequence[TargetScore] = ()
    class_counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    balanced_counts: Sequence[int] | None = None
    samples: np.ndarray | None = None
    sample_labels: Sequence[int] | None = None
    confusion: np.ndarray | None = None
    evaluated_on: str = "test images"
    evaluated_model: str = ""
    mistakes: Sequence[Mistake] = ()
    embedding: Embedding | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_instance("title", self.title, str)
        classes = len(self.class_names)
        for split, counts in self.class_counts.items():
            if len(counts) != classes:
                expected = f"one count for each of the {classes} classes in every split"
                raise ValueError(message("class_counts", expected, {split: len(counts)}))
        for row in self.models:
            if row.recalls is not None and len(row.recalls) != classes:
                expected = f"one share for each of the {classes} classes in every row"
                raise ValueError(message("recalls", expected, {row.name: len(row.recalls)}))
        if self.balanced_counts is not None and len(self.balanced_counts) != classes:
            expected = f"one count for each of the {classes} classes"
            raise ValueError(message("balanced_counts", expected, self.balanced_counts))
        if self.confusion is not None and np.shape(self.confusion) != (classes, classes):
            expected = f"of shape {(classes, classes)}, one row and column for each class"
            raise ValueError(message("confusion", expected, np.shape(self.confusion)))
