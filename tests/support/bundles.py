"""Bundles for the fake engine, made in a moment, and ways to break them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from paraedge_runtime.bundle import Bundle, GoldenData, card_entry, file_entry, write_bundle
from paraedge_runtime.card import (
    Accuracy,
    Card,
    EarlyStop,
    HeldOut,
    Parity,
    PartCard,
    PrefixParity,
    Similarity,
    Thresholds,
)
from paraedge_runtime.manifest import (
    BranchEntry,
    ImageInput,
    LabelsOutput,
    Manifest,
    PartEntry,
    StopRule,
    TensorInput,
    VectorOutput,
)

IMAGE_SHAPE = (8, 8, 1)
INPUT_SHAPE = (1, 1, 8, 8)
TOKENS_SHAPE = (1, 5, 4)
NUM_LABELS = 3
IMAGE = ImageInput(name="image", shape=INPUT_SHAPE, mean=(0.5,), std=(0.25,))
# Six channels of motion, 16 points in time; mean and std per channel.
MOTION = TensorInput(
    name="motion",
    shape=(1, 6, 16),
    axes=("channel", "time"),
    normalized_axis="channel",
    mean=(0.5, 0.0, -1.0, 0.25, 9.81, 3.0),
    std=(0.25, 1.0, 2.0, 0.3, 4.0, 0.7),
)
LABELS = LabelsOutput(labels=("ant", "bee", "cat"))
EMBEDDING = VectorOutput(name="embedding", size=7)
SIMILAR = Similarity(snr_db=130.0, cosine=1.0, max_abs_error=1e-6)


def golden_inputs(spec: ImageInput | TensorInput, count: int = 4) -> np.ndarray:
    """Inputs (count, ...) such as a caller has them."""
    rng = np.random.default_rng(0)
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return rng.normal(size=(count, *spec.shape[1:])).astype(np.float32)


def fake_bundle(
    path: Path, behaviours: list[dict[str, Any]] | None = None, stem: dict[str, Any] | None = None, **changes: Any
) -> Bundle:
    """A bundle of fake parts, one branch per behaviour; ``changes`` are fields of the manifest or of the card."""
    behaviours = behaviours if behaviours is not None else [{"add": 1.0}, {"add": 2.0}, {"add": 3.0}]
    spec, output = changes.get("input", IMAGE), changes.get("output", LABELS)
    has_labels = isinstance(output, LabelsOutput)
    num_outputs = len(output.labels) if has_labels else output.size
    files = {"stem.fake": json.dumps(stem or {}).encode()}
    files.update({f"branch_{place:02d}.fake": json.dumps(b).encode() for place, b in enumerate(behaviours)})
    rng = np.random.default_rng(0)
    golden = GoldenData(
        golden_inputs(spec),
        rng.normal(size=(4, len(behaviours), num_outputs)).astype(np.float32),
        np.array([0, 1, 2, 0]) if has_labels else None,
    )
    golden_files = golden.files()

    def part(name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], macs: int = 100) -> dict[str, Any]:
        entry = file_entry(f"{name}.fake", files[f"{name}.fake"])
        return {
            "file": entry.file,
            "size_bytes": entry.size_bytes,
            "sha256": entry.sha256,
            "input_shape": inputs,
            "output_shape": outputs,
            "macs": macs,
        }

    names = [f"branch_{place:02d}" for place in range(len(behaviours))]
    rules = tuple(
        StopRule(temperature=1.5, threshold=0.9 if place < len(names) - 1 else None) for place in range(len(names))
    )
    stop_rules = changes.get("stop_rules", rules if has_labels else None)
    card_fields: dict[str, Any] = {
        "description": "a fake model",
        "license": "Apache-2.0",
        "parts": {
            name: PartCard(parameters=10, operators={"FAKE": 1}, similarity=SIMILAR) for name in ["stem", *names]
        },
        "parity": Parity(
            reference="torch 0",
            num_samples=256,
            thresholds=Thresholds(
                min_snr_db=100.0,
                min_top1_agreement=1.0 if has_labels else None,
                max_relative_error=None if has_labels else 1e-4,
            ),
            prefixes=tuple(
                PrefixParity(
                    snr_db=130.0,
                    cosine=1.0,
                    max_abs_error=1e-6,
                    top1_agreement=1.0 if has_labels else None,
                    relative_error=None if has_labels else 1e-6,
                )
                for _ in names
            ),
            verdict="passed",
        ),
        "accuracy": Accuracy(
            dataset="fake test split",
            num_samples=100,
            prefix_accuracy=tuple(0.5 + place / 100 for place in range(len(behaviours))),
        )
        if has_labels
        else None,
        "early_stop": EarlyStop(
            dataset="fake test split",
            num_samples=50,
            max_accuracy_drop=0.005,
            risk_confidence=0.95,
            held_out=HeldOut(num_samples=40, accuracy_full=0.5, accuracy_stopped=0.5, mean_branches=1.0),
        )
        if stop_rules is not None
        else None,
        "golden": golden.record(),
        "tool_versions": {"fake": "1.0"},
        "checkpoint_sha256": "0" * 64,
    }
    card_changes = {name: value for name, value in changes.items() if name in card_fields}
    card = Card(**{**card_fields, **card_changes})
    fields: dict[str, Any] = {
        "format": "paraedge-bundle/2",
        "name": "fake",
        "version": 1,
        "engine": "fake",
        "engine_min_version": {"fake": "1.0"},
        "target": "linux",
        "quantization": "fp32",
        "input": spec,
        "output": output,
        "stem": PartEntry(**part("stem", spec.shape, TOKENS_SHAPE)),
        "branches": tuple(
            BranchEntry(index=place, **part(name, TOKENS_SHAPE, (1, num_outputs), behaviours[place].get("macs", 100)))
            for place, name in enumerate(names)
        ),
        "total_branches": 8,
        "fused": None,
        "stop_rules": stop_rules,
        "card": card_entry(card),
        "files": tuple(file_entry(name, data) for name, data in golden_files.items()),
        "signature": None,
    }
    manifest_changes = {name: value for name, value in changes.items() if name not in card_fields}
    manifest = Manifest(**{**fields, **manifest_changes})
    return write_bundle(manifest, card, {**files, **golden_files}, path)


def hash_line(manifest: bytes) -> bytes:
    """What ``sha256sum manifest.json`` writes."""
    return hashlib.sha256(manifest).hexdigest().encode() + b"  manifest.json\n"


def write_manifest(path: Path, raw: bytes) -> None:
    """Put other bytes in place of ``manifest.json`` of a bundle folder; ``manifest.sha256`` agrees."""
    (path / "manifest.json").write_bytes(raw)
    (path / "manifest.sha256").write_bytes(hash_line(raw))


def edit_manifest(path: Path, edit: Any) -> None:
    """Change ``manifest.json`` of a bundle folder, and its hash: ``edit`` gets the parsed document."""
    document = json.loads((path / "manifest.json").read_text())
    edit(document)
    write_manifest(path, json.dumps(document).encode())


def edit_card(path: Path, edit: Any) -> None:
    """Change ``card.json`` of a bundle folder, and its hash in the manifest: ``edit`` gets the parsed document."""
    document = json.loads((path / "card.json").read_text())
    edit(document)
    replace_file(path, "card.json", json.dumps(document).encode())


def sign(path: Path, signature: bytes = b"a signature") -> None:
    """Give a bundle folder a signature, which nobody checks yet."""
    record = {"algorithm": "ed25519", "file": "manifest.json.minisig"}
    edit_manifest(path, lambda document: document.update(signature=record))
    (path / "manifest.json.minisig").write_bytes(signature)


def replace_file(path: Path, name: str, data: bytes) -> None:
    """Put other bytes in place of a file of a bundle folder, and make the manifest agree: every hash fits."""
    (path / name).write_bytes(data)
    entry = file_entry(name, data)

    def agree(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("file") == name:
                node.update(size_bytes=entry.size_bytes, sha256=entry.sha256)
            for value in node.values():
                agree(value)
        elif isinstance(node, list):
            for value in node:
                agree(value)

    edit_manifest(path, agree)


def tree(path: Path) -> dict[str, bytes | str]:
    """Everything below a folder: path -> bytes of a file, or what else it is."""
    found: dict[str, bytes | str] = {}
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink():
            found[name] = f"link to {entry.readlink()}"
        else:
            found[name] = entry.read_bytes() if entry.is_file() else "folder" if entry.is_dir() else "special"
    return found


def image(value: int = 100) -> np.ndarray:
    return np.full(IMAGE_SHAPE, value, dtype=np.uint8)
