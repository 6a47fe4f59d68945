"""A teacher for a model that is being made smaller: Keras's distillation, inside an ordinary `fit`."""

from collections.abc import Sequence
from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_instance, check_number, message
from tfopt._keras_internals import leaf_layers, nodes
from tfopt.callbacks._state import KerasCallback
from tfopt.compress._graph import Graph

L = keras.layers
_OF_QUANTITIES = frozenset(
    ["mse", "mae", "msle", "mape", "meansquarederror", "meanabsoluteerror", "huber", "huberloss", "logcosh"]
    + ["meansquaredlogarithmicerror", "meanabsolutepercentageerror"]
)
SMALLEST = 1e-8  # an int8 probability may be 0, which has no logarithm


@final
@keras.saving.register_keras_serializable(package="tfopt")
class SoftTargets(keras.distillation.DistillationLoss):
    """Divergence of the student's class probabilities from the teacher's, both softened.

        p = softmax(teacher logits / T),  q = softmax(student logits / T),  loss = T^2 KL(p, q)

    Args:
        temperature: T > 0; above 1 the small probabilities count more.
        teacher_logits: Whether the teacher gives logits; False for probabilities.
        student_logits: The same for the student.

    Example:
        >>> loss = tfopt.compress.SoftTargets(temperature=4.0, student_logits=False)

    Differs from `keras.distillation.LogitsDistillation`: right for models that end in a softmax, too; and its
    default loss (Keras 3.15) takes the divergence of the logits themselves, without any softmax.

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. arXiv:1503.02531
    """

    def __init__(
        self, temperature: float = 3.0, teacher_logits: bool = True, student_logits: bool = True
    ) -> None:
        self.temperature = check_number("temperature", temperature, minimum=0.0, open_minimum=True)
        self.teacher_logits, self.student_logits = bool(teacher_logits), bool(student_logits)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> tf.Tensor:
        """The loss of a batch, a scalar."""
        teacher = self._softened(teacher_outputs, self.teacher_logits)
        student = self._softened(student_outputs, self.student_logits)
        divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * tf.reduce_mean(divergence)

    def _softened(self, outputs: Any, logits: bool) -> tf.Tensor:
        values = tf.cast(outputs, tf.float32)
        values = values if logits else tf.math.log(tf.maximum(values, SMALLEST))
        return tf.nn.log_softmax(values / self.temperature)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"teacher_logits": self.teacher_logits, "student_logits": self.student_logits}
        return {"temperature": self.temperature, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SoftTargets":
        """The inverse of `get_config`."""
        return cls(**config)


@final
class _EachOutput(keras.distillation.DistillationLoss):
    """The sum of a loss for each output: of classes, of labels on their own, or of quantities.

    Args:
        temperature: Of the classes and the labels.
        teacher: The teacher, whose outputs may end in other activations than those of the student.
        student: The model that learns. How it is compiled is looked at when the loss is traced.
    """

    def __init__(self, temperature: float, teacher: keras.Model, student: keras.Model) -> None:
        self.temperature, self.student = temperature, student
        self.ends = _ends(teacher), _ends(student)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> tf.Tensor:
        """The loss of a batch, a scalar."""
        outputs = zip(keras.tree.flatten(teacher_outputs), keras.tree.flatten(student_outputs))
        return tf.add_n([self._loss(index, *both) for index, both in enumerate(outputs)])

    def _loss(self, index: int, teacher: Any, student: Any) -> tf.Tensor:
        ends = [known[index] if index < len(known) else "linear" for known in self.ends]
        if "softmax" in ends:
            return SoftTargets(self.temperature, *(end != "softmax" for end in ends)).compute_loss(
                teacher, student
            )
        if "sigmoid" in ends:
            return self._of_labels(*(_log_odds(x, end) for x, end in zip((teacher, student), ends)))
        if teacher.shape[-1] == 1 or _regresses(self.student, index):
            return tf.reduce_mean(tf.square(tf.cast(teacher, tf.float32) - tf.cast(student, tf.float32)))
        return SoftTargets(self.temperature).compute_loss(teacher, student)

    def _of_labels(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """T^2 KL of each probability on its own."""
        yes, no = teacher / self.temperature, -teacher / self.temperature
        terms = [
            tf.sigmoid(x) * (tf.math.log_sigmoid(x) - tf.math.log_sigmoid(sign * student / self.temperature))
            for x, sign in ((yes, 1.0), (no, -1.0))
        ]
        return self.temperature**2 * tf.reduce_mean(tf.add_n(terms))


def _log_odds(outputs: Any, end: str) -> tf.Tensor:
    values = tf.cast(outputs, tf.float32)
    if end != "sigmoid":
        return values
    values = tf.clip_by_value(values, 1e-6, 1.0 - 1e-6)
    return tf.math.log(values) - tf.math.log(1.0 - values)


@final
class Distillation(KerasCallback):
    """Lets a model learn from a teacher besides the labels, for the time of a `fit`.

    Use it when a smaller or sparser model cannot reach the one it comes from: the teacher's probabilities
    say more about an image than its label. The model stays what it is: every other callback, optimizer and
    strategy works on it, nothing is to be unwrapped. `quantize_aware`, `binarize`, `ternarize`, `Pruning`,
    `Clustering` and `SparseTraining` take the same teacher as `teacher=`.

        loss = (1 - weight) * compiled loss + weight * loss of `keras.distillation.Distiller`

    Memory and Cost: the teacher, and one inference of it per training batch.

    Args:
        teacher: A trained model with the same inputs and outputs. It is not changed.
        weight: Share of the distillation loss, in [0, 1].
        temperature: Of the default losses, > 0. Each output has its own: `SoftTargets` for one that ends in a
            softmax, or linear with a loss of classes; the same divergence for each label of one that ends in
            sigmoids; the mean squared difference for quantities (a linear output of one number, or with a
            loss such as "mse" in `compile`).
        losses: Other `keras.distillation` losses, such as `FeatureDistillation` between two layers.

    Raises:
        ValueError: A teacher whose inputs or outputs do not fit; a value outside its bounds.

    Example:
        >>> teacher = tfopt.compress.Distillation(model)
        >>> smaller.fit(train, epochs=5, callbacks=[teacher])

    Differs from `keras.distillation.Distiller`: no model around the student, sample weights and regularizers
    count, validation shows the compiled loss.

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. arXiv:1503.02531
    """

    def __init__(
        self,
        teacher: keras.Model,
        weight: float = 0.5,
        temperature: float = 3.0,
        losses: Sequence[keras.distillation.DistillationLoss] | None = None,
    ) -> None:
        super().__init__()
        self._lesson = Lesson(teacher, weight, temperature, losses)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Adds the teacher to the loss of the model."""
        self._lesson.begin(self.model)
        self.model.make_train_function(force=True)  # a function traced earlier has the old loss

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes it away again."""
        self._lesson.end()
        self.model.make_train_function(force=True)


@final
class Lesson:
    """What a teacher adds to the loss of a model, between `begin` and `end`.

    Args: those of `Distillation`; without a teacher nothing happens.
    """

    def __init__(
        self,
        teacher: keras.Model | None,
        weight: float = 0.5,
        temperature: float = 3.0,
        losses: Sequence[keras.distillation.DistillationLoss] | None = None,
    ) -> None:
        self.teacher = check_instance("teacher", teacher, (keras.Model, type(None)))
        self.weight = check_number("weight", weight, minimum=0.0, maximum=1.0)
        self.temperature = check_number("temperature", temperature, minimum=0.0, open_minimum=True)
        self.losses = losses
        self._model: keras.Model | None = None

    def begin(self, model: keras.Model) -> None:
        """Adds it; a training function that was traced before does not notice."""
        self.end()  # after a `fit` that an error ended
        if self.teacher is None:
            return
        if self.teacher is model:
            raise ValueError(message("teacher", "another model than the one that learns", model.name))
        losses = self.losses or [_EachOutput(self.temperature, self.teacher, model)]
        distiller, weight = _distiller(self.teacher, model, list(losses)), self.weight
        self._model, self._before = model, vars(model).get("compute_loss")
        compiled = model.compute_loss

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            loss = compiled(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
            if not training:
                return loss
            # The compiled loss is this replica's share of the mean; Keras's Distiller forgets the others.
            taught = distiller.compute_loss(x=x, y_pred=y_pred) / _replicas()
            return (1.0 - weight) * loss + weight * taught

        model.compute_loss = compute_loss

    def end(self) -> None:
        """Takes it away."""
        if self._model is not None:
            vars(self._model).pop("compute_loss", None)
            if self._before is not None:
                self._model.compute_loss = self._before
            self._model = None


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _distiller(teacher: keras.Model, student: keras.Model, losses: list) -> keras.distillation.Distiller:
    """Keras's Distiller for the teacher's part of the loss; it freezes the teacher, which is undone."""
    whole, flags = teacher.trainable, [(layer, layer.trainable) for layer in leaf_layers(teacher)]
    with student.distribute_strategy.scope():
        distiller = keras.distillation.Distiller(teacher, student, losses, student_loss_weight=0.0)
    teacher.trainable = whole
    for layer, flag in flags:
        layer.trainable = flag
    return distiller


def _ends(model: keras.Model) -> list[str]:
    """For each output "softmax", "sigmoid" or "linear", looked for up to the last layer with weights."""
    if not nodes(model):
        return []  # a subclassed model shows no layers: Keras's own losses assume logits, too
    graph = Graph(model)
    return [_end(graph, index) for index in graph.outputs]


def _end(graph: Graph, index: int) -> str:
    call = graph.producer.get(index)
    while call is not None:
        operation = call.operation
        if isinstance(operation, L.Softmax) or type(operation).__name__ in ("Softmax", "Sigmoid"):
            return type(operation).__name__.lower()
        function = getattr(operation, "activation", None)
        if function is not None:
            known = {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}
            return known.get(function, "linear")
        if len(call.inputs) != 1 or (isinstance(operation, L.Layer) and operation.trainable_weights):
            return "linear"
        call = graph.producer.get(call.inputs[0])
    return "linear"


def _regresses(model: keras.Model, index: int) -> bool:
    """Whether the loss that the model is compiled with for an output is one of quantities."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, dict):
        names = sorted(model.output) if isinstance(model.output, dict) else model.output_names
        loss = loss.get(names[index]) if index < len(names) else None
    elif isinstance(loss, list | tuple):
        loss = loss[index] if index < len(loss) else None
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    return str(name).lower().replace("_", "") in _OF_QUANTITIES
