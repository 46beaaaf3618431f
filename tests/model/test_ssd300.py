"""The network: shapes, counts, parity with golden/model.npz, layouts, precisions, initialisation."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ssd import boxes
from ssd.compute.capture import CaptureGuard
from ssd.model import SSD300, build_model, ssd300


def close(actual, expected, tolerance):
    """Largest difference over the largest magnitude, the measure of tests/golden/README.md (model.npz)."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "model.npz")


@pytest.fixture(scope="module")
def small():
    return build_model(seed=3, num_classes=4, width=0.125)[0].eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 300, 300, generator=torch.Generator().manual_seed(5))


def test_names_counts_and_weights_are_those_of_the_original(golden_model, original_names, numbers):
    state = golden_model.state_dict()
    assert sorted(original_names[name] for name in state) == list(numbers["state_names_sorted"])
    by_name = {original_names[name]: value.double() for name, value in state.items()}
    ordered = [by_name[name] for name in numbers["state_names_sorted"]]
    close([value.sum() for value in ordered], numbers["state_sum"], 1e-6)
    close([value.norm() for value in ordered], numbers["state_l2"], 1e-6)
    assert sum(p.numel() for p in golden_model.parameters()) == 19_972_534 == numbers["n_params"]
    assert sum(p.numel() for p in golden_model.trunk.parameters()) == 8_170_304 == numbers["n_params_backbone"]
    assert len(list(golden_model.parameters())) == 131 == numbers["n_param_tensors"]
    assert len(state) == 218 == numbers["n_state_entries"]


@pytest.mark.parametrize(("mode", "tolerance"), [("train", 1e-4), ("eval", 1e-5)])
def test_outputs_equal_the_originals(golden_model, original_names, numbers, mode, tolerance):
    draw = np.random.Generator(np.random.PCG64(int(numbers["input_seed"]))).standard_normal((2, 3, 300, 300))
    x = torch.from_numpy(draw).float()
    maps = []
    hook = golden_model.trunk.register_forward_hook(lambda *call: maps.append(call[2]))
    hooks = [
        hook,
        *(extra.register_forward_hook(lambda *call: maps.append(call[2])) for extra in golden_model.extras),
    ]
    with torch.no_grad():
        locations, logits = golden_model.train(mode == "train")(x)
    for hook in hooks:
        hook.remove()

    close(locations.flatten()[::37], numbers[f"{mode}_ploc_1of37"], tolerance)
    close(logits.flatten()[::37], numbers[f"{mode}_plabel_1of37"], tolerance)
    assert [list(m.shape) for m in maps] == numbers[f"{mode}_maps_shape"].tolist()
    statistics = [[m.double().mean(), m.double().std(), m.abs().max()] for m in maps]
    for column, expected in enumerate(numbers[f"{mode}_maps_mean_std_absmax"].T):
        close([row[column] for row in statistics], expected, tolerance)
    sizes = [count * size**2 for count, size in zip(boxes.BOXES_PER_CELL, boxes.FEATURE_SIZES, strict=True)]
    for output, name in ((locations, "ploc"), (logits, "plabel")):
        heads = [head.double() for head in output.split(sizes, dim=2)]
        for column, statistic in enumerate((torch.sum, torch.mean, lambda h: h.abs().max(), torch.std)):
            expected = numbers[f"{mode}_{name}_head_sum_mean_absmax_std"][:, column]
            close([statistic(head) for head in heads], expected, 10 * tolerance if column == 1 else tolerance)
    if mode == "train":
        by_name = {original_names[name]: value.double().sum() for name, value in golden_model.state_dict().items()}
        close([by_name[n] for n in numbers["train_bn_names"]], numbers["train_bn_sum_after_one_forward"], 1e-5)


def test_head_order_is_the_order_of_the_default_boxes():
    assert ssd300.BOXES_PER_CELL == boxes.BOXES_PER_CELL
    assert sum(boxes.BOXES_PER_CELL[i] * boxes.FEATURE_SIZES[i] ** 2 for i in range(6)) == 8732


def test_without_a_word_it_has_cocos_classes_and_the_papers_width():
    model = SSD300()
    assert [head.out_channels for head in model.class_heads] == [4 * 81, 6 * 81, 6 * 81, 6 * 81, 4 * 81, 4 * 81]
    assert (model.trunk.conv1.in_channels, model.trunk.conv1.out_channels) == (3, 64)


def test_third_stage_keeps_38_cells(small, images):
    assert [m.shape[-1] for m in small.source_maps(images)] == list(boxes.FEATURE_SIZES)


