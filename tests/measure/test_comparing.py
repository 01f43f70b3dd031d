"""Bundles side by side: numbers against what a session gives, and refusals."""

import numpy as np
import pytest
from support.tensor_branches import EmbeddingBranches, MotionBranches, SoundBranches, describe

from paraedge_converters.pipeline import convert
from paraedge_measure.comparing import compare_bundles, display_names
from paraedge_runtime import InputError, Session


@pytest.fixture(scope="module")
def pair(bundles, tmp_path_factory):
    """Two branches in LiteRT, three in ONNX Runtime."""
    folder = tmp_path_factory.mktemp("pair")
    return (
        bundles["litert"].subset((0, 1), folder / "two.paraedge"),
        bundles["onnxruntime"].subset((0, 1, 2), folder / "three.paraedge"),
    )


@pytest.fixture(scope="module")
def images(checkpoint):
    return checkpoint.samples.images[:40], checkpoint.samples.labels[:40]


def test_the_numbers_are_those_of_the_sessions(pair, images):
    steps = []
    compared = compare_bundles(pair, *images, rounds=2, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 90) for done in range(1, 91)]  # 2 × 40 images, 2 rounds of 2 + 3 prefixes
    predicted = []
    for bundle, one in zip(pair, compared, strict=True):
        with Session.open(bundle) as session:
            labels = np.stack([session.run(image).prefix_outputs.argmax(axis=1) for image in images[0]])
        predicted.append(labels[:, -1])
        assert one.prefix_accuracy == pytest.approx((labels == images[1][:, None]).mean(axis=0))
        assert (one.engine, one.quantization, one.size_bytes) == (bundle.manifest.engine, "fp32", bundle.size_bytes)
        sizes = [entry.size_bytes for entry in bundle.manifest.parts().values()]
        assert one.prefix_bytes == tuple(np.cumsum(sizes)[1:])
        assert len(one.prefix_ms) == len(bundle.manifest.branches)
        assert min(one.prefix_ms) > 0
    assert compared[0].agreement == 1.0
    assert compared[1].agreement == pytest.approx((predicted[0] == predicted[1]).mean())


def test_bundles_of_other_tasks_and_nothing_are_refused(pair, images, checkpoint, tmp_path):
    from support.conv_branches import ConvBranches

    from paraedge_converters import ModelDescription

    samples = checkpoint.samples
    other = ModelDescription(
        name="letters", description="letters", license="MIT", labels=tuple("abcdefghij"), samples=samples.images[:9],
        sample_labels=samples.labels[:9],
    )  # fmt: skip
    letters = convert(ConvBranches(), other, tmp_path / "letters", target="linux", branches=1)
    with pytest.raises(InputError, match=r"knows the classes \('a', .*; compare bundles of one task"):
        compare_bundles([pair[0], letters], *images)
    with pytest.raises(InputError, match="got 0, 40 and 30"):
        compare_bundles([], *images)
    with pytest.raises(InputError, match="got 2, 0 and 30"):
        compare_bundles(pair, images[0][:0], images[1][:0])
    with pytest.raises(InputError, match=r"40 inputs have labels of shape \(39,\)"):
        compare_bundles(pair, images[0], images[1][:39])
    with pytest.raises(InputError, match=r"labels is None, but .*two\.paraedge has classes"):
        compare_bundles(pair, images[0], None)


@pytest.fixture(scope="module")
def sensors(tmp_path_factory):
    """Bundles of sound, of motion, and of motion with an embedding, each of two engines."""
    folder = tmp_path_factory.mktemp("sensors")
    return {
        make: [
            convert(model, describe(model), folder / f"{make.__name__}-{engine}", target="linux", engine=engine)
            for engine in ("onnxruntime", "litert")
            for model in [make().eval()]
        ]
        for make in (SoundBranches, MotionBranches, EmbeddingBranches)
    }


def prefix_outputs(bundle, inputs):
    with Session.open(bundle) as session:
        return np.stack([session.run(value).prefix_outputs for value in inputs])


@pytest.mark.parametrize("make", [SoundBranches, MotionBranches], ids=["sound", "motion"])
def test_tensors_with_labels_are_compared_by_accuracy(sensors, make):
    inputs, labels = (getattr(sensors[make][0].golden(), name) for name in ("inputs", "labels"))
    compared = compare_bundles(sensors[make], inputs, labels, rounds=1)
    for bundle, one in zip(sensors[make], compared, strict=True):
        predicted = prefix_outputs(bundle, inputs).argmax(axis=2)
        assert one.prefix_accuracy == pytest.approx((predicted == labels[:, None]).mean(axis=0))
        assert one.agreement == 1.0
        assert (one.prefix_relative_error, one.prefix_snr_db) == (None, None)
        assert len(one.prefix_ms) == len(bundle.manifest.branches)


def test_vectors_are_compared_by_error_and_snr_with_all_branches_of_the_first(sensors):
    bundles = sensors[EmbeddingBranches]
    inputs = bundles[0].golden().inputs
    compared = compare_bundles(bundles, inputs, None, rounds=1)
    outputs = [prefix_outputs(bundle, inputs).astype(np.float64) for bundle in bundles]
    wanted = outputs[0][:, -1]
    for one, got in zip(compared, outputs, strict=True):
        error = got - wanted[:, None]  # (M, k, 384)
        worst = np.sqrt((error**2).sum(axis=2).max(axis=0))
        usual = np.sqrt((wanted**2).sum(axis=1).mean())
        assert one.prefix_relative_error == pytest.approx(worst / usual)
        snr_db = 10 * np.log10((wanted**2).sum() / (error[:, :2] ** 2).sum(axis=(0, 2)))
        assert one.prefix_snr_db[:2] == pytest.approx(snr_db, abs=0.01)
        assert (one.prefix_accuracy, one.agreement) == (None, None)
    assert (compared[0].prefix_relative_error[-1], compared[0].prefix_snr_db[-1]) == (0.0, None)
    assert 0.0 <= compared[1].prefix_relative_error[-1] < 1e-5 < compared[1].prefix_relative_error[0]


def test_labels_and_vectors_tensors_and_images_are_not_compared(sensors, pair):
    motion, embedding = sensors[MotionBranches][0], sensors[EmbeddingBranches][0]
    inputs = motion.golden().inputs
    with pytest.raises(InputError, match=r"finds 384 × embedding in tensors of \(1, 6, 128\), .* knows the classes"):
        compare_bundles([motion, embedding], inputs, None)
    with pytest.raises(InputError, match=r"in images of \(1, 1, 28, 28\), .*compare bundles of one task"):
        compare_bundles([motion, pair[0]], inputs, None)
    with pytest.raises(InputError, match=r"labels were given, and .* finds 384 × embedding"):
        compare_bundles([embedding], inputs, np.zeros(len(inputs), np.int64))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/one.paraedge", "b/two.zip"], ["one", "two.zip"]),
        (["a/one.paraedge", "b/one.paraedge"], ["a/one.paraedge", "b/one.paraedge"]),
    ],
    ids=["short", "the same file name"],
)
def test_names_are_short_and_different(paths, names):
    assert display_names(paths) == names
