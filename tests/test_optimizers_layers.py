"""What real layers have that plain kernels do not: kernels with three axes, biases with two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt.optimizers as to

ATTENTION = {"query/kernel": ((6, 2, 3), (6, 6)), "attention_output/kernel": ((2, 3, 6), (6, 6))}
MATRICES = list(ATTENTION.values()) + [((3, 5, 1), (3, 5)), ((3, 4, 5), (12, 5))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: to.Muon(0.1),
        lambda: to.SOAP(0.1, refresh_period=2),
        lambda: to.GradientCentralization(to.SGD(0.1)),
        lambda: to.AdaptiveGradientClipping(to.SGD(0.1)),
    ],
)
@pytest.mark.parametrize("shape, matrix", MATRICES)
def test_kernels_with_three_axes_are_matrices_with_a_column_for_each_output(make, shape, matrix):
    """Projections of attention, depthwise and plain one-dimensional convolutions."""
    start = np.random.default_rng(0).normal(size=matrix).astype("float32")
    results = []
    for form in (shape, matrix):
        kernel, optimizer = keras.Variable(start.reshape(form)), make()
        for step in range(5):
            grad = np.random.default_rng(step).normal(size=form).astype("float32")
            optimizer.apply([tf.constant(grad)], [kernel])
        results.append(kernel.numpy().reshape(matrix))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
    assert np.abs(results[0] - start).max() > 1e-4


def test_the_shapes_above_are_those_of_keras():
    attention = keras.layers.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    shapes = {variable.path.split("/", 1)[1]: tuple(variable.shape) for variable in attention.weights}
    assert {path: shapes[path] for path in ATTENTION} == {
        path: shape for path, (shape, _) in ATTENTION.items()
    }
    convolution = keras.layers.DepthwiseConv1D(3)
    convolution.build((None, 9, 5))
    assert tuple(convolution.kernel.shape) == MATRICES[2][0]


def test_centralization_leaves_biases_with_two_axes_alone():
    """A GRU adds the two rows of its bias in most gates: their gradients are equal, and so their mean."""
    biases = []
    for make in (lambda: to.GradientCentralization(to.SGD(0.1)), lambda: to.SGD(0.1)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.GRU(3)])
        model.compile(make(), "mse")
        model.train_on_batch(np.ones((8, 5, 2), "float32"), np.ones((8, 3), "float32"))
        biases.append(model.layers[0].cell.bias.numpy())
    assert biases[0].shape == (2, 9) and np.all(biases[0][0] != 0.0)
    np.testing.assert_allclose(*biases, rtol=1e-6)


class Encoder(keras.Model):
    """A weight of its own, an attention, and a nested model that it holds twice."""

    def __init__(self, inner):
        super().__init__()
        self.position = self.add_weight(shape=(4, 6), name="position")
        self.first = keras.layers.Dense(6, name="first")
        self.attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
        self.inner = inner
        self.everywhere = keras.layers.TimeDistributed(inner)

    def call(self, inputs):
        x = self.first(inputs) + self.position
        return self.everywhere(self.attention(x, x))


def encoder():
    inner = keras.Sequential([keras.layers.Dense(5, name="low"), keras.layers.Dense(6, name="high")])
    model = Encoder(inner)
    model(np.zeros((1, 4, 6), "float32"))
    return model


def assigned(model, groups):
    optimizer = to.ParameterGroups(to.AdamW(0.1), groups)
    optimizer.build(model.trainable_variables)
    return dict(zip((v.path for v in model.trainable_variables), map(tuple, optimizer.assignment)))


def test_biases_with_two_axes_do_not_decay():
    model = encoder()
    for path, (_, decay) in assigned(model, to.no_decay_on_norm_and_bias(model)).items():
        assert decay == (0.0 if path.endswith("bias") else None), path


def test_parts_that_work_side_by_side_learn_at_one_rate():
    """The projections of an attention; what a model owns itself belongs to its inputs; nothing twice."""
    model = encoder()
    rates = {"position": 1 / 8, "first": 1 / 8, "attention": 1 / 4, "low": 1 / 2, "high": 1.0}
    for path, (multiplier, _) in assigned(model, to.layer_decay(model, 0.5)).items():
        (expected,) = [rate for name, rate in rates.items() if name in path.split("/")]
        assert multiplier == expected, path
    assert len(to.discriminative(model)) == 4
