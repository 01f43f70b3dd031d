"""The last stage: manifest, golden data and programs become a bundle."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from paraedge_converters.backends import converter_for
from paraedge_converters.cache import fingerprint, tool_versions
from paraedge_converters.delegates import DELEGATES
from paraedge_converters.description import ModelDescription
from paraedge_converters.lowering import LoweredModel
from paraedge_converters.parity import Reference
from paraedge_converters.proof import Proof
from paraedge_converters.protocol import BranchModel
from paraedge_converters.request import ExportRequest
from paraedge_converters.split import Part
from paraedge_runtime.bundle import Bundle, GoldenData, card_entry, file_entry, write_bundle
from paraedge_runtime.card import Card, PartCard
from paraedge_runtime.engines import Engine
from paraedge_runtime.manifest import BranchEntry, Manifest, PartEntry

__all__ = ["assemble"]

MAX_GOLDEN = 32
GOLDEN_SHARE = 0.1  # of the bundle, at most: a device downloads it


def assemble(
    model: BranchModel,
    description: ModelDescription,
    request: ExportRequest,
    engine: Engine,
    parts: Sequence[Part],
    lowered: LoweredModel,
    reference: Reference,
    proof: Proof,
) -> Bundle:
    """Write the bundle at ``request.out``, whole or not at all.

    Raises:
        BundleError: something else than a bundle stands there by now.
        InputError: it cannot be written.
    """
    delegate = request.delegate
    converter = converter_for(request.converter if delegate is None else DELEGATES[delegate].converter)
    entries, programs = lowered.entries, lowered.programs
    golden = _golden(description, reference, proof, sum(len(part.program) for part in programs.values()))
    golden_files = golden.files()
    card = Card(
        description=description.description,
        license=description.license,
        parts={
            part.name: PartCard(
                parameters=part.parameters,
                operators=programs[part.name].operators,
                similarity=proof.similarities[part.name],
                proof=lowered.proofs[part.name],
            )
            for part in parts
            if part.name != "fused"
        },
        parity=proof.parity,
        accuracy=proof.accuracy,
        early_stop=None if proof.early_stop is None else proof.early_stop.early_stop,
        golden=golden.record(),
        tool_versions={
            "paraedge": importlib.metadata.version("paraedge"),
            "python": platform.python_version(),
            engine.distribution: engine.version,
            **tool_versions(converter_for(request.converter)),
            **tool_versions(converter),
        },
        checkpoint_sha256=_weights_sha256(model),
    )
    manifest = Manifest(
        format="paraedge-bundle/2",
        name=request.name,
        version=description.version,
        engine=request.engine,
        engine_min_version=converter.engine_min_version(request.quantize),
        target=request.target,
        quantization=request.quantize,
        input=model.input_spec,
        output=description.output(model.num_outputs),
        stem=entries["stem"],
        branches=tuple(_branch_entry(entries[f"branch_{index:02d}"], index) for index in request.branches),
        total_branches=request.num_branches,
        fused=file_entry(entries["fused"].file, programs["fused"].program) if request.fused else None,
        stop_rules=None if proof.early_stop is None else proof.early_stop.stop_rules,
        card=card_entry(card),
        files=tuple(file_entry(name, data) for name, data in golden_files.items()),
        signature=None,
    )
    program_files = {entries[name].file: part.program for name, part in programs.items()}
    return write_bundle(manifest, card, {**program_files, **golden_files}, request.out)


def _golden(description: ModelDescription, reference: Reference, proof: Proof, program_bytes: int) -> GoldenData:
    """The first inputs to which the engine gives torch's label; as many as ``GOLDEN_SHARE`` allows, at least one."""
    kept = np.arange(len(reference.inputs))
    if description.labels is not None:
        # A device may round otherwise: what is a close call here would prove nothing there.
        same_label = proof.outputs.argmax(axis=2) == reference.prefixes.argmax(axis=2)  # (n, k)
        kept = np.flatnonzero(same_label.all(axis=1))
    sample_bytes = description.samples[0].nbytes + reference.branch_outputs[0].nbytes
    most = int(GOLDEN_SHARE / (1 - GOLDEN_SHARE) * program_bytes / sample_bytes)
    kept = kept[: max(1, min(MAX_GOLDEN, most))]
    labels = description.sample_labels
    return GoldenData(
        description.samples[kept],
        np.ascontiguousarray(reference.branch_outputs[kept]),
        None if labels is None else labels[kept],
    )


def _weights_sha256(model: BranchModel) -> str:
    return fingerprint(
        {
            f"{position}.{name}": tensor
            for position, module in enumerate([model.stem, *model.branches])
            for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)
        }
    )


def _branch_entry(entry: PartEntry, index: int) -> BranchEntry:
    return BranchEntry(index=index, **{name: getattr(entry, name) for name in entry.__struct_fields__})
