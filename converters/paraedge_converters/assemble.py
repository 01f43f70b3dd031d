"""The last stage: manifest, golden data and programs become a bundle."""

from __future__ import annotations

import importlib.metadata
import platform

import numpy as np
from torch import Tensor

from paraedge_converters.backends import converter_for
from paraedge_converters.cache import fingerprint, tool_versions
from paraedge_converters.description import ModelDescription
from paraedge_converters.lowering import LoweredModel
from paraedge_converters.parity import Reference
from paraedge_converters.proof import Proof
from paraedge_converters.protocol import BranchModel
from paraedge_converters.request import ExportRequest
from paraedge_runtime.bundle import Bundle, GoldenData, golden_entry, write_bundle
from paraedge_runtime.engines import Engine
from paraedge_runtime.manifest import BranchEntry, Manifest, PartEntry

__all__ = ["assemble"]

NUM_GOLDEN = 32


def assemble(
    model: BranchModel,
    description: ModelDescription,
    request: ExportRequest,
    engine: Engine,
    lowered: LoweredModel,
    reference: Reference,
    proof: Proof,
) -> Bundle:
    """Write the bundle at ``request.out``, whole or not at all.

    Raises:
        BundleError: something else than a bundle stands there by now.
        InputError: it cannot be written.
    """
    golden = _golden(description, reference, proof)
    golden_files = golden.files()
    converter = converter_for(request.converter)
    entries = lowered.entries
    manifest = Manifest(
        format="paraedge-bundle/1",
        name=request.name,
        description=description.description,
        license=description.license,
        labels=description.labels,
        input=model.input_spec,
        stem=entries["stem"],
        branches=tuple(_branch_entry(entries[f"branch_{index:02d}"], index) for index in request.branches),
        total_branches=request.num_branches,
        fused=entries.get("fused"),
        engine=request.engine,
        engine_min_version=converter.engine_min_version(request.quantize),
        target=request.target,
        recipe=request.quantize,
        accuracy=proof.accuracy,
        early_stop=proof.early_stop,
        parity=proof.parity,
        golden=golden_entry(golden_files, tuple(int(label) for label in golden.labels)),
        tool_versions={
            "paraedge": importlib.metadata.version("paraedge"),
            "python": platform.python_version(),
            engine.distribution: engine.version,
            **tool_versions(converter),
        },
        checkpoint_sha256=_weights_sha256(model),
    )
    programs = {entries[name].file: part.program for name, part in lowered.programs.items()}
    return write_bundle(manifest, {**programs, **golden_files}, request.out)


def _golden(description: ModelDescription, reference: Reference, proof: Proof) -> GoldenData:
    """Samples with torch's outputs. A device may round otherwise: what is a close call here would prove nothing."""
    same_label = proof.outputs.argmax(axis=2) == reference.prefixes.argmax(axis=2)  # (n, k)
    kept = np.flatnonzero(same_label.all(axis=1))[:NUM_GOLDEN]
    return GoldenData(
        description.samples[kept],
        np.ascontiguousarray(reference.branch_outputs[kept]),
        description.sample_labels[kept],
    )


def _weights_sha256(model: BranchModel) -> str:
    return fingerprint(
        {
            f"{place}.{name}": tensor
            for place, module in enumerate([model.stem, *model.branches])
            for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)
        }
    )


def _branch_entry(entry: PartEntry, index: int) -> BranchEntry:
    return BranchEntry(index=index, **{name: getattr(entry, name) for name in entry.__struct_fields__})
