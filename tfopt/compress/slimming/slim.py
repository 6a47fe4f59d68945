"""slim: a smaller model with whole channels removed, which runs faster everywhere."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt._checks import check_choice, check_number, message
from tfopt.compress._data import pairs, triples
from tfopt.compress._graph import Graph
from tfopt.compress._kernels import refuse_keras_quantized
from tfopt.compress._ports import check_model
from tfopt.compress.quantization.opening import as_functional
from tfopt.compress.slimming import scores
from tfopt.compress.slimming.channels import Channels
from tfopt.compress.slimming.cost import cost
from tfopt.compress.slimming.rebuilding import rebuilt
from tfopt.compress.slimming.refit import refit

LEAST_SHARE = 0.1  # of a layer's channels stays, whatever the ranking over all layers says
_logger = logging.getLogger(__name__)


def slim(
    model: keras.Model,
    keep: float | None = None,
    *,
    flops: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    criterion: str = "bn_scale",
    scope: str = "layer",
    exclude: Sequence[str] = (),
    data: Any = None,
) -> keras.Model:
    """Returns a copy without the channels that matter least: a smaller, faster, ordinary `keras.Model`.

    Use it for speed, which zeros inside a dense kernel do not give. Give it `data`, and train all layers of
    the result, batch normalization too, with `Distillation(model, weight=1.0)`, for long and at many times
    the rate of fine-tuning: it has lost a part of itself, and fails by what it cannot imitate yet. For
    network slimming, train with `ChannelSparsity` first and use `scope="global"`. The original model is not
    changed, and shares nothing with the copy.

    With `data`, each Dense and Conv2D is fitted by least squares, one after the other, to what it made before
    from all its inputs. Half of a fine-tuned MobileNet keeps most of its accuracy so, before any training.

    Channels that are added, multiplied, normalized or convolved depthwise go together, so residual,
    squeeze-and-excite and fire modules shrink as a whole. Grouped convolutions and group normalizations lose
    whole groups, attention whole heads, recurrent layers units with all their gates. Inputs, outputs, and
    whatever meets a layer that is not known stay as they are; a warning names such layers.

    Args:
        model: A built Functional, Sequential or subclassed model; models nested in it are opened.
        keep: Share of each layer's channels that stays, in (0, 1); with `scope="global"`, of all together.
        flops: Instead of `keep`: the most operations that kernels may need for one input (a multiplication
            and an addition are two). Below 1 it is a share of the model's own.
        params: Instead of `keep`: the most weights, as a number or a share.
        bytes: Instead of `keep`: the most bytes of weights in memory, as a number or a share.
        criterion: "bn_scale", the batch-norm scale (channels without one stay); "l2", the norm of the
            kernel with the batch norm folded in; "taylor", the first-order change of the loss on `data`.
        scope: "layer" removes the same share everywhere; "global" compares over layers, and leaves each
            at least a tenth.
        exclude: Names or patterns of layers whose own channels all stay.
        data: What the layers are fitted on, some hundred images like those in use: a batched dataset, an
            array, or a pair (inputs, labels). All of it is used, and held in memory. "taylor" needs labels,
            as the loss takes them, and a model that is compiled with its loss; sample weights, if the data
            has them, count as in `fit`.

    Returns:
        A flat `keras.Model`. Not compiled. All its layers are trainable, also those that were frozen.

    Raises:
        ValueError: Not exactly one budget, a value out of its bounds, a budget below what one channel per
            layer needs, or a model without removable channels.

    Example:
        >>> small = tfopt.compress.slim(model, keep=0.5, criterion="l2", data=train.take(32))
        >>> small.compile("adam", "sparse_categorical_crossentropy")
        >>> small.fit(train, epochs=5)

    References:
        Liu et al.: Learning Efficient Convolutional Networks through Network Slimming. arXiv:1708.06519
        Molchanov et al.: Importance Estimation for Neural Network Pruning. arXiv:1906.10771
        He, Zhang, Sun: Channel Pruning for Accelerating Very Deep Neural Networks. arXiv:1707.06168
        Fang et al.: DepGraph: Towards Any Structural Pruning. arXiv:2301.12900
    """
    budgets = {"keep": keep, "flops": flops, "params": params, "bytes": bytes}
    name, budget = _budget(budgets)
    check_choice("criterion", criterion, ("bn_scale", "l2", "taylor"))
    check_choice("scope", scope, ("layer", "global"))
    check_model(model)
    refuse_keras_quantized(model, "slimmed")
    graph = Graph(as_functional(model))
    channels = Channels(graph, exclude)
    if channels.whole:
        _logger.warning("These layers of %s are not known and stay whole: %s.", model.name, channels.whole)
    ranking = _Ranking(channels, _scores(channels, criterion, model, data), scope, criterion)
    kept = ranking.kept(budget) if name == "keep" else _fitting(channels, ranking, name, budget)
    small = rebuilt(graph, channels, kept)
    if data is not None:
        whole = rebuilt(graph, channels, kept | True)
        refit(channels, kept, whole, small, [inputs for inputs, _ in pairs(data)])
    before, after = cost(channels, kept | True), cost(channels, kept)
    _logger.info("%s: %s -> %s, channels %d -> %d", model.name, before, after, *ranking.counts(kept))
    return small


def _budget(budgets: dict[str, Any]) -> tuple[str, float]:
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"Give exactly one of keep, flops, params and bytes. Received: {given}.")
    ((name, value),) = given.items()
    top = 1.0 if name == "keep" else math.inf
    return name, check_number(name, value, minimum=0.0, maximum=top, open_minimum=True, open_maximum=True)


def _scores(channels: Channels, criterion: str, model: keras.Model, data: Any) -> np.ndarray:
    if criterion != "taylor":
        return scores.bn_scale(channels) if criterion == "bn_scale" else scores.l2(channels)
    if data is None or not model.compiled:
        fix = "The model must be compiled with its loss, too."
        raise ValueError(message("data", "labeled data for the criterion 'taylor'", data, fix))
    return scores.taylor(channels, model, triples(data))


class _Ranking:
    """The order in which units are kept."""

    def __init__(self, channels: Channels, values: np.ndarray, scope: str, criterion: str) -> None:
        groups = [group for group in channels.groups() if not np.isnan(values[group]).any()]
        if not groups:
            fix = " Try criterion='l2'." if criterion == "bn_scale" else ""
            whole = f" These layers are not known and stay whole: {channels.whole}." if channels.whole else ""
            raise ValueError(
                f"`model` has no channels to remove by criterion={criterion!r}: those of inputs and outputs "
                f"stay.{whole}{fix}"
            )
        if criterion == "l2" and scope == "global":  # norms depend on the size of the kernel
            for group in groups:
                values[group] = values[group] / max(values[group].mean(), 1e-30)
        self.groups = [group[np.argsort(-values[group], kind="stable")] for group in groups]
        everything = np.concatenate(self.groups)
        self.order = everything[np.argsort(-values[everything], kind="stable")]
        self.scope, self._size = scope, len(channels.unit)

    def kept(self, share: float) -> np.ndarray:
        """Which units stay if this share does; at least one of each layer."""
        least = share if self.scope == "layer" else min(share, LEAST_SHARE)
        tops = [group[: max(round(least * len(group)), 1)] for group in self.groups]
        if self.scope == "global":
            tops.append(self.order[: round(share * len(self.order))])
        result: np.ndarray = np.ones(self._size, bool)
        result[self.order] = False
        result[np.concatenate(tops)] = True
        return result

    def counts(self, kept: np.ndarray) -> tuple[int, int]:
        """Removable units, and how many of them stay."""
        return len(self.order), int(np.count_nonzero(kept[self.order]))


def _fitting(channels: Channels, ranking: _Ranking, name: str, budget: float) -> np.ndarray:
    """The most units within a budget."""

    def price(share: float) -> int:
        return getattr(cost(channels, ranking.kept(share)), name)

    limit = budget * price(1.0) if budget < 1 else budget
    low, high = 0.0, 1.0
    if price(low) > limit:
        raise ValueError(message(name, f"at least {price(low)}: one channel in each layer", budget))
    if price(high) <= limit:
        return ranking.kept(high)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if price(middle) <= limit else (low, middle)
    return ranking.kept(low)
