"""The pipeline on networks that are not Transformers: it exports, it runs, and failure leaves nothing."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from support.conv_branches import ConvBranches
from support.deadly import in_children
from support.file_metadata import read_metadata

from paraedge_converters import TARGETS, calibrate_early_stop, pipeline
from paraedge_converters.backends import converter_for
from paraedge_converters.cache import PartCache
from paraedge_converters.description import EvaluationSet, ModelDescription
from paraedge_converters.pipeline import convert
from paraedge_converters.recipes import RECIPES, finer_recipes
from paraedge_runtime import Bundle, ConversionError, EngineError, InputError, ParityError, Session, UnsupportedModel
from paraedge_runtime.engines import ENGINES, engine_info
from paraedge_runtime.inputs import normalise
from paraedge_runtime.tolerances import least_agreement
from paraedge_runtime.verification import verify_bundle


@pytest.fixture(scope="module")
def description(checkpoint):
    return ModelDescription(
        name="conv-branches",
        description="three convolutional branches",
        license="MIT (Zalando SE)",
        labels=checkpoint.config.labels,
        samples=checkpoint.samples.images,
        sample_labels=checkpoint.samples.labels,
    )


def test_a_convolutional_branch_model_goes_the_same_way(engine_name, description, tmp_path):
    model = ConvBranches()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = []
    bundle = convert(
        model, description, tmp_path / "b.paraedge", target="linux", engine=engine_name, fused=True,
        on_progress=steps.append,
    )  # fmt: skip
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [step.step for step in steps] == list(range(1, steps[0].total + 1))

    assert bundle.card.accuracy is None
    assert bundle.card.early_stop is None
    assert bundle.manifest.fused is not None
    assert verify_bundle(bundle).problems == ()
    said = read_metadata(bundle.path / bundle.manifest.fused.file)
    assert said["names"] == dict(enumerate(description.labels))
    assert (said["task"], said["imgsz"], said["channels"], said["stride"], said["batch"]) == (
        "classify",
        [28, 28],
        1,
        1,
        1,
    )
    assert (said["mean"], said["std"]) == (list(model.input_spec.mean), list(model.input_spec.std))
    assert (said["license"], said["resize"]) == (description.license, model.input_spec.resize)
    model.eval()
    with Session.open(bundle, threads=2) as session, torch.inference_mode():
        for image in description.samples[:20]:
            tokens = model.stem(torch.from_numpy(normalise(image[None], model.input_spec)))
            wanted = sum(branch(tokens) for branch in model.branches)[0].numpy()
            np.testing.assert_allclose(session.run(image).output, wanted, rtol=1e-4, atol=1e-5)


def _has_integers(file):
    if file.suffix == ".onnx":
        import onnx

        return any(tensor.data_type == onnx.TensorProto.UINT8 for tensor in onnx.load(file).graph.initializer)
    from ai_edge_litert.interpreter import Interpreter

    return any(detail["dtype"] is np.int8 for detail in Interpreter(str(file)).get_tensor_details())


@pytest.mark.parametrize(("engine_name", "recipe"), [("onnxruntime", "int8-static"), ("litert", "int8-weight")])
def test_a_fused_model_in_int8_is_one_file_that_says_how_to_use_it(engine_name, recipe, description, tmp_path):
    """It is calibrated on images, not on what a stem makes of them, and nothing in the cache has labels."""
    model, cache = ConvBranches(), PartCache(tmp_path / "cache")
    for labels in (description.labels, tuple(f"größe {number}" for number in range(10))):
        steps = []
        bundle = convert(
            model, dataclasses.replace(description, labels=labels), tmp_path / "b", target="linux",
            engine=engine_name, quantize=recipe, fused=True, cache=cache, on_progress=steps.append,
        )  # fmt: skip
        file = bundle.path / bundle.manifest.fused.file
        assert read_metadata(file)["names"] == dict(enumerate(labels))
    assert _has_integers(file)
    assert [step.what for step in steps if step.cached] == ["stem", "branch_00", "branch_01", "branch_02", "fused"]


def test_a_second_export_takes_the_parts_from_the_cache(description, tmp_path):
    cache = PartCache(tmp_path / "cache")
    runs = []
    for name in ("one", "two"):
        steps = []
        convert(
            ConvBranches(), description, tmp_path / name, target="raspberry-pi", cache=cache, on_progress=steps.append
        )
        runs.append([step.cached for step in steps if step.what != "parity"])
    assert runs == [[False] * 4, [True] * 4]
    parts = [
        {entry.file: entry.sha256 for entry in Bundle.open(tmp_path / name).manifest.parts().values()}
        for name in ("one", "two")
    ]
    assert parts[0] == parts[1]


def test_a_part_in_the_cache_that_kills_its_process_is_lowered_anew(description, tmp_path, monkeypatch):
    cache = PartCache(tmp_path / "cache")
    good = convert(ConvBranches(), description, tmp_path / "a", target="raspberry-pi", cache=cache)
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "empty"))  # nothing is remembered
    in_children(tmp_path / "site", monkeypatch, "os.abort()", "litert", ".tflite", "ai-edge-litert")
    steps = []
    again = convert(
        ConvBranches(), description, tmp_path / "b", target="raspberry-pi", cache=cache, on_progress=steps.append
    )
    assert [step.cached for step in steps if step.what != "parity"] == [False] * 4
    assert again.sha256 == good.sha256


def test_golden_inputs_take_a_tenth_of_the_bundle_at_most(description, tmp_path):
    """A 28×28 image is small beside any program. Photographs were two thirds of a quantized bundle."""
    few = convert(ConvBranches(), description, tmp_path / "few", target="linux", engine="litert")
    names = {few.card.golden.inputs, few.card.golden.outputs}
    golden_bytes = sum(entry.size_bytes for entry in few.manifest.files if entry.file in names)
    one = few.golden()
    sample_bytes = one.inputs[0].nbytes + one.branch_outputs[0].nbytes
    assert 1 <= len(one.inputs) < 32
    assert golden_bytes <= 0.1 * few.size_bytes + sample_bytes
    assert verify_bundle(few).problems == ()


def test_a_wrong_part_fails_the_gate_and_leaves_nothing(description, tmp_path, monkeypatch):
    converter = converter_for("onnxruntime")
    lower = converter.lower

    def sabotage(module, example, **settings):
        if tuple(example.shape) != (1, 1, 28, 28):  # a branch: its weights go a little wrong
            with torch.no_grad():
                module.head.weight[0] += 0.05
        return lower(module, example, **settings)

    old = tmp_path / "old.paraedge"
    convert(ConvBranches(), description, old, target="linux", cache=PartCache(tmp_path / "clean"))
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    monkeypatch.setattr(converter, "lower", sabotage)
    for out in (tmp_path / "new.paraedge", old):
        with pytest.raises(ParityError, match="branch_00: SNR against torch is"):
            convert(ConvBranches(), description, out, target="linux", cache=PartCache(tmp_path / "sabotaged"))
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new.paraedge").exists()


def test_a_wrong_cache_entry_is_caught_by_the_gate_and_lowered_anew(description, tmp_path):
    cache = PartCache(tmp_path / "cache")
    good = convert(ConvBranches(), description, tmp_path / "a", target="linux", cache=cache)
    # Give every branch the program of another one of the same size, as a faulty key would.
    by_size = {}
    for path in sorted(cache.folder.iterdir()):
        part = cache.get(path.name)
        by_size.setdefault(len(part.program), []).append((path.name, part))
    group = next(group for group in by_size.values() if len(group) > 1)
    for (name, _), (_, other) in zip(group, group[1:] + group[:1], strict=True):
        cache.put(name, other)
    steps = []
    again = convert(ConvBranches(), description, tmp_path / "b", target="linux", cache=cache, on_progress=steps.append)
    assert [step.cached for step in steps if step.what.startswith(("stem", "branch"))] == [True] * 4 + [False] * 4
    assert steps[-1].step == steps[-1].total
    assert [part.sha256 for part in again.manifest.parts().values()] == [
        part.sha256 for part in good.manifest.parts().values()
    ]
    for name, part in group:
        assert cache.get(name) == part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("a", "b")}, "labels has 2 names, the model has 10 outputs; give one"),
        (
            {"samples": np.zeros((4, 32, 32, 3), np.uint8)},
            r"real images, \(n, 28, 28, 1\) uint8, got \(4, 32, 32, 3\) uint8",
        ),
        ({"samples": np.zeros((0, 28, 28, 1), np.uint8)}, "samples must be real images"),
        ({"samples": np.zeros((256, 28, 28, 1), np.uint8)}, "have the same value; pass real inputs"),
        ({"sample_labels": np.full(256, 10)}, "one class index below 10 per sample"),
        ({"sample_labels": np.zeros(3, np.int64)}, "one class index below 10 per sample"),
    ],
    ids=["labels", "image shape", "no images", "flat images", "label range", "label count"],
)
def test_a_description_that_does_not_fit_is_refused(description, changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        convert(ConvBranches(), dataclasses.replace(description, **changes), tmp_path / "x", target="linux")


# Where convolutions keep their weights in float32 (docs/targets.md).
_FLOAT_CONVOLUTIONS = {("executorch", "fp16"), ("onnxruntime", "int8-weight"), ("onnxruntime", "int4-weight")}


@pytest.mark.parametrize(
    ("engine_name", "recipe"),
    [(engine, recipe) for recipe in RECIPES for engine in ENGINES if engine not in RECIPES[recipe].refused]
    + [("litert", "int8-static+fp32-stem")],
)
def test_a_quantized_bundle_is_smaller_and_passes_its_own_gate(
    engine_name, recipe, checkpoint, description, bundles, tmp_path
):
    bundle = convert(
        checkpoint.model, description, tmp_path / "b", target="linux", engine=engine_name, quantize=recipe, branches=1
    )
    manifest, whole = bundle.manifest, bundles[engine_name].manifest
    assert manifest.quantization == recipe
    old = {"tflite-runtime"} if engine_name == "litert" and recipe in ("fp32", "fp16", "int8-weight") else set()
    assert manifest.engine_min_version.keys() == {engine_info(engine_name).distributions[0], *old}
    assert (bundle.card.accuracy, bundle.card.early_stop, manifest.stop_rules) == (None, None, None)
    assert verify_bundle(bundle).problems == ()
    gate = RECIPES[recipe.removesuffix("+fp32-stem")].tolerance
    least = least_agreement(gate.min_top1_agreement, 256)
    assert bundle.card.parity.thresholds.min_top1_agreement == least <= gate.min_top1_agreement
    assert all(prefix.top1_agreement >= least for prefix in bundle.card.parity.prefixes)
    share = {"fp32": 1.01, "fp16": 0.6}.get(recipe, 0.5)
    if (engine_name, recipe) in _FLOAT_CONVOLUTIONS:
        branch = checkpoint.model.branches[0]
        convolutions = sum(tensor.numel() for tensor in branch.parameters() if tensor.ndim == 4)
        share += (1 - share) * convolutions / sum(tensor.numel() for tensor in branch.parameters())
    assert manifest.branches[0].size_bytes < share * whole.branches[0].size_bytes
    if recipe.endswith("+fp32-stem"):
        assert bundle.card.parts["stem"].similarity.snr_db > 100


def test_a_test_set_is_measured_in_the_engine(description, checkpoint, tmp_path):
    images, labels = checkpoint.samples.images[:100], checkpoint.samples.labels[:100]
    test_set = EvaluationSet(samples=images, labels=labels, dataset="a few", max_accuracy_drop=0.02)
    description = dataclasses.replace(description, test_set=test_set)
    bundle = convert(
        checkpoint.model, description, tmp_path / "b", target="linux", quantize="int8-dynamic", branches=(0, 2)
    )
    accuracy, early_stop = bundle.card.accuracy, bundle.card.early_stop
    assert accuracy.dataset == early_stop.dataset == "a few, int8-dynamic in onnxruntime"
    assert accuracy.num_samples == 100
    with Session.open(bundle) as session:
        predicted = np.stack([session.run(image).prefix_outputs.argmax(axis=1) for image in images])
    assert accuracy.prefix_accuracy == pytest.approx((predicted == labels[:, None]).mean(axis=0))
    assert (early_stop.num_samples, early_stop.max_accuracy_drop) == (50, 0.02)


def test_a_recipe_that_loses_labels_is_refused_with_one_that_does_not(description, tmp_path):
    """A network that learned nothing: its likeliest labels are close calls, and rounding turns many."""
    with pytest.raises(
        ParityError,
        match=r"the same label on \d\d\.\d\d % of the inputs, below 98\.05 % \(the limit for 99 % on 256 inputs\); ",
    ) as refused:
        convert(ConvBranches(), description, tmp_path / "b", target="linux", quantize="int8-dynamic")
    assert not (tmp_path / "b").exists()
    named = re.search(
        r"; export with --quantize (\S+) \(quantize=\"(\S+)\" in Python\), which passes$", str(refused.value)
    )
    assert named[1] == named[2]
    candidates = finer_recipes("int8-dynamic", "onnxruntime")
    for name in candidates[: candidates.index(named[1])]:  # the next finer one, not any
        with pytest.raises(ParityError):
            convert(ConvBranches(), description, tmp_path / "b", target="linux", quantize=name)
    assert convert(ConvBranches(), description, tmp_path / "b", target="linux", quantize=named[1])


def test_what_devices_would_refuse_is_no_damaged_file(description, tmp_path):
    """ONNX has an operator for random numbers, and no bundle may have it."""

    class Noisy(ConvBranches):
        def __init__(self):
            super().__init__()
            self.branches[0].register_forward_hook(lambda branch, given, made: made + torch.rand_like(made))

    message = (
        r"^branch_00: devices would reject the exported program: branch_00\.onnx has the operator "
        r"'Random\w+', which no bundle may have \(onnxruntime\); write .* with other .*, or try another --engine$"
    )
    with pytest.raises(ConversionError, match=message):
        convert(Noisy(), description, tmp_path / "b", target="linux")
    assert not (tmp_path / "b").exists()


def test_a_finer_recipe_that_the_engine_cannot_load_is_passed_over(description, tmp_path, monkeypatch):
    lower_parts, tried = pipeline.lower_parts, []

    def refuse_finer(parts, request, *rest, **options):
        tried.append(request.quantize)
        if request.quantize != "int8-dynamic":
            raise EngineError("no such operator")
        return lower_parts(parts, request, *rest, **options)

    monkeypatch.setattr(pipeline, "lower_parts", refuse_finer)
    with pytest.raises(ParityError, match=r"below 98\.05 % .*; export with --quantize fp32 .*, no finer recipe passes"):
        convert(ConvBranches(), description, tmp_path / "b", target="linux", quantize="int8-dynamic")
    assert [name for name in tried if name != "int8-dynamic"] == list(finer_recipes("int8-dynamic", "onnxruntime"))


def test_early_stop_travels_and_must_be_that_of_the_branches(description, checkpoint, tmp_path):
    evaluation = checkpoint.evaluation
    early_stop = calibrate_early_stop(evaluation.branch_logits[:2], evaluation.labels, dataset="of another model")
    description = dataclasses.replace(description, early_stop=early_stop)
    bundle = convert(ConvBranches(), description, tmp_path / "b", target="linux", branches=2)
    assert (bundle.manifest.stop_rules, bundle.card.early_stop) == early_stop
    with pytest.raises(
        InputError, match="early_stop has 2 prefixes for 3 branches; calibrate it on the exported branches"
    ):
        convert(ConvBranches(), description, tmp_path / "x", target="linux")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "toaster"}, "unknown target 'toaster'; choose one of android, ios, linux, microcontroller, r"),
        (
            {"target": "microcontroller", "engine": "onnxruntime"},
            "the target microcontroller uses the engine litert; leave out --engine onnxruntime",
        ),
        (
            {"target": "microcontroller", "quantize": "fp16"},
            "tflite-micro does not support fp16: .*; choose one of fp32, int8-st",
        ),
        ({"target": "linux", "engine": "tvm"}, "unknown engine 'tvm'"),
        (
            {"target": "linux", "quantize": "int7"},
            "unknown quantization recipe 'int7'; choose one of fp32, fp16, int8-dynamic",
        ),
        (
            {"target": "android", "quantize": "int8-weight"},
            "executorch does not support int8-weight: XNNPACK has no weight-only",
        ),
        ({"target": "linux", "quantize": "fp16+fp32-stem", "fused": True}, "a fused model has no stem of its own"),
        ({"target": "linux", "branches": 4}, "4 branches requested, 3 available"),
        ({"target": "linux", "branches": (0, 3)}, "there is no branch 3"),
        ({"target": "linux", "branches": (1, 0)}, "ascending order"),
        ({"target": "linux", "branches": ()}, "give one or more"),
    ],
    ids=[
        "target",
        "engine of target",
        "recipe of target",
        "engine",
        "recipe",
        "recipe of engine",
        "fused recipe",
        "count",
        "index",
        "order",
        "none",
    ],
)
def test_wrong_names_and_branches_are_refused(description, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        convert(ConvBranches(), description, tmp_path / "x", **arguments)


def test_something_else_than_a_branch_model_is_refused(description, tmp_path):
    with pytest.raises(UnsupportedModel, match="Linear has no stem"):
        convert(torch.nn.Linear(2, 2), description, tmp_path / "x", target="linux")


def test_every_target_names_an_engine_that_has_a_converter():
    for target in TARGETS.values():
        assert target.engine in ENGINES
        converter_for(target.converter or target.engine)
