"""Sharpness-aware minimization as a model with its own training step. arXiv:2010.01412."""

from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks, _keras_internals


@keras.saving.register_keras_serializable(package="tfopt")
class SharpnessAware(keras.Model):
    """Trains a model towards flat minima: each step uses the gradient at the worst point nearby.

    Generalizes better when a network can fit its training data, most of all with little data, label
    noise and vision transformers. Every step costs two; where time is short, train longer instead.
    Works with every optimizer, with mixed precision and under strategies.

        e = rho * g / norm(g)                            (SAM; g over all weights and replicas)
        e = rho * w**2 * g / norm(|w| * g)               (ASAM, `adaptive=True`)
        optimizer step at w with the gradient at w + e

    Both passes see the same dropout masks; only the first one moves batch statistics and metrics.
    Memory: a copy of the weights.

    Args:
        model: A built `keras.Model`. It shares its weights: train the wrapper, then use the model.
        rho: Float > 0. Size of the neighborhood; 0.05 to 0.1 for SAM, 0.5 to 2 for ASAM.
        adaptive: Whether the neighborhood scales with the weights.
        **options: `name` and what else `keras.Model` takes.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If `rho` is out of its bounds or not finite, `model` is not built, or its class has a
            `train_step` or `compute_loss` of its own, which would not be called.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> wrapped = tfopt.models.SharpnessAware(model, rho=0.05)
        >>> wrapped.compile("adam", "mse")
        >>> history = wrapped.fit(tf.ones((8, 4)), tf.ones((8, 2)), verbose=0)

    Differs from: implementations in which each replica climbs along its own gradient; here two replicas
    equal one device.

    References:
        Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
        Generalization", ICLR 2021. arXiv:2010.01412.
        Kwon, Kim, Park, Choi, "ASAM", ICML 2021. arXiv:2102.11600.
    """

    def __init__(self, model: keras.Model, rho: float = 0.05, adaptive: bool = False, **options: Any):
        super().__init__(**options)
        _checks.check_instance("model", model, keras.Model)
        if not model.built:
            raise ValueError(_checks.message("model", "built", model.name, "Give it an input shape."))
        _check_step(model)
        self.model = model
        if hasattr(model, "output_names"):  # losses and metrics may be given by name
            self.output_names = list(model.output_names)
        self.rho = _checks.check_number("rho", rho, minimum=0, open_minimum=True)
        self.adaptive = bool(adaptive)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The outputs of the model."""
        return self.model(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Climbs, takes the gradient there, comes back, and lets the optimizer step."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights, state = self.trainable_variables, self.model.non_trainable_variables
        before = [tf.identity(v.value) for v in state]
        outputs, loss, grads = self._pass(x, y, sample_weight)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # each has its share of the loss
        _keras_internals.track_loss(self, loss * replicas, tf.shape(tf.nest.flatten(x)[0])[0])
        kept = [*state, *self.metrics_variables]  # Keras counts the loss of each output in `compute_loss`
        after = [tf.identity(v.value) for v in kept]
        start = [tf.identity(v.value) for v in weights]
        for weight, step in zip(weights, self._climb(start, grads)):
            weight.assign_add(tf.cast(step, weight.dtype))
        for variable, old in zip(state, before):
            if not variable.dtype.startswith(("float", "bfloat")):  # seeds: the same dropout again
                variable.assign(old)
        _, _, grads = self._pass(x, y, sample_weight)
        for variable, value in [*zip(weights, start), *zip(kept, after)]:
            variable.assign(value)
        self.optimizer.apply_gradients(list(zip(grads, weights)))
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)

    def _pass(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        return outputs, loss, tape.gradient(scaled, [v.value for v in self.trainable_variables])

    def _climb(self, weights: list[tf.Tensor], grads: list[Any]) -> list[tf.Tensor]:
        slopes = [
            tf.zeros(w.shape) if g is None else tf.cast(tf.convert_to_tensor(g), tf.float32)
            for w, g in zip(weights, grads)
        ]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            slopes = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, slopes)
        sizes = [tf.abs(tf.cast(w, tf.float32)) if self.adaptive else 1.0 for w in weights]
        slopes = [size * slope for size, slope in zip(sizes, slopes)]
        factor = self.rho / (tf.linalg.global_norm(slopes) + 1e-12)
        return [factor * size * slope for size, slope in zip(sizes, slopes)]

    def get_config(self) -> dict[str, Any]:
        """The arguments; the model as Keras stores objects."""
        model = keras.saving.serialize_keras_object(self.model)
        return {"name": self.name, "model": model, "rho": self.rho, "adaptive": self.adaptive}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SharpnessAware":
        """The reverse of `get_config`."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**{**config, "model": model})


def _check_step(model: keras.Model) -> None:
    """Refuses a model whose own training step or loss would silently not be used."""
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"`SharpnessAware` would not call `{type(model).__name__}.{name}`. Put the loss into "
                "`compute_loss` of a subclass of `SharpnessAware`, and wrap a model without this method."
            )
