"""Second opinions on the references: `make test-parity` installs them in an environment of their own.

Compares tests/reference (which tfopt equals, see the contract) with PyTorch, Optax, timm,
pytorch_optimizer and schedulefree. Where one of them is known to differ from the paper, the row says so
and the difference must be there. Needs neither TensorFlow nor Keras.
"""

import numpy as np
import pytest

REASON = "second opinions are not installed; run `make test-parity`"
torch = pytest.importorskip("torch", reason=REASON)
optax = pytest.importorskip("optax", reason=REASON)
po = pytest.importorskip("pytorch_optimizer", reason=REASON)
timm = pytest.importorskip("timm.optim", reason=REASON)
schedulefree = pytest.importorskip("schedulefree", reason=REASON)
jax = pytest.importorskip("jax", reason=REASON)

from reference import (
    adabelief,
    adam,
    adan,
    ademamix,
    adopt,
    lamb,
    lars,
    lion,
    nadam,
    novograd,
    prodigy,
    radam,
    schedule_free,
    sgd,
    stable_adamw,
    yogi,
)

jax.config.update("jax_enable_x64", True)
LR, STEPS = 0.01, 25
RNG = np.random.default_rng(0)
START = RNG.normal(size=(6, 4))
GRADS = [None] + [RNG.normal(size=(6, 4)) for _ in range(STEPS)]


def by_torch(make):
    weight = torch.nn.Parameter(torch.tensor(START))
    optimizer = make([weight])
    if hasattr(optimizer, "train"):
        optimizer.train()
    for t in range(1, STEPS + 1):
        weight.grad = torch.tensor(GRADS[t])
        optimizer.step()
    return weight.detach().numpy()


def by_optax(transform):
    weight = jax.numpy.asarray(START)
    state = transform.init(weight)
    for t in range(1, STEPS + 1):
        update, state = transform.update(jax.numpy.asarray(GRADS[t]), state, weight)
        weight = optax.apply_updates(weight, update)
    return np.asarray(weight)


def ours(run, **options):
    return run([START], lambda t, w: [GRADS[t]], STEPS, **{"lr": LR, **options})[0]


T = torch.optim
AGREE = {
    "SGD torch": (
        lambda: by_torch(lambda p: T.SGD(p, LR, momentum=0.9)),
        lambda: ours(sgd.run, momentum=0.9),
    ),
    "AdamW optax": (lambda: by_optax(optax.adam(LR, eps=0.0)), lambda: ours(adam.run, epsilon=0.0)),
    "Nadam torch": (lambda: by_torch(lambda p: T.NAdam(p, LR)), lambda: ours(nadam.run, epsilon=1e-8)),
    "Lion optax": (
        lambda: by_optax(optax.lion(LR, weight_decay=0.1)),
        lambda: ours(lion.run, weight_decay=0.1),
    ),
    "RAdam torch": (lambda: by_torch(lambda p: T.RAdam(p, LR)), lambda: ours(radam.run)),
    "AdaBelief optax": (lambda: by_optax(optax.adabelief(LR, eps=1e-16)), lambda: ours(adabelief.run)),
    "Yogi optax": (lambda: by_optax(optax.yogi(LR)), lambda: ours(yogi.run)),
    "NovoGrad optax": (lambda: by_optax(optax.novograd(LR, 0.95, 0.98)), lambda: ours(novograd.run)),
    "LAMB optax": (
        lambda: by_optax(optax.lamb(LR, weight_decay=0.1)),
        lambda: ours(lamb.run, weight_decay=0.1),
    ),
    "LARS pytorch_optimizer": (
        lambda: by_torch(lambda p: po.LARS(p, LR, momentum=0.9, weight_decay=0.1)),
        lambda: ours(lars.run, weight_decay=0.1),
    ),
    "AdEMAMix optax": (lambda: by_optax(optax.contrib.ademamix(LR)), lambda: ours(ademamix.run)),
    "ADOPT optax": (lambda: by_optax(optax.contrib.adopt(LR)), lambda: ours(adopt.run)),
    "Adan timm": (lambda: by_torch(lambda p: timm.Adan(p, LR)), lambda: ours(adan.run)),
    "StableAdamW pytorch_optimizer": (
        lambda: by_torch(lambda p: po.StableAdamW(p, LR, kahan_sum=False, weight_decay=0.0)),
        lambda: ours(stable_adamw.run),
    ),
    "Prodigy pytorch_optimizer": (
        lambda: by_torch(lambda p: po.Prodigy(p, 1.0, d0=1e-3)),
        lambda: ours(prodigy.run, lr=1.0, d0=1e-3),
    ),
    "Schedule-Free AdamW": (
        lambda: by_torch(lambda p: schedulefree.AdamWScheduleFree(p, LR, warmup_steps=5, foreach=False)),
        lambda: ours(schedule_free.run, beta_2=0.999, warmup=5),
    ),
    "Schedule-Free SGD": (
        lambda: by_torch(lambda p: schedulefree.SGDScheduleFree(p, LR, foreach=False)),
        lambda: ours(schedule_free.run),
    ),
}

DIFFER = {  # who is known to differ from the paper, and how
    "Adan optax: 1 - beta_2 for beta_2": (lambda: by_optax(optax.adan(LR)), lambda: ours(adan.run)),
    "RAdam pytorch_optimizer: no first steps": (
        lambda: by_torch(lambda p: po.RAdam(p, LR)),
        lambda: ours(radam.run),
    ),
    "Lamb pytorch_optimizer: second moment not corrected": (
        lambda: by_torch(lambda p: po.Lamb(p, LR, weight_decay=0.1)),
        lambda: ours(lamb.run, weight_decay=0.1),
    ),
    "ADOPT timm: another exponent": (
        lambda: by_torch(lambda p: timm.Adopt(p, LR)),
        lambda: ours(adopt.run),
    ),
}


@pytest.mark.parametrize("name", AGREE)
def test_reference_agrees_with(name):
    theirs, mine = (run() for run in AGREE[name])
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DIFFER)
def test_known_difference_is_still_there(name):
    theirs, mine = (run() for run in DIFFER[name])
    assert np.abs(theirs - mine).max() > 1e-5
