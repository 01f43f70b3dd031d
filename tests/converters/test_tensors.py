"""Models that read tensors and models whose output is a vector are exported to every engine, and proven there."""

import dataclasses

import numpy as np
import pytest
import torch
from support.tensor_branches import EmbeddingBranches, MotionBranches, SoundBranches, describe

from paraedge_converters.description import EvaluationSet
from paraedge_converters.pipeline import convert
from paraedge_runtime import InputError, ParityError, Session
from paraedge_runtime.engines import open_engine
from paraedge_runtime.inputs import normalise
from paraedge_runtime.similarity import relative_error
from paraedge_runtime.verification import verify_bundle


def run_in_engine(bundle, inputs):
    """Sums of all branches, (n, C), through the engine's ``load`` and ``run``."""
    engine, manifest = open_engine(bundle.manifest.engine), bundle.manifest
    parts = {name: engine.load(name, bundle.program(entry), entry) for name, entry in manifest.parts().items()}
    stem = parts.pop("stem")
    outputs = []
    for x in normalise(inputs, manifest.input):
        tokens = stem.run(x[None])
        outputs.append(sum(part.run(tokens) for part in parts.values())[0])
    return np.stack(outputs)


@pytest.mark.parametrize(
    "make", [SoundBranches, MotionBranches, EmbeddingBranches], ids=["sound", "motion", "embedding"]
)
def test_a_model_of_tensors_computes_in_the_engine_what_it_computes_in_torch(make, engine_name, tmp_path):
    model = make().eval()
    description = describe(model)
    bundle = convert(model, description, tmp_path / "b.paraedge", target="linux", engine=engine_name)
    manifest, golden, parity = bundle.manifest, bundle.golden(), bundle.card.parity
    assert manifest.input == model.input_spec
    spec = model.input_spec
    mean, std = (np.array(values, np.float32).reshape(-1, 1) for values in (spec.mean, spec.std))
    with torch.no_grad():
        tokens = model.stem(torch.from_numpy((description.samples - mean) / std))
        wanted = sum(branch(tokens) for branch in model.branches).numpy()
    assert relative_error(wanted, run_in_engine(bundle, description.samples)) < 1e-4
    np.testing.assert_array_equal(golden.inputs, description.samples[: len(golden.inputs)])
    if make is EmbeddingBranches:
        assert (manifest.output.name, manifest.output.size, manifest.labels) == ("embedding", 384, ())
        assert golden.labels is None
        assert parity.thresholds.min_top1_agreement is None
        assert all(prefix.relative_error <= parity.thresholds.max_relative_error for prefix in parity.prefixes)
    else:
        assert manifest.labels == description.labels
        assert all(prefix.top1_agreement == 1.0 for prefix in parity.prefixes)


@pytest.mark.parametrize(
    "make", [SoundBranches, MotionBranches, EmbeddingBranches], ids=["sound", "motion", "embedding"]
)
def test_a_session_runs_tensors_and_gives_labels_or_a_vector(make, engine_name, tmp_path):
    model = make().eval()
    bundle = convert(model, describe(model), tmp_path / "b.paraedge", target="linux", engine=engine_name)
    golden = bundle.golden()
    wanted = run_in_engine(bundle, golden.inputs)
    with Session.open(bundle, threads=2) as session:
        for value, output in zip(golden.inputs, wanted, strict=True):
            prediction = session.run(value)
            np.testing.assert_array_equal(prediction.output, output)
            assert session.run(value, budget_ms=1e6, policy="all").branches_used == prediction.branches_used
            if make is EmbeddingBranches:
                assert prediction.output.shape == (384,)
                with pytest.raises(InputError, match="a vector of 384 numbers; read 'output'"):
                    prediction.label  # noqa: B018
            else:
                assert prediction.label == f"class {output.argmax()}"
        for wrong in (golden.inputs[0][None], golden.inputs[0].astype(np.float64), golden.inputs[0][:, :-1]):
            with pytest.raises(InputError, match=r"this bundle reads float32 of shape"):
                session.run(wrong)
    assert verify_bundle(bundle).problems == ()


@pytest.mark.parametrize("quantize", ["fp16", "int8-dynamic"])
def test_an_embedding_is_quantized_on_its_own_samples(quantize, engine_name, tmp_path):
    model = EmbeddingBranches().eval()
    description = describe(model)
    bundle = convert(model, description, tmp_path / "b", target="linux", engine=engine_name, quantize=quantize)
    whole = convert(model, description, tmp_path / "whole", target="linux", engine=engine_name)
    exact, rounded = (run_in_engine(one, description.samples) for one in (whole, bundle))
    assert 0 < relative_error(exact, rounded) <= bundle.card.parity.thresholds.max_relative_error


def test_accuracy_and_early_stop_of_sounds_are_measured_in_the_engine(tmp_path):
    model = SoundBranches().eval()
    description = describe(model)
    test_set = EvaluationSet(samples=description.samples, labels=description.sample_labels, dataset="tones")
    bundle = convert(model, dataclasses.replace(description, test_set=test_set), tmp_path / "b", target="linux")
    predicted = run_in_engine(bundle, description.samples).argmax(axis=1)
    accuracy = bundle.card.accuracy.prefix_accuracy[-1]
    assert accuracy == pytest.approx((predicted == description.sample_labels).mean())
    assert bundle.card.early_stop.num_samples == len(predicted) // 2


@pytest.mark.parametrize(
    ("make", "changes", "problem"),
    [
        (MotionBranches, {"samples": np.zeros((4, 6, 128), np.uint8)}, r"uint8; \(n, 6, 128\) float32 real inputs"),
        (MotionBranches, {"samples": np.zeros((4, 128, 6), np.float32)}, r"\(4, 128, 6\) float32; \(n, 6, 128\)"),
        (MotionBranches, {"samples": np.full((4, 6, 128), np.nan, np.float32)}, "3072 values that are not finite"),
        (MotionBranches, {"sample_labels": None}, "sample_labels is missing: .* one class index below 4 per sample"),
        (MotionBranches, {"vector": "pose"}, "either labels or a vector; set exactly one of the two"),
        (EmbeddingBranches, {"vector": None}, "either labels or a vector; set exactly one of the two"),
        (EmbeddingBranches, {"vector": "two words"}, "cannot be written: .*name"),
        (EmbeddingBranches, {"sample_labels": np.zeros(40, np.int64)}, "sample_labels was given for an output without"),
    ],
    ids=["uint8", "shape", "NaN", "no labels", "both", "neither", "name", "labels of a vector"],
)
def test_a_description_that_does_not_fit_is_refused(make, changes, problem, tmp_path):
    model = make()
    with pytest.raises(InputError, match=problem):
        convert(model, describe(model, **changes), tmp_path / "b", target="linux")


def test_a_vector_that_is_off_in_one_sample_does_not_pass(tmp_path, monkeypatch):
    model = EmbeddingBranches().eval()
    description = describe(model)
    from paraedge_runtime.engines.onnxruntime import OnnxRuntimeNative

    load = OnnxRuntimeNative.load
    unlucky = normalise(description.samples[7:8], model.input_spec)

    def load_wrong(self, name, program, entry):
        part = load(self, name, program, entry)
        if name == "stem":
            run = part.run
            part.run = lambda x: run(x) * np.float32(1.0004 if np.array_equal(x, unlucky) else 1)
        return part

    monkeypatch.setattr(OnnxRuntimeNative, "load", load_wrong)
    with pytest.raises(ParityError):
        convert(model, description, tmp_path / "b", target="linux")
    assert not (tmp_path / "b").exists()
