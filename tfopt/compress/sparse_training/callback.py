"""Training with few connections from the first step on, which move to where they are needed."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_integer, check_number, message
from tfopt._keras_internals import build_for_training, change_gradients, innermost
from tfopt.callbacks._state import StatefulCallback
from tfopt.compress._kernels import Choice, Selector, choose
from tfopt.compress._updates import planned_updates
from tfopt.compress.clustering.groups import KeepGroups
from tfopt.compress.distillation import Lesson
from tfopt.compress.pruning._constraint import MaskConstraint
from tfopt.compress.pruning.schedules import check_sparsity
from tfopt.compress.sparse_training.distribution import DISTRIBUTIONS
from tfopt.compress.sparse_training.rewiring import most_sensitive, rewired

_logger = logging.getLogger(__name__)
TRAINED_SHARE = 0.75  # of the run: the last quarter trains with the connections that were found


@final
class SparseTraining(StatefulCallback):
    """Trains a sparse model from scratch: the number of connections is constant, their places are not.

    Use it where there is no dense model to prune, with a longer training than a dense model needs. With a
    trained model at hand, `Pruning` is better. The computation stays dense: it saves no time.

        "rigl":  every `every` updates drop the share s of connections of smallest |w|,
                 grow as many where the gradient of the loss is largest;  s = drop / 2 (1 + cos(pi t / T))
        "set":   the same, but grow at random
        "snip":  choose once, by |gradient x weight| of the first batch

    Memory and Cost: a mask per weight; two sorts of the kernels at every rewiring.

    Args:
        sparsity: Share of zeros in all kernels together, in [0, 1).
        method: "rigl", "set" or "snip".
        distribution: "erk" makes large layers sparser; "uniform" gives all the same but keeps the first
            dense; "global", for "snip" only, compares the weights of all layers, as its authors do.
        exclude: Layers to leave dense: names, patterns such as "block_1_*", classes or their names, or
            layers; see `Pruning`.
        include: Layers to make sparse that are left dense otherwise, in the same forms: depthwise kernels.
        every: Updates between two rewirings, >= 1.
        drop: Share of the connections that moves at first, in (0, 1]; it falls to 0 like a cosine.
        end_step: Optimizer update of the last rewiring; None is after 75 % of this `fit`.
        seed: Of the first places, and of "set".
        teacher: A model to learn from besides the labels; see `Distillation`.

    Attributes:
        left_dense: After `fit` has begun: why each kernel that is not sparse stays dense, by name.

    Raises:
        ValueError: If a value is outside its bounds, a name fits no layer, layers are frozen, or the model
            is not compiled or was quantized by Keras.

    Example:
        >>> sparse = tfopt.compress.SparseTraining(0.9, method="rigl")
        >>> model.fit(train, epochs=50, callbacks=[sparse])
        >>> sparse.sparsity()["conv1"]
        0.84

    Differs from the authors' code: a rewiring takes no update away from training, and the gradient of absent
    connections reaches the optimizer at no time, as in theirs.

    References:
        Evci et al.: Rigging the Lottery: Making All Tickets Winners. arXiv:1911.11134
        Mocanu et al.: Scalable training of artificial neural networks with adaptive sparse connectivity
        inspired by network science. arXiv:1707.04780
        Lee, Ajanthan, Torr: SNIP: Single-shot network pruning. arXiv:1810.02340
    """

    def __init__(
        self,
        sparsity: float,
        method: str = "rigl",
        distribution: str = "erk",
        exclude: Sequence[Selector] = (),
        *,
        include: Sequence[Selector] = (),
        every: int = 100,
        drop: float = 0.3,
        end_step: int | None = None,
        seed: int = 0,
        teacher: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self._lesson = Lesson(teacher)
        self.target = check_sparsity("sparsity", sparsity)
        self.method = check_choice("method", method, ("rigl", "set", "snip"))
        choices = (*DISTRIBUTIONS, *["global"] * (method == "snip"))
        self.distribution = check_choice("distribution", distribution, choices)
        self.exclude, self.include = exclude, include
        self.every = check_integer("every", every, minimum=1)
        self.drop = check_number("drop", drop, minimum=0.0, maximum=1.0, open_minimum=True)
        self.end_step = None if end_step is None else check_integer("end_step", end_step, minimum=1)
        self.seed = check_integer("seed", seed, minimum=0)
        self._choice = Choice({}, {}, ())
        self._kernels: dict[str, keras.Variable] = {}
        self.left_dense: dict[str, str] = {}
        self._stop: list[Callable[[], None]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Places the connections and attaches the masks to the model that `fit` trains."""
        if getattr(self.model, "optimizer", None) is None:
            raise ValueError(
                "`SparseTraining` moves connections where the compiled optimizer applies gradients. "
                "Received: a model without an optimizer. Call `compile`, and train with `fit` "
                "or with `model.optimizer`."
            )
        self._choice = choose(self.model, self.include, self.exclude, "trained sparsely")
        self._kernels = {name: kernel.variable for name, kernel in self._choice.chosen.items()}
        self.left_dense = dict(self._choice.dense)
        self._choice.tell(_logger, "SparseTraining")
        frozen = [name for name, kernel in self._kernels.items() if not kernel.trainable]
        if frozen:
            raise ValueError(f"The layers must be trainable, or in `exclude`. Frozen ones: {frozen}.")
        build_for_training(self.model, None)
        self._optimizer = innermost(self.model.optimizer)
        self._start = int(keras.ops.convert_to_numpy(self._optimizer.iterations))
        self._end = self._last_step()
        kernels = list(self._kernels.values())
        with self.model.distribute_strategy.scope():
            self._masks = [self._mask(*pair) for pair in zip(kernels, self._first_masks(kernels))]
        self._stop = [change_gradients(self._optimizer, kernels, self._masked)]
        self._lesson.begin(self.model)
        self.model.make_train_function(force=True)  # a function traced earlier knows nothing of this

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the share of zeros in all kernels of the model to the logs."""
        if logs is not None:
            logs["sparsity"] = self._choice.share_of_zeros()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """The connections stay where they are in whatever trains this model next."""
        while self._stop:
            self._stop.pop()()
        self._lesson.end()

    def get_state(self) -> dict[str, Any]:
        """The places of the connections, for `Resume`."""
        return {"masks": [mask.numpy() > 0 for mask in self._masks]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for mask, places in zip(self._masks, state["masks"]):
            mask.assign(places)

    def sparsity(self) -> dict[str, float]:
        """Share of zeros of each sparse layer, by layer name."""
        return {name: float(np.mean(kernel.numpy() == 0)) for name, kernel in self._kernels.items()}

    def _last_step(self) -> int:
        if self.end_step is not None or self.method == "snip":
            return self.end_step or 0
        updates = planned_updates(self.model.optimizer, self.params)
        if updates is None:
            fix = "Or give `steps_per_epoch` to `fit`."
            raise ValueError(message("end_step", "given when `fit` does not know its steps", None, fix))
        return self._start + int(TRAINED_SHARE * updates)

    def _first_masks(self, kernels: list[keras.Variable]) -> list[np.ndarray]:
        """At random; a model that is sparse already keeps its connections, as far as they are to be kept."""
        if self.method == "snip":
            return [np.ones(kernel.shape) for kernel in kernels]
        random, masks = np.random.default_rng(self.seed), []
        for kernel, count in zip(kernels, self._counts(kernels)):
            places = np.argsort(random.random(kernel.shape) - (kernel.numpy() != 0), axis=None)
            mask = np.zeros(kernel.shape)
            mask.flat[places[:count]] = 1.0
            masks.append(mask)
        return masks

    def _counts(self, kernels: list[keras.Variable]) -> list[int]:
        return DISTRIBUTIONS[self.distribution]([tuple(kernel.shape) for kernel in kernels], self.target)

    def _chosen(self, weights: list[tf.Tensor], gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        kernels = list(self._kernels.values())
        if self.distribution != "global":
            return most_sensitive(weights, gradients, self._counts(kernels))
        total = sum(int(np.prod(kernel.shape)) for kernel in kernels)
        return most_sensitive(weights, gradients, max(round(total * (1.0 - self.target)), 1))

    def _mask(self, kernel: keras.Variable, start: np.ndarray) -> keras.Variable:
        mask = keras.Variable(
            start, dtype=kernel.dtype, trainable=False, name="mask", aggregation="only_first_replica"
        )
        inner = kernel.constraint
        while isinstance(inner, MaskConstraint | KeepGroups):  # a mask of before would forbid new places
            inner = inner.inner
        kernel.constraint = KeepGroups(mask, 0, inner)
        kernel.assign(kernel.numpy() * start)
        return mask

    def _masked(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Runs in the graph before each update: renews the masks, and hides absent connections."""
        step = tf.cast(self._optimizer.iterations, tf.int64) + 1
        gradients = [tf.convert_to_tensor(each) for each in gradients]  # an embedding's come as slices
        masks = [tf.convert_to_tensor(mask) for mask in self._masks]
        weights = [tf.convert_to_tensor(kernel) for kernel in self._kernels.values()]
        if self.method == "snip":
            due = tf.equal(step, self._start + 1)
            masks = tf.cond(due, lambda: self._chosen(weights, gradients), lambda: masks)
        else:
            due = tf.equal((step - self._start) % self.every, 0) & (step <= self._end)
            masks = tf.cond(due, lambda: self._moved(masks, weights, gradients, step), lambda: masks)
        for variable, mask in zip(self._masks, masks):
            variable.assign(mask)  # outside of the branch, where a strategy cannot synchronise it
        return [gradient * mask for gradient, mask in zip(gradients, masks)]

    def _moved(self, masks: list, weights: list, gradients: list, step: tf.Tensor) -> list[tf.Tensor]:
        progress = tf.cast(step - self._start, tf.float32) / max(self._end - self._start, 1)
        share = self.drop / 2.0 * (1.0 + tf.cos(math.pi * progress))
        result = []
        for index, (mask, weight, gradient) in enumerate(zip(masks, weights, gradients)):
            seed = tf.stack([tf.cast(self.seed + index, tf.int64), step])
            chance = self.method == "set"
            growth = tf.random.stateless_uniform(mask.shape, seed) if chance else tf.abs(gradient)
            result.append(rewired(mask, weight, tf.cast(growth, mask.dtype), share))
        return result
