"""`Augment`: random changes of training images as a pure function of (seed, epoch, example)."""

import dataclasses
import functools
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_instance, check_integer, check_number, message
from tfopt.data.augment import mix
from tfopt.data.augment.boxes import moved
from tfopt.data.augment.image import MIX, move, move_mask, paint, place_of
from tfopt.data.augment.sheet import write_sheet
from tfopt.data.augment.stateless_random import make_key, uniform

_CHOICES = {
    "flip": ("horizontal", "vertical", "both", None),
    "fill_mode": ("nearest", "constant", "reflect", "wrap"),
}
_BOUNDS = {"rotate": (0, 180), "shift": (0, 1), "zoom": (0, 0.95), "shear": (0, 80), "crop": (0.01, 1)}
_BOUNDS |= {"color": (0, 1), "blur": (0, 10), "erase": (0, 1), "randaugment": (0, 30)}
_BOUNDS |= {"mixup": (0.01, 10), "cutmix": (0.01, 10)}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Changes training images at random: geometry, color, policies, MixUp and CutMix.

    Give it to `tfopt.data.pipeline(augment=...)`. Every change is decided by the seed, the epoch and the
    number of the example, so results do not depend on parallelism, the batch size, the number of workers
    or a resume in mid-epoch. All geometry is one resampling, compiled by XLA. Every option is None, off,
    by default; `light`, `standard`, `strong` and `image_data_generator` are presets. Do not use it for
    validation, and no flip or large rotation where they change the meaning, as for digits.

    Args:
        flip: "horizontal", "vertical" or "both": mirrors half of the images.
        rotate: Largest angle in degrees, in (0, 180].
        shift: Largest shift as a share of the width and the height, in (0, 1].
        zoom: Largest change of size, in (0, 0.95]: 0.2 enlarges or reduces by up to 20 %.
        shear: Largest slant in degrees, in (0, 80].
        crop: Smallest area of a random box that is enlarged to the image, in [0.01, 1]; its shape varies
            by up to 4:3. 0.08 is usual for training from scratch, 0.5 and more for fine-tuning.
        color: Largest change of brightness, contrast and saturation, in (0, 1].
        blur: Largest standard deviation of a Gaussian blur in pixels, in (0, 10].
        erase: Probability of painting a box over 2 % to 33 % of the image, in (0, 1].
        randaugment: Strength of RandAugment, in (0, 30]; the paper uses 9 for ImageNet.
        randaugment_layers: Number of changes that RandAugment applies to an image, in [1, 16].
        trivial_augment: True applies one change of random strength (instead of `randaugment`).
        mixup: alpha of MixUp, in [0.01, 10]; shares are drawn from Beta(alpha, alpha). Labels become soft.
        cutmix: alpha of CutMix, in [0.01, 10]. With `mixup` as well, each pair gets one of the two.
        fill_mode: What lies outside: "nearest", "constant", "reflect" or "wrap".
        fill_value: The value of "constant", in [0, 255].
        mask_fill_value: The value of "constant" in masks, >= -1: the class of the background, or the number
            that the loss ignores.

    Raises:
        ValueError: If a value is outside the bounds above.

    Example:
        >>> augment = tfopt.data.Augment(flip="horizontal", rotate=20, shift=0.2)
        >>> batches = tfopt.data.pipeline(data.train, 32, image_size=224, augment=augment)

    Differs from `keras.layers.RandomFlip` and the like: those draw from a generator with a state, so a
    parallel map gives other images at each run, and each layer resamples once more. MixUp takes integer
    labels and draws each pair's share; TF Model Garden draws from Beta(1, 1) whatever alpha.
    """

    flip: str | None = None
    rotate: float | None = None
    shift: float | None = None
    zoom: float | None = None
    shear: float | None = None
    crop: float | None = None
    color: float | None = None
    blur: float | None = None
    erase: float | None = None
    randaugment: float | None = None
    randaugment_layers: int = 2
    trivial_augment: bool = False
    mixup: float | None = None
    cutmix: float | None = None
    fill_mode: str = "nearest"
    fill_value: float = 0.0
    mask_fill_value: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, (minimum, maximum) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None:
                fix = "None turns it off."
                check_number(
                    name, value, minimum=minimum, maximum=maximum, open_minimum=minimum == 0, fix=fix
                )
        check_integer("randaugment_layers", self.randaugment_layers, minimum=1, maximum=16)
        check_instance("trivial_augment", self.trivial_augment, bool)
        check_number("fill_value", self.fill_value, minimum=0, maximum=255)
        check_integer("mask_fill_value", self.mask_fill_value, minimum=-1)
        if self.trivial_augment and self.randaugment:
            raise ValueError(message("trivial_augment", "False with `randaugment`", True))

    @classmethod
    def light(cls) -> "Augment":
        """Small changes, for few epochs or little data of which much is known."""
        return cls(flip="horizontal", shift=0.05, zoom=0.1, rotate=5)

    @classmethod
    def standard(cls) -> "Augment":
        """A random crop, a flip and colors: the usual choice for photographs."""
        return cls(flip="horizontal", crop=0.5, rotate=10, color=0.2)

    @classmethod
    def strong(cls) -> "Augment":
        """RandAugment, erasing and mixing, for long training of large models."""
        return cls(flip="horizontal", crop=0.25, randaugment=9, erase=0.25, mixup=0.2, cutmix=1.0)

    @classmethod
    def image_data_generator(cls) -> "Augment":
        """`ImageDataGenerator(rotation_range=20, width_shift_range=0.2, ..., horizontal_flip=True)`."""
        return cls(flip="horizontal", rotate=20, shift=0.2)

    @property
    def mixes(self) -> bool:
        """Whether labels become soft."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def moves(self) -> tuple[str, ...]:
        """The options in use that move pixels, after which masks and boxes no longer fit."""
        names = ("flip", "rotate", "shift", "zoom", "shear", "crop", "randaugment", "trivial_augment")
        return tuple(name for name in names if getattr(self, name))

    def image(self, image: tf.Tensor, *, seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Changes one image [height, width, 3] of static shape; float32 in [0, 255]."""
        key = make_key(seed, epoch, index)
        return tf.ensure_shape(self._paint(self._move(image, key), key), image.shape)

    def boxes(
        self,
        boxes: tf.Tensor,
        box_format: str,
        image_size: tuple[int, int],
        *,
        seed: int,
        epoch: tf.Tensor,
        index: tf.Tensor,
    ) -> tf.Tensor:
        """Moves boxes as `image` moves the image with the same seed, epoch and index.

        Args:
            boxes: Numbers [..., 4].
            box_format: As `boxes` of `tfopt.data.pipeline`.
            image_size: (height, width).
            seed: Integer.
            epoch: int64.
            index: int64, the number of the example in the data.

        Returns:
            float32 [..., 4]: the upright boxes around the moved ones, cut at the edges of the image.
        """
        place = place_of(self, *image_size, make_key(seed, epoch, index))
        return tf.cast(boxes, tf.float32) if place is None else moved(boxes, place, box_format, *image_size)

    def mask(self, mask: tf.Tensor, *, seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Moves a mask as `image` moves the image with the same seed, epoch and index.

        Every pixel takes the nearest one, so that classes are not blended. Options that change colors, and
        `erase`, leave masks as they are.

        Args:
            mask: [height, width] or [height, width, channels] of static shape, any dtype.
            seed: Integer.
            epoch: int64.
            index: int64, the number of the example in the data.

        Returns:
            The same shape and dtype.
        """
        channels = mask[..., None] if mask.shape.rank == 2 else mask
        moved = self._move_mask(channels, make_key(seed, epoch, index)) if self.moves else channels
        return tf.reshape(moved, mask.shape)

    def batch(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor | None = None,
        *,
        seed: int,
        epoch: tf.Tensor,
        index: tf.Tensor,
        classes: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Mixes neighbors of a batch: float32 images, labels float32 [batch, classes].

        Args:
            images: float32 [batch, height, width, 3].
            labels: Integers [batch]; or numbers [batch, classes]: soft labels, several labels, targets.
            weights: Sample weights [batch]. An example counts in a mixture by its weight times its share,
                so that the loss is the weighted sum of the two losses (exact for cross-entropies and
                squared errors).
            seed: Integer.
            epoch: int64 [batch].
            index: int64 [batch], the number of each example in the data.
            classes: Number of classes, for integer labels.

        Returns:
            Images and labels, and weights if they were given.
        """
        key = make_key(seed, epoch, index)
        labels = tf.one_hot(labels, classes) if labels.shape.rank == 1 else tf.cast(labels, tf.float32)
        if weights is None:
            return self._mix(images, labels, key)
        weights = tf.cast(weights, tf.float32)[:, None]
        images, mixed = self._mix(images, tf.concat([labels * weights, weights], 1), key)
        return images, tf.math.divide_no_nan(mixed[:, :-1], mixed[:, -1:]), mixed[:, -1]

    def show(
        self, dataset: tf.data.Dataset, path: str, *, images: int = 8, views: int = 7, seed: int = 0
    ) -> None:
        """Writes a contact sheet: each row an image and what it becomes in the epochs 0, 1, 2, ...

        MixUp and CutMix are not shown, as they need a batch.

        Args:
            dataset: Unbatched (image, label), such as `ImageDataset.train`.
            path: File to write; its ending decides the format.
            images: Number of rows, >= 1.
            views: Number of changed versions in a row, >= 1.
            seed: Integer >= 0.
        """
        write_sheet(self, dataset, path, images, views, seed)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for reports."""
        return dataclasses.asdict(self)

    # Two programs, as XLA would fuse the resampling into every use of its result and repeat it there.
    @functools.cached_property
    def _move(self) -> Any:
        return tf.function(functools.partial(move, self), jit_compile=True)

    @functools.cached_property
    def _move_mask(self) -> Any:
        return tf.function(functools.partial(move_mask, self), jit_compile=True)

    @functools.cached_property
    def _paint(self) -> Any:
        if self.color or self.blur or self.erase or self.randaugment or self.trivial_augment:
            return tf.function(functools.partial(paint, self), jit_compile=True)
        return lambda image, key: image

    # Compiled, it is one pass over the images: 5 times faster on a CPU.
    @functools.cached_property
    def _mix(self) -> Any:
        def mixed(images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first = tf.bitwise.bitwise_and(tf.range(tf.shape(key)[0]), -2)  # a pair uses its first row's key
            u = tf.gather(uniform(key, MIX, 4), first)
            return mix.mix(images, labels, *self._weights(u, images.shape[1], images.shape[2]))

        return tf.function(mixed, jit_compile=True)

    def _weights(self, u: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
        kinds = []
        if self.mixup is not None:
            kinds.append(mix.mixup_weights(mix.from_quantiles(self._quantiles["mixup"], u[:, 0])))
        if self.cutmix is not None:
            share = mix.from_quantiles(self._quantiles["cutmix"], u[:, 0])
            kinds.append(mix.cutmix_weights(share, u[:, 1], u[:, 2], height, width))
        first = u[:, 3] < 0.5
        weights = tf.where(first[:, None, None, None], kinds[0][0], kinds[-1][0])
        return weights, tf.where(first, kinds[0][1], kinds[-1][1])

    @functools.cached_property
    def _quantiles(self) -> dict[str, np.ndarray]:
        alphas = {"mixup": self.mixup, "cutmix": self.cutmix}
        return {name: mix.beta_quantiles(alpha) for name, alpha in alphas.items() if alpha is not None}
