"""Several replicas equal one device: every kind of optimizer, callback and input, on two logical CPUs."""

import pytest
from workers import exactness

import tfopt
from tfopt.distribute import multiworker, replicas


@pytest.fixture
def mended(two_replicas):
    multiworker.mend(two_replicas)
    replicas.mend()
    yield
    tfopt.distribute.restore_keras()


@pytest.mark.parametrize("case", exactness.CASES)
def test_two_replicas_equal_one_device(case, two_replicas, mended):
    tolerance = 1e-3 if "float16" in case else 1e-5
    assert exactness.difference(case, two_replicas) < tolerance
