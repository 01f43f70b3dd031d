"""The whole way on the packaged model: three engines, three choices of branches, one prediction."""

import filecmp
import hashlib

import numpy as np
import pytest
import torch

from paraedge.exporting import export
from paraedge.training.batches import normalise
from paraedge_converters import ModelDescription, convert
from paraedge_converters.cache import PartCache
from paraedge_runtime import Bundle, Session
from paraedge_runtime.verification import verify_bundle

CHOICES = {"2": 2, "0,3,5": (0, 3, 5), "all": None}


@pytest.fixture(scope="module")
def images(checkpoint):
    """1,024 inputs from 256 real images: each as it is, mirrored, and moved by a pixel."""
    real = checkpoint.samples.images
    return np.concatenate([real, real[:, :, ::-1], np.roll(real, 1, axis=1), np.roll(real, -1, axis=2)])


@pytest.fixture(scope="module")
def torch_answers(checkpoint, images):
    with torch.inference_mode():
        return checkpoint.model.branch_logits(
            normalise(torch.from_numpy(images.copy()), checkpoint.config.model)
        ).numpy()


@pytest.mark.parametrize("choice", CHOICES)
def test_every_engine_agrees_with_torch(engine_name, choice, bundles, images, torch_answers, checkpoint, tmp_path):
    full = bundles[engine_name]  # exported first, so the others take its parts from the cache
    branches = CHOICES[choice]
    bundle = full
    if branches is not None:
        out = tmp_path / "chosen.paraedge"
        bundle = export(checkpoint, target="linux", engine=engine_name, branches=branches, out=out)
    chosen = list(bundle.manifest.branch_indexes)
    assert chosen == {"2": [0, 1], "0,3,5": [0, 3, 5], "all": list(range(8))}[choice]

    wanted = torch_answers[chosen].cumsum(axis=0, dtype=np.float32)  # (k, n, C)
    got = np.empty_like(wanted)
    with Session.open(bundle, threads=2) as session:
        for place, image in enumerate(images):
            got[:, place] = session.run(image).prefix_outputs
    for count in {1, 2, 4, 8} & set(range(1, len(chosen) + 1)):
        error = np.abs(got[count - 1] - wanted[count - 1]).max()
        assert error < 1e-3, f"first {count}: largest difference {error}"
        # Labels may differ only where torch itself sees a tie within that error.
        top_two = np.sort(wanted[count - 1], axis=1)[:, -2:]
        clear = top_two[:, 1] - top_two[:, 0] > 2 * error
        assert clear.mean() > 0.99
        assert (got[count - 1].argmax(axis=1) == wanted[count - 1].argmax(axis=1))[clear].all()


def test_a_subset_is_byte_for_byte_what_export_makes(engine_name, bundles, checkpoint, tmp_path):
    full = bundles[engine_name]
    for name, branches in (("prefix", (0, 1)), ("choice", (0, 3, 5))):
        subset = full.subset(branches, tmp_path / f"{name}-subset.paraedge")
        exported = export(
            checkpoint, target="linux", engine=engine_name, branches=branches, out=tmp_path / f"{name}-export.paraedge"
        )
        for entry in subset.manifest.parts().values():
            assert filecmp.cmp(subset.path / entry.file, exported.path / entry.file, shallow=False)
        assert subset.manifest.branches == exported.manifest.branches
        assert verify_bundle(subset).problems == ()


def test_lowering_again_without_the_cache_gives_the_same_bytes(engine_name, bundles, checkpoint, tmp_path):
    config, samples = checkpoint.config, checkpoint.samples
    description = ModelDescription(
        name=config.name,
        description=config.description,
        license=config.license,
        labels=config.labels,
        samples=samples.images,
        sample_labels=samples.labels,
    )
    again = convert(
        checkpoint.model,
        description,
        tmp_path / "again.paraedge",
        target="linux",
        engine=engine_name,
        branches=(0, 3),
        cache=PartCache(tmp_path / "empty"),
    )
    full = {name: entry.sha256 for name, entry in bundles[engine_name].manifest.parts().items()}
    assert {name: entry.sha256 for name, entry in again.manifest.parts().items()} == {
        name: full[name] for name in ("stem", "branch_00", "branch_03")
    }


def test_the_number_of_threads_never_changes_a_bit(engine_name, bundles, checkpoint):
    hashes = []
    for threads in (1, 2, 4):
        with Session.open(bundles[engine_name], threads=threads) as session:
            outputs = [session.run(image).output for image in checkpoint.samples.images[:32]]
        hashes.append(hashlib.sha256(np.stack(outputs).tobytes()).hexdigest())
    assert len(set(hashes)) == 1


def test_branches_really_run_at_the_same_time(engine_name, bundles, checkpoint):
    """Two parts whose time windows overlap, on different threads, in at least one of many requests."""
    with Session.open(bundles[engine_name], threads=2) as session:
        parallel = session.engine.parallel
        overlaps = 0
        for image in np.concatenate([checkpoint.samples.images] * 2):
            runs = [run for run in session.run(image).timeline if run.part != "stem"]
            overlaps += any(
                a.thread != b.thread and a.start_ms < b.end_ms and b.start_ms < a.end_ms for a in runs for b in runs
            )
    if parallel:
        assert overlaps > 0
    else:
        assert overlaps == 0
        assert "one after another" in session.engine.description


def test_accuracy_of_the_real_engine_is_the_manifest_s(engine_name, bundles, checkpoint):
    """On the 256 packaged images the engine is right exactly as often as torch's own logits are."""
    samples, bundle = checkpoint.samples, bundles[engine_name]
    with torch.inference_mode():
        logits = checkpoint.model.prefix_logits(
            normalise(torch.from_numpy(samples.images), checkpoint.config.model)
        ).numpy()
    wanted = (logits.argmax(axis=2) == samples.labels).sum(axis=1)
    correct = np.zeros(8, dtype=int)
    with Session.open(bundle) as session:
        for image, label in zip(samples.images, samples.labels, strict=True):
            correct += session.run(image).prefix_outputs.argmax(axis=1) == label
    np.testing.assert_array_equal(correct, wanted)
    assert bundle.card.accuracy.num_samples == 10_000
    assert bundle.card.accuracy.prefix_accuracy == checkpoint.evaluation.prefix_accuracy()


def test_a_packed_bundle_answers_as_the_folder_does(bundles, checkpoint, tmp_path):
    folder = bundles["litert"]
    folder.pack(tmp_path / "packed.paraedge")
    packed = Bundle.open(tmp_path / "packed.paraedge")
    assert packed.manifest == folder.manifest
    image = checkpoint.samples.images[0]
    with Session.open(folder) as one, Session.open(packed) as other:
        np.testing.assert_array_equal(one.run(image).output, other.run(image).output)
