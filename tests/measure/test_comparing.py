"""Bundles side by side: numbers against what a session gives, and refusals."""

import numpy as np
import pytest

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
    answers = []
    for bundle, one in zip(pair, compared, strict=True):
        with Session.open(bundle) as session:
            labels = np.stack([session.run(image).prefix_outputs.argmax(axis=1) for image in images[0]])
        answers.append(labels[:, -1])
        assert one.prefix_accuracy == pytest.approx((labels == images[1][:, None]).mean(axis=0))
        assert (one.engine, one.quantization, one.size_bytes) == (bundle.manifest.engine, "fp32", bundle.size_bytes)
        sizes = [entry.size_bytes for entry in bundle.manifest.parts().values()]
        assert one.prefix_bytes == tuple(np.cumsum(sizes)[1:])
        assert len(one.prefix_ms) == len(bundle.manifest.branches)
        assert min(one.prefix_ms) > 0
    assert compared[0].agreement == 1.0
    assert compared[1].agreement == pytest.approx((answers[0] == answers[1]).mean())


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
    with pytest.raises(InputError, match="0 bundles, 40 images"):
        compare_bundles([], *images)
    with pytest.raises(InputError, match="0 images"):
        compare_bundles(pair, images[0][:0], images[1][:0])
    with pytest.raises(InputError, match=r"40 images have labels of shape \(39,\)"):
        compare_bundles(pair, images[0], images[1][:39])


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
