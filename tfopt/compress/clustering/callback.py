"""Weight clustering during `fit`: few distinct values per kernel, which a zip program stores in few bits."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import check_choice, check_instance, check_integer
from tfopt.compress.clustering.centroids import INITIALIZATIONS, centroids_of, nearest
from tfopt.compress.clustering.groups import KeepGroups, value_groups
from tfopt.compress.distillation import Lesson
from tfopt.compress.pruning.kernels import prunable_kernels


@final
class Clustering(keras.callbacks.Callback):
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
        exclude: Layers to leave alone: names, patterns such as "block_1_*", or layers. Depthwise convolutions
            are always left alone.
        seed: Of "kmeans++".
        teacher: A model to learn from besides the labels; see `Distillation`.

    Raises:
        ValueError: a value outside its bounds, more clusters than weights, a name that fits no layer.

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
        exclude: Sequence[str | keras.Layer] = (),
        *,
        seed: int = 0,
        teacher: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self._lesson = Lesson(teacher)
        self.clusters = check_integer("clusters", clusters, minimum=2)
        self.per_channel = bool(check_instance("per_channel", per_channel, bool))
        self.preserve_sparsity = bool(check_instance("preserve_sparsity", preserve_sparsity, bool))
        self.initialization = check_choice("initialization", initialization, INITIALIZATIONS)
        self.exclude = tuple(exclude)
        self.seed = check_integer("seed", seed, minimum=0)
        self._clustered: dict[str, keras.Variable] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Clusters the kernels of the model that `fit` trains, and attaches the constraints."""
        kernels = prunable_kernels(self.model, self.exclude)
        broken = [name for name, kernel in kernels.items() if not np.isfinite(kernel.numpy()).all()]
        if broken:
            raise ValueError(
                f"The weights must be finite to be clustered. Received NaN or infinity: {broken}."
            )
        small = [name for name, kernel in kernels.items() if self._weights_per_set(kernel) < self.clusters]
        if small:
            raise ValueError(
                f"`clusters` must be at most the number of weights. Received: clusters={self.clusters}, more "
                f"than the weights of {small}{' in a channel' * self.per_channel}. "
                "Take fewer, or leave these layers out with `exclude`."
            )
        self._clustered = kernels
        with self.model.distribute_strategy.scope():
            for kernel in kernels.values():
                weights = self.clustered(np.asarray(kernel.numpy()))
                groups = value_groups(
                    weights, per_channel=self.per_channel, keep_zeros=self.preserve_sparsity
                )
                variable = keras.Variable(
                    groups, dtype="int32", trainable=False, name="groups", aggregation="only_first_replica"
                )
                kernel.constraint = KeepGroups(variable, int(groups.max()), kernel.constraint)
                kernel.assign(weights)
        self._lesson.begin(self.model)
        self.model.make_train_function(force=True)  # a function traced earlier knows no constraints

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """The weights stay clustered in whatever trains this model next."""
        self._lesson.end()

    def clustered(self, weights: np.ndarray) -> np.ndarray:
        """A kernel with every weight replaced by its centroid."""
        if not self.per_channel:
            return self._one_set(weights)
        return np.stack([self._one_set(channel) for channel in np.moveaxis(weights, -1, 0)], axis=-1)

    def unique_values(self) -> dict[str, int]:
        """Distinct values of each clustered kernel, or of its richest channel, by layer name."""
        return {name: self._distinct(np.asarray(v.numpy())) for name, v in self._clustered.items()}

    def _weights_per_set(self, kernel: keras.Variable) -> int:
        size = int(np.prod(kernel.shape))
        return size // kernel.shape[-1] if self.per_channel else size

    def _one_set(self, weights: np.ndarray) -> np.ndarray:
        chosen = weights != 0 if self.preserve_sparsity else np.ones(weights.shape, bool)
        result = weights.copy()
        if chosen.any():
            count = self.clusters - int(not chosen.all())
            centroids = centroids_of(weights[chosen], count, self.initialization, self.seed)
            result[chosen] = nearest(weights[chosen], centroids)
        return result

    def _distinct(self, weights: np.ndarray) -> int:
        channels = np.moveaxis(weights, -1, 0) if self.per_channel else [weights]
        return max(len(np.unique(channel)) for channel in channels)
