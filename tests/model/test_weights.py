"""Backbone files: the right one loads by name, and each wrong one says what it is."""

import hashlib
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

from ssd.errors import ConfigError, DataError
from ssd.model import BACKBONE_SHA256, build_model, load_backbone, write_random_backbone


@pytest.fixture(scope="module")
def model():
    return build_model(seed=0, num_classes=2)[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "resnet34.pth"
    write_random_backbone(path, seed=1)
    return path


def state_of(architecture: str) -> dict:
    with torch.device("meta"):
        state = getattr(torchvision.models, architecture)().state_dict()
    return {
        name: torch.zeros((1,) * value.dim(), dtype=value.dtype).expand(value.shape) for name, value in state.items()
    }


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refused(model, path) -> str:
    """The message with which a file is refused; the backbone must be as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError) as error:
        load_backbone(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert str(path) in str(error.value)
    assert "pretrained = false" in str(error.value)
    return str(error.value)


def test_reference_hash_names_the_reference_file():
    assert BACKBONE_SHA256.startswith("333f7ec4")
    assert len(BACKBONE_SHA256) == 64


def test_loads_by_name_and_returns_the_hash(model, weights):
    assert load_backbone(model, weights) == hashlib.sha256(weights.read_bytes()).hexdigest()
    found = torch.load(weights, weights_only=True)
    for name, value in model.trunk.state_dict().items():
        assert torch.equal(value, found[name]), name


def test_names_and_shapes_are_torchvisions(model):
    theirs = state_of("resnet34")
    for name, value in model.trunk.state_dict().items():
        assert theirs[name].shape == value.shape, name
    assert {name.split(".")[0] for name in theirs.keys() - model.trunk.state_dict().keys()} == {"layer4", "fc"}


def test_the_trunk_computes_what_torchvisions_does_up_to_its_second_stage(weights, model):
    """The third stage differs on purpose: stride 1."""
    theirs = torchvision.models.resnet34().eval()
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    load_backbone(model, weights)
    ours = model.trunk.eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for trunk in (ours, theirs):
            trunk.layer3[0].conv1.stride = (1, 1)
            trunk.layer3[0].downsample[0].stride = (1, 1)
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer3(theirs.layer2(theirs.layer1(stem)))
        torch.testing.assert_close(ours(x), expected)


def test_old_format_without_batch_counters(model, weights, tmp_path):
    """The reference file was written by a torch that had neither the zip format nor num_batches_tracked."""
    old = OrderedDict(
        (name, value)
        for name, value in torch.load(weights, weights_only=True).items()
        if not name.endswith("num_batches_tracked")
    )
    path = saved(tmp_path / "old.pth", old, _use_new_zipfile_serialization=False)
    load_backbone(model, path)
    assert torch.equal(model.trunk.layer3[5].conv2.weight, old["layer3.5.conv2.weight"])


def test_a_fourth_channel_gets_zeros(weights):
    model, digest = build_model(seed=0, num_classes=2, in_channels=4, backbone_path=weights)
    assert digest is not None
    found = torch.load(weights, weights_only=True)["conv1.weight"]
    assert torch.equal(model.trunk.conv1.weight[:, :3], found)
    assert model.trunk.conv1.weight[:, 3].abs().max() == 0


def test_another_width_is_a_configuration_error(weights):
    with pytest.raises(ConfigError, match=r"width is 0\.25.*pretrained = false"):
        build_model(seed=0, width=0.25, backbone_path=weights)


def test_missing_file(model, tmp_path):
    assert "No such file" in refused(model, tmp_path / "absent.pth")
    assert "Is a directory" in refused(model, tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff\xe0 a picture"])
def test_not_a_torch_file(model, tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert "not a file written by torch.save" in refused(model, path)


def test_a_zip_of_something_else(model, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "damaged" in refused(model, path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_truncated(model, weights, tmp_path, zipped, share):
    path = tmp_path / "cut.pth"
    saved(path, torch.load(weights, weights_only=True), _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(model, path)


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_a_pickle_with_code_in_it_is_not_opened(model, tmp_path):
    for number, content in enumerate((nn.Linear(1, 1), {"conv1.weight": Bomb()})):
        path = saved(tmp_path / f"{number}.pth", content)
        assert "Python objects" in refused(model, path)
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    refused(model, path)
    assert not Bomb.exploded


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("resnet18", "missing: layer1.2.conv1.weight"),
        ("resnet50", "of wrong shape: layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3)"),
        ("vgg11", "not part of a ResNet-34: features.0.weight"),
    ],
)
def test_another_architecture(model, tmp_path, architecture, said):
    message = refused(model, saved(tmp_path / "other.pth", state_of(architecture)))
    assert said in message
    assert "not a torchvision ResNet-34" in message


def test_another_stem(model, weights, tmp_path):
    """A fourth channel is added to torchvision's first convolution alone, never to another one."""
    state = torch.load(weights, weights_only=True)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["layer1.0.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    message = refused(model, saved(tmp_path / "other.pth", state))
    assert "conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)" in message
    assert "layer1.0.conv1.weight (64, 3, 7, 7) instead of (64, 64, 3, 3)" in message


def test_a_checkpoint_of_a_run(model, tmp_path):
    for content in ({"model": model.state_dict(), "epoch": 3}, model.state_dict()):
        assert "--resume" in refused(model, saved(tmp_path / "run.pt", content))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_other_contents(model, tmp_path, content):
    assert "holds" in refused(model, saved(tmp_path / "other.pt", content))


@pytest.mark.parametrize(
    "change", [torch.Tensor.to_sparse, lambda value: value.to(torch.complex64), lambda value: value.to("meta")]
)
def test_tensors_that_are_not_dense_real_numbers(model, tmp_path, change):
    state = {**model.trunk.state_dict(), "conv1.weight": change(model.trunk.conv1.weight.detach())}
    assert "backbone" in refused(model, saved(tmp_path / "odd.pt", state))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_flipped_bit_in_the_weights(model, weights, tmp_path, share):
    content = bytearray(weights.read_bytes())
    content[int(share * len(content))] ^= 1
    path = tmp_path / "flipped.pth"
    path.write_bytes(content)
    assert "damaged" in refused(model, path)


def test_the_stand_in_repeats_itself(tmp_path):
    one, two, other = (write_random_backbone(tmp_path / f"{i}.pth", seed) for i, seed in enumerate((5, 5, 6)))
    first, second = (torch.load(tmp_path / f"{i}.pth", weights_only=True) for i in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert other not in (one, two)
