"""Parts for a GPU or an NPU: which there are, what a bundle says of them, and that the CPU never runs them instead."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.conv_branches import ConvBranches

from paraedge.cli.options import DELEGATE
from paraedge_converters import TARGETS
from paraedge_converters.backends import LoweredPart, converter_for, ethos_u
from paraedge_converters.backends.ethos_u import EthosU
from paraedge_converters.cache import PartCache
from paraedge_converters.delegates import DELEGATES
from paraedge_converters.description import ModelDescription
from paraedge_converters.pipeline import convert
from paraedge_runtime import Bundle, EngineUnavailable, IntegrityError, ParityError, Session
from paraedge_runtime.core import load_core
from paraedge_runtime.engines import ENGINES
from paraedge_runtime.verification import verify_bundle

SWIFTSHADER = Path("/usr/lib/chromium")  # a GPU in software, of Debian's chromium


@pytest.fixture(scope="module")
def description(checkpoint):
    return ModelDescription(
        name="conv-branches",
        description="three convolutional branches",
        license="MIT (Zalando SE)",
        labels=checkpoint.config.labels,
        samples=checkpoint.samples.images[:32],
        sample_labels=checkpoint.samples.labels[:32],
    )


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.delenv("VK_ICD_FILENAMES", raising=False)
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere")


def test_the_registries_agree():
    assert DELEGATE.choices == tuple(sorted(DELEGATES))
    for delegate in DELEGATES.values():
        assert set(delegate.targets) <= set(TARGETS)
        assert delegate.engine in ENGINES
        assert set(converter_for(delegate.converter).RECIPES) == set(delegate.recipes)
    run_here = {name for name, delegate in DELEGATES.items() if delegate.proof == "engine"}
    assert {name for info in ENGINES.values() for name in info.delegates} == run_here


@pytest.mark.parametrize(
    ("delegate", "target", "quantize", "backend"),
    [
        ("coreml", "ios", "fp32", "CoreMLBackend"),
        ("coreml", "ios", "fp16", "CoreMLBackend"),
        ("vulkan", "android", "int8-dynamic+fp32-stem", "VulkanBackend"),
    ],
)
def test_what_nothing_here_runs_is_exported_and_says_so(delegate, target, quantize, backend, description, tmp_path):
    if delegate == "coreml":
        pytest.importorskip("coremltools")
    out = tmp_path / "b.paraedge"
    bundle = convert(ConvBranches(), description, out, target=target, quantize=quantize, delegate=delegate)
    parts, card = bundle.manifest.parts(), bundle.card.parts
    assert {name: part.delegate for name, part in parts.items()} == {
        "stem": delegate, "branch_00": None, "branch_01": None, "branch_02": None,
    }  # fmt: skip
    assert card["stem"].operators == {backend: 1}
    assert (card["stem"].proof, card["stem"].similarity) == ("never run", None)
    assert all(card[name].proof == "engine" and card[name].similarity for name in parts if name != "stem")
    assert "coremltools" in bundle.card.tool_versions or delegate != "coreml"
    refused = rf"stem\.pte was made for the delegate '{delegate}', which executorch does not have on this machine; "
    with pytest.raises(EngineUnavailable, match=refused):
        Session.open(bundle)
    with pytest.raises(EngineUnavailable, match=refused):
        verify_bundle(bundle)
    program = bundle.program(bundle.manifest.stem)
    load_core().check_program("executorch", "stem.pte", program, delegate)
    for other in ("", "ethos-u85"):  # a delegate that the manifest does not name
        with pytest.raises(IntegrityError, match=f"has the operator '{backend}'"):
            load_core().check_program("executorch", "stem.pte", program, other)
    with pytest.raises(EngineUnavailable, match="made for the delegate 'abacus', which executorch does not have"):
        load_core().check_program("executorch", "stem.pte", program, "abacus")
    again = Bundle.open(bundle.subset(2, tmp_path / "two.paraedge").path)
    assert (again.manifest.stem.delegate, again.card.parts["stem"].proof) == (delegate, "never run")


def test_without_a_gpu_the_stem_is_exported_and_not_run(no_gpu, description, tmp_path):
    options = {"target": "linux", "engine": "litert", "delegate": "gpu"}
    bundle = convert(ConvBranches(), description, tmp_path / "b.paraedge", **options)
    assert bundle.card.parts["stem"].proof == "never run"
    assert bundle.manifest.engine_min_version == {"ai-edge-litert": "2.3"}
    for attempt in (Session.open, verify_bundle):
        with pytest.raises(
            EngineUnavailable, match="for the delegate 'gpu', and LiteRT finds no GPU on this machine; use"
        ):
            attempt(bundle)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SWIFTSHADER / "libvk_swiftshader.so").exists(),
    reason="no SwiftShader: LiteRT's GPU delegate was not run; apt-get install chromium",
)
def test_a_stem_on_the_gpu_computes_what_torch_computes(tmp_path):
    icd = str(SWIFTSHADER / "vk_swiftshader_icd.json")
    done = subprocess.run(
        [sys.executable, "-m", "support.gpu", tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "LD_LIBRARY_PATH": str(SWIFTSHADER), "VK_ICD_FILENAMES": icd},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["proof"], found["problems"]) == ("engine", [])
    assert found["snr_db"] > 100
    assert found["largest_error"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tosa_reference_model") is None or importlib.util.find_spec("ethosu") is None,
    reason="no Vela: Ethos-U was not tested; pip install --no-deps ethos-u-vela==5.1.0 tosa-tools==2026.5.0",
)
@pytest.mark.parametrize("delegate", ["ethos-u55", "ethos-u85"])
def test_ethos_u_is_proven_in_the_reference_model(delegate, description, checkpoint, tmp_path, monkeypatch):
    samples = checkpoint.samples  # all: ranges of a few cut off too much
    description = dataclasses.replace(description, samples=samples.images, sample_labels=samples.labels)
    model, cache = ConvBranches(num_branches=1), PartCache(tmp_path / "cache")
    options = {"target": "microcontroller", "quantize": "int8-static", "delegate": delegate, "cache": cache}
    bundle = convert(model, description, tmp_path / "b.paraedge", **options)
    assert bundle.manifest.engine == "executorch"
    for name, part in bundle.manifest.parts().items():
        assert part.delegate == delegate
        assert bundle.card.parts[name].proof == "reference model"
        assert bundle.card.parts[name].operators["EthosUBackend"] == 1
        assert 20 < bundle.card.parts[name].similarity.snr_db < 60
    with pytest.raises(EngineUnavailable, match=f"made for the delegate '{delegate}'"):
        Session.open(bundle)
    # From the cache, what the reference model runs too.
    monkeypatch.setattr(EthosU, "lower", None)
    again = convert(model, description, tmp_path / "again.paraedge", **options)
    assert again.card.parts == bundle.card.parts


def test_programs_for_two_processors_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(EthosU, "TOOLS", ("torch",))
    settings = {"recipe": "int8-static", "calibration": torch.zeros(2, 3), "allow_undelegated": False}
    keys = [
        PartCache(tmp_path).key(torch.nn.ReLU(), torch.zeros(1, 3), "executorch", converter, **settings)
        for converter in (ethos_u.U55, ethos_u.U85, EthosU(ethos_u.U85.processor))
    ]
    assert keys[0] != keys[1] == keys[2]


def test_a_reference_model_that_computes_something_else_is_refused(description, tmp_path, monkeypatch):
    """The gate looks at what ran, not at the program for the CPU."""

    class Wrong:
        def __init__(self, reference):
            pass

        def run(self, x):
            return np.zeros((1, 12, 14, 14) if x.shape[1] == 1 else (1, 10), np.float32)

        def close(self):
            pass

    monkeypatch.setattr(ethos_u, "TosaPart", Wrong)
    monkeypatch.setattr(EthosU, "TOOLS", ("torch",))
    monkeypatch.setattr(EthosU, "lower", lambda *arguments, **options: LoweredPart(b"program", {}, b"reference"))
    options = {"target": "microcontroller", "quantize": "int8-static", "delegate": "ethos-u85"}
    with pytest.raises(ParityError, match="stem: the engine's output is all zero"):
        convert(ConvBranches(), description, tmp_path / "b", **options)
    assert list(tmp_path.iterdir()) == []