@pytest.mark.parametrize("batch", [1, 3])
def test_channels_last_gives_the_same_outputs(small, images, batch):
    """Trap of the original: `view` on a head's output fails for channels-last activations."""
    expected = small(images[:batch])
    model = copy.deepcopy(small).to(memory_format=torch.channels_last)
    actual = model(images[:batch].to(memory_format=torch.channels_last))
    for ours, reference in zip(actual, expected, strict=True):
        assert ours.shape[0] == batch
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5 * reference.abs().max().item())


def test_autocast_gives_bf16_outputs_and_fp32_gradients(images):
    model = build_model(seed=3, num_classes=4, width=0.125)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        locations, logits = model(images)
    assert locations.dtype == logits.dtype == torch.bfloat16
    (locations.float().square().mean() + logits.float().square().mean()).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_width_scales_channels_to_multiples_of_8():
    model = SSD300(num_classes=4, width=0.3)
    assert (model.trunk.conv1.out_channels, model.trunk.channels) == (16, 80)
    assert [extra[2].out_channels for extra in model.extras] == [152, 152, 80, 80, 80]
    assert [head.out_channels for head in model.class_heads] == [16, 24, 24, 24, 16, 16]
    assert SSD300(num_classes=4, width=0.01).trunk.channels == 8


def test_initialisation():
    model, digest = build_model(seed=7, num_classes=81)
    assert digest is None
    for part in (model.extras, model.location_heads, model.class_heads):
        for conv in (m for m in part.modules() if isinstance(m, nn.Conv2d)):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(conv.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.99 * bound < conv.weight.abs().max() <= bound
            assert 0 < conv.bias.abs().max() <= fan_in**-0.5
    for conv in (m for m in model.trunk.modules() if isinstance(m, nn.Conv2d)):
        fan_out = nn.init._calculate_fan_in_and_fan_out(conv.weight)[1]
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert conv.bias is None


def test_a_fourth_channel_of_zeros_changes_nothing_and_learns_nothing(images):
    model = build_model(seed=4, num_classes=4, width=0.125, in_channels=4)[0]
    padded = torch.cat((images, torch.zeros(3, 1, 300, 300)), dim=1)
    locations, logits = model.eval()(padded)
    (locations.sum() + logits.sum()).backward()
    weight = model.trunk.conv1.weight
    assert weight.shape[1] == 4
    assert weight[:, 3].abs().max() == 0
    assert weight.grad[:, 3].abs().max() == 0
    assert weight.grad[:, :3].abs().max() > 0
    noisy = torch.cat((images, torch.rand(3, 1, 300, 300)), dim=1)
    assert torch.equal(model(noisy)[1], logits)


@pytest.fixture(scope="module")
def wide():
    """The benchmark's heads, at a narrow backbone; and joined heads with the same weights."""
    separate = build_model(seed=3, width=0.25)[0].eval()
    joint = build_model(seed=4, width=0.25, head_layout="joint")[0].eval()
    joint.load_state_dict(separate.state_dict())
    return separate, joint


def test_joint_heads_have_the_same_weights_and_names():
    separate, joint = (build_model(seed=5, width=0.125, head_layout=layout)[0] for layout in ("separate", "joint"))
    assert list(separate.state_dict()) == list(joint.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(separate.parameters(), joint.parameters(), strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joint_heads_give_the_same_outputs(wide, images, layout):
    """Bit for bit where it was tried (x86-64 with AVX-512); another library may sum a channel in another order."""
    separate, joint = (copy.deepcopy(one).to(memory_format=layout) for one in wide)
    given = images[:2].to(memory_format=layout)
    with torch.no_grad():
        for ours, expected in zip(joint(given), separate(given), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_joint_heads_are_six_convolutions_of_padded_channels(wide, images):
    heads = []
    for model in wide:
        with CaptureGuard() as guard:
            sum(output.square().mean() for output in model.train()(images[:2])).backward()
        model.zero_grad()
        model.eval()
        heads.append([shapes for name, shapes in guard.calls if name == "aten.convolution.default"])
        assert sum(name == "aten.convolution_backward.default" for name, _ in guard.calls) == len(heads[-1])
    assert [len(one) for one in heads] == [51, 45]
    weights = [(shapes[1][0], shapes[0][2]) for shapes in heads[1][-6:]]  # output channels, size of the map
    assert weights == [(384, 38), (512, 19), (512, 10), (512, 5), (384, 3), (384, 1)]


def test_joint_heads_get_the_same_gradients(wide, images):
    """In float64: the features' gradients are summed in another order, which float32 and batch norm would enlarge."""
    found = []
    for model in wide:
        model = copy.deepcopy(model).double().train()
        locations, logits = model(images[:2].double())
        (locations.square().mean() + logits.square().mean()).backward()
        found.append({name: one.grad for name, one in model.named_parameters()})
    for name, expected in found[0].items():
        assert found[1][name].shape == expected.shape
        assert (found[1][name] - expected).norm() <= 1e-11 * expected.norm(), name
