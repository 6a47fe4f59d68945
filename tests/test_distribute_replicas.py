"""Several replicas equal one device: every kind of optimizer, callback and input, on two logical CPUs."""

import keras
import pytest
import tensorflow as tf
from workers import exactness

import tfopt
from tfopt.distribute import scale_learning_rate

# Mechanisms that another case has as well: masks, float16, the order of data.
REPEATED = {
    *("clustering", "sparse training", "pipeline", "float16, overflow in the first half"),
    *("Adam in float16, overflow in the first half", "Adam in float16, overflow in the second half"),
}
CASES = [pytest.param(case, marks=pytest.mark.full) if case in REPEATED else case for case in exactness.CASES]


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_equal_one_device(case, two_replicas, mended):
    tolerance = 1e-3 if "Adam in float16" in case else 1e-5  # Adam magnifies what float16 rounds away
    assert exactness.difference(case, two_replicas) < tolerance


def test_rates_scale_with_the_replicas(two_replicas):
    alone = tf.distribute.get_strategy()
    assert scale_learning_rate(0.1, alone, warmup_steps=5) == 0.1
    assert scale_learning_rate(0.1, two_replicas) == pytest.approx(0.2)
    assert scale_learning_rate(0.1, two_replicas, "sqrt") == pytest.approx(0.1 * 2**0.5)
    warm = scale_learning_rate(0.1, two_replicas, warmup_steps=10)
    assert [float(warm(step)) for step in (0, 5, 10, 99)] == pytest.approx([0.1, 0.15, 0.2, 0.2])
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 100)
    scaled = scale_learning_rate(cosine, two_replicas)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(scaled))
    assert float(again(50)) == pytest.approx(2 * float(cosine(50)))
    for bad in ({"rule": "cubic"}, {"warmup_steps": -1}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            scale_learning_rate(**{"learning_rate": 0.1, "strategy": two_replicas} | bad)


def test_sharded_refuses_what_it_cannot_share(two_replicas):
    def endless(size, shard):
        return tfopt.data.pipeline(exactness.images(), size, image_size=2, epochs=2)

    with pytest.raises(ValueError, match="multiple of the 2 replicas"):
        tfopt.distribute.sharded(two_replicas, endless, 15)
    with pytest.raises(TypeError, match="without `epochs`"):
        tfopt.distribute.sharded(two_replicas, endless, 16)
