"""`Augment`: random changes of training images as a pure function of (seed, epoch, example)."""

import math
from typing import Any, final

import tensorflow as tf

from tfopt._checks import check_choice, check_number, message
from tfopt.data.augment import mix
from tfopt.data.augment.draws import make_key, uniform
from tfopt.data.augment.geometry import Affine, crop, resample, rotation
from tfopt.data.augment.sheet import write_sheet

_FLIPS = ("horizontal", "vertical", "both", None)
_FILLS = ("nearest", "constant", "reflect", "wrap")
# Purposes of the draws of one key; a new kind of change gets a new number, so that the others stay.
_GEOMETRY, _MIX = 0, 1


@final
class Augment:
    """Changes training images at random: geometry, and MixUp or CutMix between neighbours.

    Give it to `tfopt.data.pipeline(augment=...)`. Every change is decided by the seed, the epoch and the
    number of the example, so results do not depend on parallelism, batch size (geometry), the number of
    workers or a resume in mid-epoch. All geometry is one resampling. Every option is None, off, by
    default.

    Args:
        flip: "horizontal", "vertical" or "both": mirrors half of the images.
        rotate: Largest angle in degrees, in [0, 180].
        shift: Largest shift as a share of the width and the height, in [0, 1].
        zoom: Largest change of size, in [0, 1): 0.2 enlarges or reduces by up to 20 %.
        shear: Largest slant in degrees, in [0, 80].
        crop: Smallest area of a random box that is enlarged to the image, in (0, 1]; its shape varies
            by up to 4:3. 0.08 is the usual choice for training from scratch, 0.5 and more for
            fine-tuning.
        mixup: alpha of MixUp, in (0, 10]; shares are drawn from Beta(alpha, alpha). Labels become soft.
        cutmix: alpha of CutMix, in (0, 10]. With `mixup` as well, each pair gets one of the two.
        fill_mode: What lies outside: "nearest", "constant", "reflect" or "wrap".
        fill_value: The value of "constant", in [0, 255].

    Raises:
        ValueError: for a value outside the bounds above.

    Example:
        >>> augment = tfopt.data.Augment(flip="horizontal", rotate=20, shift=0.2)
        >>> batches = tfopt.data.pipeline(data.train, 32, image_size=224, augment=augment)

    Differs from `keras.layers.RandomFlip` and the like: those draw from a generator with a state, so a
    parallel map gives other images at each run, and each layer resamples once more. MixUp takes integer
    labels and draws each pair's share; KerasCV and TF Model Garden draw from Beta(1, 1) whatever alpha.
    """

    def __init__(
        self,
        *,
        flip: str | None = None,
        rotate: float | None = None,
        shift: float | None = None,
        zoom: float | None = None,
        shear: float | None = None,
        crop: float | None = None,
        mixup: float | None = None,
        cutmix: float | None = None,
        fill_mode: str = "nearest",
        fill_value: float = 0.0,
    ) -> None:
        self.flip = check_choice("flip", flip, _FLIPS)
        self.rotate = _optional("rotate", rotate, 0, 180)
        self.shift = _optional("shift", shift, 0, 1)
        self.zoom = _optional("zoom", zoom, 0, 0.99)
        self.shear = _optional("shear", shear, 0, 80)
        self.crop = _optional("crop", crop, 0.01, 1)
        self.mixup = _optional("mixup", mixup, 0.01, 10)
        self.cutmix = _optional("cutmix", cutmix, 0.01, 10)
        self.fill_mode = check_choice("fill_mode", fill_mode, _FILLS)
        self.fill_value = check_number("fill_value", fill_value, minimum=0, maximum=255)
        alphas = {name: alpha for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)) if alpha}
        self._quantiles = {name: mix.beta_quantiles(alpha) for name, alpha in alphas.items()}
        self._image = tf.function(self._change, jit_compile=True)  # XLA: one fused loop

    @property
    def mixes(self) -> bool:
        """Whether labels become soft."""
        return bool(self._quantiles)

    def image(self, image: tf.Tensor, *, seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Changes one image [height, width, 3] of static shape; float32 in [0, 255]."""
        return tf.ensure_shape(self._image(image, make_key(seed, epoch, index)), image.shape)

    def batch(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        seed: int,
        epoch: tf.Tensor,
        index: tf.Tensor,
        classes: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes neighbours of a batch: float32 images, labels float32 [batch, classes].

        Args:
            images: float32 [batch, height, width, 3].
            labels: Integers [batch], or soft labels [batch, classes].
            seed: Integer.
            epoch: int64 [batch].
            index: int64 [batch], the number of each example in the data.
            classes: Number of classes.
        """
        if labels.shape.rank == 1:
            labels = tf.one_hot(labels, classes)
        labels = tf.cast(labels, tf.float32)
        # Both rows of a pair use the key of its first row.
        first = tf.bitwise.bitwise_and(tf.range(tf.shape(index)[0]), -2)
        u = tf.gather(uniform(make_key(seed, epoch, index), _MIX, 4), first)
        results = []
        for name, quantiles in self._quantiles.items():
            share = mix.from_quantiles(quantiles, u[:, 0])
            if name == "mixup":
                results.append(mix.mixup(images, labels, share))
            else:
                results.append(mix.cutmix(images, labels, share, u[:, 1], u[:, 2]))
        if len(results) == 1:
            return results[0]
        (images_0, labels_0), (images_1, labels_1) = results
        chosen = u[:, 3] < 0.5
        images = tf.where(chosen[:, None, None, None], images_0, images_1)
        return images, tf.where(chosen[:, None], labels_0, labels_1)

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
        names = (
            "flip",
            "rotate",
            "shift",
            "zoom",
            "shear",
            "crop",
            "mixup",
            "cutmix",
            "fill_mode",
            "fill_value",
        )
        return {name: getattr(self, name) for name in names}

    def _change(self, image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        place = self._place(image.shape[0], image.shape[1], uniform(key, _GEOMETRY, 12))
        return (
            tf.cast(image, tf.float32)
            if place is None
            else resample(image, place, self.fill_mode, self.fill_value)
        )

    def _place(self, height: int, width: int, u: tf.Tensor) -> Affine | None:
        """Composes the maps in use; the one in front is applied to the picture last."""
        signed = 2 * u - 1
        maps = []
        if self.flip:
            x = tf.where(u[0] < 0.5, 1.0, -1.0) if self.flip != "vertical" else 1.0
            y = tf.where(u[1] < 0.5, 1.0, -1.0) if self.flip != "horizontal" else 1.0
            maps.append(Affine(xx=x, yy=y))
        if self.shift:
            maps.append(Affine(x0=-self.shift * width * signed[2], y0=-self.shift * height * signed[3]))
        if self.rotate:
            maps.append(rotation(self.rotate * signed[4]))
        if self.shear:
            maps.append(Affine(xy=tf.tan(self.shear * (math.pi / 180) * signed[5])))
        if self.zoom:
            size = 1 / (1 + self.zoom * signed[6])
            maps.append(Affine(xx=size, yy=size))
        if self.crop:
            area = self.crop + (1 - self.crop) * u[7]
            ratio = tf.exp(math.log(4 / 3) * signed[8])
            maps.append(crop(area, ratio, u[9], u[10], height, width))
        return None if not maps else _composed(maps)


def _composed(maps: list[Affine]) -> Affine:
    place = maps[0]
    for following in maps[1:]:
        place = following.after(place)
    return place


def _optional(name: str, value: float | None, minimum: float, maximum: float) -> float | None:
    if value is None:
        return None
    if value == 0:
        raise ValueError(message(name, "a positive number, or None for off", value))
    return check_number(name, value, minimum=minimum, maximum=maximum)
