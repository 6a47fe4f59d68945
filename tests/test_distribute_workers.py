"""Two worker processes equal one device; started once, for all cases."""

import importlib

import numpy as np
import pytest
from workers import exactness, jobs

import tfopt

pytestmark = pytest.mark.process


# On two logical devices, test_distribute_replicas.py runs every case. What only several workers can break is
# the way of data, sums, statistics and decisions between processes: these cases have each of them once.
QUICK = {
    *("SGD, clipped", "Lookahead of AdamW, clipped", "accumulation", "EMA, validated", "ramp"),
    *("sharded pipeline", "float16, overflow in the second half", "pruning", "evaluate and predict"),
}
CASES = [case if case in QUICK else pytest.param(case, marks=pytest.mark.full) for case in exactness.CASES]


@pytest.fixture(scope="module")
def workers(request):
    """What each of two workers has got from every case that is to be tested."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = {one.params.get("case") for one in parameters if one is not None}
    cases = [case for case in exactness.ALL if case in chosen]
    return tfopt.distribute.spawn(jobs.train_everything, 2, args=(cases,), timeout_seconds=600)


@pytest.mark.parametrize("case", CASES)
def test_two_workers_equal_one_device(case, workers):
    expected = exactness.CASES[case](exactness.ONE_DEVICE)
    for worker in workers:
        tolerance = 5e-5 if "Adam in float16" in case else 1e-5  # Adam magnifies what float16 rounds away
        assert exactness.largest(worker[case], expected) < tolerance


@pytest.mark.parametrize("case", exactness.DIVIDED)
def test_two_workers_equal_two_replicas_of_one_machine(case, workers, two_replicas, mended):
    expected = exactness.DIVIDED[case](two_replicas)
    for worker in workers:
        assert exactness.largest(worker[case], expected) < 1e-5


def test_dropout_masks_differ_between_workers_and_repeat(workers):
    (first, again), (other, _) = (worker["masks"] for worker in workers)
    np.testing.assert_array_equal(first, again)
    assert 16 < np.sum(first != other) < 48  # of 64: independent draws


def test_workers_that_would_read_the_same_or_other_data_are_refused(workers):
    for worker in workers:
        overlap, seeds = worker["refused"]
        assert "All workers together read 48 different examples in an epoch and not 96" in overlap
        assert "reads other data than this one" in seeds


def test_workers_decide_together(workers):
    one, other = (worker["agreed"] for worker in workers)
    assert one == other
    first, *later, same, different = one
    assert first == [True, False] and same and not different
    assert [False, True] in later  # not each time: the question is asked twice a second


def test_workers_know_each_other(workers):
    first, second = (str(worker["description"]) for worker in workers)
    assert first == "MultiWorkerMirroredStrategy, 2 replicas on CPU:0, worker 0 of 2, float32"
    assert "worker 1 of 2" in second


@pytest.mark.full
def test_every_optimizer_and_callback_of_the_package_on_two_workers():
    package = importlib.import_module("workers.package")  # loads the tables of other tests
    results = tfopt.distribute.spawn(package.train_on_workers, 2, timeout_seconds=1800)
    expected = package.train(exactness.ONE_DEVICE)
    one, other = results
    # SOAP's basis of the directions without gradient is arbitrary: rounding decides it, alike on all workers.
    assert exactness.largest(one["SOAP"], other["SOAP"]) == 0.0
    worst = {
        name: max(exactness.largest(worker[name], arrays) for worker in results)
        for name, arrays in expected.items()
        if name != "SOAP"
    }
    assert {name: difference for name, difference in worst.items() if not difference < 1e-5} == {}
