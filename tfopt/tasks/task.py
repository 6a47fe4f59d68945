"""The interface of a task."""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfopt.tasks.tally import Rows, Tally

if TYPE_CHECKING:
    import keras


class Task(abc.ABC):
    """What the labels of a data set mean to every part of the main job.

    Args:
        names: Names of the classes, labels or targets, in the order of the outputs.

    Attributes:
        name: As `ImageDataset.task` has it: "classification", "multilabel" or "regression".
        activation: What the head ends in, as `tfopt.models.image_model` takes it.
        compared_as: The `task` of `tfopt.compress.compare`.
        decisive: The metric of `metrics()` by which epochs are chosen and progress is shown.
        scores_are_means: Whether `scores_of_head` are means over the examples, which parts of them add up to.
    """

    name: ClassVar[str]
    activation: ClassVar[str | None]
    compared_as: ClassVar[str]
    decisive: ClassVar[str]
    scores_are_means: ClassVar[bool] = True

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @property
    def outputs(self) -> int:
        """The width of the head."""
        return len(self.names)

    @abc.abstractmethod
    def encoded(self, labels: Any) -> Any:
        """Labels of a batch (a tensor, as `tfopt.data` gives them) as the loss takes them: float32."""

    @abc.abstractmethod
    def loss(self, smoothing: float = 0.0) -> "keras.losses.Loss":
        """The loss of `fit` for models that end in `activation`.

        Args:
            smoothing: Share of each label that is given to the other classes; not used by numbers.
        """

    @abc.abstractmethod
    def metrics(self) -> list[Any]:
        """The metrics of `compile`."""

    @abc.abstractmethod
    def quality(self, logs: Mapping[str, float], prefix: str = "val_") -> tuple[float, float]:
        """How good an epoch is, from the logs of Keras: of two tuples, the larger one is better."""

    @abc.abstractmethod
    def progress_text(self, logs: Mapping[str, float], split: str = "validation") -> str:
        """What an epoch has reached, in a few words; "" without validation.

        Args:
            logs: Of Keras.
            split: What the validation images are called.
        """

    @abc.abstractmethod
    def lessons(self) -> "list[keras.distillation.DistillationLoss] | None":
        """The losses by which a model learns the answers of a teacher; None: those of `Distillation`."""

    @abc.abstractmethod
    def fit_of_head(
        self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> tuple[float, np.ndarray]:
        """The loss of a linear head and its gradient with respect to the logits.

        Args:
            logits: [examples, outputs], before the activation.
            labels: [examples, outputs], as `encoded` gives them.
            weights: [examples, 1], of the examples.
        """

    @abc.abstractmethod
    def scores_of_head(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """ "loss" and the decisive metric of a linear head, as Keras would log them."""

    @abc.abstractmethod
    def measures(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """How good outputs are: plain numbers and lists, for JSON; the most important one first.

        Args:
            labels: As `tfopt.data` gives them, or as `encoded` does.
            outputs: Of the model, `[examples, outputs]`.
        """

    def tally(self) -> Tally:
        """What measures labels and outputs that come batch after batch."""
        return Rows(self)

    def log_loss(self, labels: np.ndarray, outputs: np.ndarray) -> float | None:
        """The mean of -log p of what is right, p the probability that the outputs give it; None for numbers.

        Args:
            labels: As for `measures`.
            outputs: As for `measures`.
        """
        return None

    @abc.abstractmethod
    def chance(self, labels: np.ndarray) -> tuple[str, float, float]:
        """(measure, its value without any knowledge of the images, its value for perfect answers).

        Args:
            labels: As for `measures`.
        """

    @abc.abstractmethod
    def answer(
        self, output: np.ndarray, top: int = 3, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """(name, value) pairs of one image, the most important first.

        Args:
            output: Of the model, `[outputs]`.
            top: At most so many names; numbers are all given.
            threshold: Only names with at least this probability; None is what suits the task.
        """

    @abc.abstractmethod
    def answer_text(self, answer: Sequence[tuple[str, float]]) -> str:
        """An answer in one line."""

    @abc.abstractmethod
    def counts_text(self, counts: Mapping[str, int]) -> str:
        """How many images there are, in one line.

        Args:
            counts: Images by split.
        """

    def stored(self) -> dict[str, Any]:
        """Plain values from which `make_task` makes the task again, as model files store them."""
        return {"task": self.name, "names": list(self.names)}
