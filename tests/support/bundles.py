"""Bundles for the fake engine, made in a moment, and ways to break them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from paraedge_runtime.bundle import Bundle, GoldenData, file_entry, golden_entry, write_bundle
from paraedge_runtime.manifest import (
    Accuracy,
    BranchEntry,
    EarlyStop,
    HeldOut,
    InputSpec,
    Manifest,
    Parity,
    PartEntry,
    PrefixParity,
    Similarity,
    StopRule,
)

IMAGE_SHAPE = (8, 8, 1)
INPUT_SHAPE = (1, 1, 8, 8)
TOKENS_SHAPE = (1, 5, 4)
NUM_LABELS = 3
SIMILAR = Similarity(snr_db=130.0, cosine=1.0, max_abs_error=1e-6)


def fake_bundle(
    path: Path, behaviours: list[dict[str, Any]] | None = None, stem: dict[str, Any] | None = None, **changes: Any
) -> Bundle:
    """A bundle of fake parts, one branch per behaviour."""
    behaviours = behaviours if behaviours is not None else [{"add": 1.0}, {"add": 2.0}, {"add": 3.0}]
    files = {"stem.fake": json.dumps(stem or {}).encode()}
    files.update({f"branch_{place:02d}.fake": json.dumps(b).encode() for place, b in enumerate(behaviours)})
    rng = np.random.default_rng(0)
    golden = GoldenData(
        rng.integers(0, 256, (4, *IMAGE_SHAPE), dtype=np.uint8),
        rng.normal(size=(4, len(behaviours), NUM_LABELS)).astype(np.float32),
        np.array([0, 1, 2, 0]),
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
            "parameters": 10,
            "macs": macs,
            "operators": {"FAKE": 1},
        }

    names = [f"branch_{place:02d}" for place in range(len(behaviours))]
    fields: dict[str, Any] = {
        "format": "paraedge-bundle/1",
        "name": "fake",
        "description": "a fake model",
        "license": "Apache-2.0",
        "labels": ("ant", "bee", "cat"),
        "input": InputSpec(name="image", shape=INPUT_SHAPE, dtype="float32", layout="NCHW", mean=(0.5,), std=(0.25,)),
        "stem": PartEntry(**part("stem", INPUT_SHAPE, TOKENS_SHAPE)),
        "branches": tuple(
            BranchEntry(index=place, **part(name, TOKENS_SHAPE, (1, NUM_LABELS), behaviours[place].get("macs", 100)))
            for place, name in enumerate(names)
        ),
        "total_branches": 8,
        "fused": None,
        "engine": "fake",
        "engine_min_version": {"fake": "1.0"},
        "target": "linux",
        "recipe": "fp32",
        "accuracy": Accuracy(
            dataset="fake test split",
            num_samples=100,
            prefix_accuracy=tuple(0.5 + place / 100 for place in range(len(behaviours))),
        ),
        "early_stop": EarlyStop(
            dataset="fake test split",
            num_samples=50,
            max_accuracy_drop=0.005,
            risk_confidence=0.95,
            prefixes=tuple(
                StopRule(temperature=1.5, threshold=0.9 if place < len(names) - 1 else None)
                for place in range(len(names))
            ),
            held_out=HeldOut(num_samples=40, accuracy_full=0.5, accuracy_stopped=0.5, mean_branches=1.0),
        ),
        "parity": Parity(
            reference="torch 0",
            num_samples=256,
            min_snr_db=100.0,
            min_top1_agreement=1.0,
            parts=dict.fromkeys(["stem", *names], SIMILAR),
            prefixes=tuple(
                PrefixParity(snr_db=130.0, cosine=1.0, max_abs_error=1e-6, top1_agreement=1.0) for _ in names
            ),
            verdict="passed",
        ),
        "golden": golden_entry(golden_files, (0, 1, 2, 0)),
        "tool_versions": {"fake": "1.0"},
        "checkpoint_sha256": "0" * 64,
    }
    return write_bundle(Manifest(**{**fields, **changes}), {**files, **golden_files}, path)


def edit_manifest(path: Path, edit: Any) -> None:
    """Change ``manifest.json`` of a bundle folder: ``edit`` gets the parsed document."""
    file = path / "manifest.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


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


def picture(value: int = 100) -> np.ndarray:
    return np.full(IMAGE_SHAPE, value, dtype=np.uint8)
