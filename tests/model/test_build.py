"""A model is its seed's: the same seed, the same weights; nothing else is touched."""

import torch

from ssd.model import build_model


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (build_model(seed=s, num_classes=4, width=0.125)[0] for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.class_heads[0].weight, other.class_heads[0].weight)
