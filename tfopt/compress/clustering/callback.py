"""Weight clustering during `fit`: few distinct values per kernel, which a zip program stores in few bits."""

import logging
from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import check_choice, check_instance, check_integer
from tfopt.callbacks._state import KerasCallback
from tfopt.compress._kernels import Choice, Kernel, Selector, choose
from tfopt.compress._layouts import Layout, from_matrix, to_matrix
from tfopt.compress.clustering.centroids import INITIALIZATIONS, centroids_of, nearest
from tfopt.compress.clustering.groups import KeepGroups, value_groups
from tfopt.compress.distillation import Lesson

_logger = logging.getLogger(__name__)
_ROWS = Layout("kernel", (-2,), (-1,))


@final
class Clustering(KerasCallback):
    """Replaces every kernel's weights by a few shared values, and trains these values.

    Use it on a trained model, with a small learning rate, to make the file compress well where pruning
    would cost more: 16 values are 4 bits a weight in a zip file. Speed does not change. Works on pruned
    models: zeros stay zeros. `quantize_aware(preserve="clusters")` carries the values into an int8 file.

        when `fit` begins:    centroids <- k-means of the kernel;   w <- nearest centroid
        after each update:    w <- mean of all w that share its centroid

    Memory and Cost: an int32 per clustered weight; two passes over the kernels per update.

    Args:
        clusters: Distinct values per kernel, the zero of a pruned kernel included, >= 2.
        per_channel: Whether each output channel has values of its own. Loses less, compresses less.
        preserve_sparsity: Whether zeros stay zeros.
        initialization: Where k-means starts: "kmeans++", or "linear" between the smallest and the largest
            weight, which keeps large weights apart.
        exclude: Layers to leave as they are: names, patterns such as "block_1_*", classes or their names, or
            layers; see `Pruning`.
        include: Layers to cluster that are left otherwise, in the same forms: depthwise kernels.
        seed: Of "kmeans++".
        teacher: A model to learn from besides the labels; see `Distillation`.

    Attributes:
        left_alone: After `fit` has begun: why each kernel that is not clustered is left, by name. A kernel
            with no more weights than `clusters` is left.

    Raises:
        ValueError: If a value is outside its bounds, a name fits no layer, every kernel has fewer weights
            than clusters, or the model was quantized by Keras.

    Example:
        >>> clustering = tfopt.compress.Clustering(16, exclude=["logits"])
        >>> model.fit(train, epochs=2, callbacks=[clustering])
        >>> clustering.unique_values()["conv1"]
        16

    Differs from tfmot: nothing to wrap or strip; k-means is run to its end, tfmot's k-means++ only draws the
    starts; a weight stays with its centroid, which follows the mean of the updates instead of their sum.

    References:
        Han, Mao, Dally: Deep Compression. arXiv:1510.00149
        Arthur, Vassilvitskii: k-means++: The advantages of careful seeding. SODA 2007
    """

    def __init__(
        self,
        clusters: int,
        per_channel: bool = False,
        preserve_sparsity: bool = True,
        initialization: str = "kmeans++",
        exclude: Sequence[Selector] = (),
        *,
        include: Sequence[Selector] = (),
        seed: int = 0,
        teacher: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self._lesson = Lesson(teacher)
        self.clusters = check_integer("clusters", clusters, minimum=2)
        self.per_channel = bool(check_instance("per_channel", per_channel, bool))
        self.preserve_sparsity = bool(check_instance("preserve_sparsity", preserve_sparsity, bool))
        self.initialization = check_choice("initialization", initialization, INITIALIZATIONS)
        self.exclude, self.include = exclude, include
        self.seed = check_integer("seed", seed, minimum=0)
        self._choice = Choice({}, {}, ())
        self.left_alone: dict[str, str] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Clusters the kernels of the model that `fit` trains, and attaches the constraints."""
        choice = choose(self.model, self.include, self.exclude, "clustered")
        broken = [
            name
            for name, kernel in choice.chosen.items()
            if not np.isfinite(np.asarray(kernel.variable.numpy())).all()
        ]
        if broken:
            raise ValueError(
                f"The weights must be finite to be clustered. Received NaN or infinity: {broken}."
            )
        self._choice = choice.leave(self._too_small(choice), "clustered")
        self.left_alone = dict(self._choice.dense)
        self._choice.tell(_logger, "Clustering")
        with self.model.distribute_strategy.scope():
            for kernel in self._choice.chosen.values():
                self._attach(kernel)
        self._lesson.begin(self.model)
        if self.model.compiled:
            self.model.make_train_function(force=True)  # a function traced earlier knows no constraints

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """The weights stay clustered in whatever trains this model next."""
        self._lesson.end()

    def clustered(self, weights: np.ndarray, layout: Layout = _ROWS) -> np.ndarray:
        """A kernel with every weight replaced by its centroid.

        Args:
            weights: The kernel.
            layout: Its axes, for `per_channel`; by default the last one is that of the output channels.
        """
        if not self.per_channel:
            return self._one_set(weights)
        matrix = to_matrix(layout, weights, np)
        channels = [self._one_set(channel) for channel in np.moveaxis(matrix, -1, 0)]
        return from_matrix(layout, np.stack(channels, axis=-1), weights.shape, np)

    def unique_values(self) -> dict[str, int]:
        """Distinct values of each clustered kernel, or of its richest channel, by layer name."""
        return {name: self._distinct(kernel) for name, kernel in self._choice.chosen.items()}

    def _attach(self, kernel: Kernel) -> None:
        variable, layout = kernel.variable, kernel.layout
        weights = self.clustered(np.asarray(variable.numpy()), layout)
        matrix = to_matrix(layout, weights, np)  # channels are its last axis
        groups = value_groups(matrix, per_channel=self.per_channel, keep_zeros=self.preserve_sparsity)
        numbers = keras.Variable(
            from_matrix(layout, groups, weights.shape, np),
            dtype="int32",
            trainable=False,
            name="groups",
            aggregation="only_first_replica",
        )
        variable.constraint = KeepGroups(numbers, int(groups.max()), variable.constraint)
        variable.assign(weights)

    def _too_small(self, choice: Choice) -> dict[str, str]:
        """Kernels in which no weight would share its value."""
        reasons = {}
        for name, kernel in choice.chosen.items():
            matrix = to_matrix(kernel.layout, np.asarray(kernel.variable.numpy()), np)
            size = matrix.size // matrix.shape[-1] if self.per_channel else matrix.size
            if size < self.clusters:
                of = "weights a channel" if self.per_channel else "weights"
                reasons[name] = f"has {size} {of}, fewer than clusters={self.clusters}"
        return reasons

    def _one_set(self, weights: np.ndarray) -> np.ndarray:
        chosen = weights != 0 if self.preserve_sparsity else np.ones(weights.shape, bool)
        result = weights.copy()
        if chosen.any():
            count = self.clusters - int(not chosen.all())
            centroids = centroids_of(weights[chosen], count, self.initialization, self.seed)
            result[chosen] = nearest(weights[chosen], centroids)
        return result

    def _distinct(self, kernel: Kernel) -> int:
        weights = np.asarray(kernel.variable.numpy())
        channels = (
            np.moveaxis(to_matrix(kernel.layout, weights, np), -1, 0) if self.per_channel else [weights]
        )
        return max(len(np.unique(channel)) for channel in channels)
