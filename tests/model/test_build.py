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


def test_what_is_not_said_is_the_benchmarks():
    """81 classes, full width, three channels, no backbone file."""
    model, digest = build_model(seed=1)
    assert [head.out_channels for head in model.class_heads] == [4 * 81, 6 * 81, 6 * 81, 6 * 81, 4 * 81, 4 * 81]
    assert (model.trunk.conv1.in_channels, model.trunk.conv1.out_channels, digest) == (3, 64, None)
