"""Writes the seeds in ``corpus/``, one good file of every kind that is fuzzed: ``python tests/fuzz/seeds.py``.

What fuzzing found lies beside them under other names, and is never overwritten.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

CORPUS = Path(__file__).parent / "corpus"
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.targets import (  # noqa: E402
    BUNDLE_FILES,
    CHECKPOINT_FILES,
    NEW,
    OLD,
    PROGRAM_ENGINES,
    RELEASE_KEY,
    UPDATE_FILES,
    files_of_zip,
)
from support.bundles import EMBEDDING, MOTION, fake_bundle, hash_line, tree  # noqa: E402
from support.devices import DEVICE  # noqa: E402

from paraedge_measure.deadlines.cells import grid  # noqa: E402
from paraedge_measure.deadlines.records import FORMAT, Header, Outcomes, Record  # noqa: E402

HEADER = Header(
    format=FORMAT, bundle="fake", bundle_sha256="0" * 64, engine="fake 1.0", threads=2, profile=None, cores=2,
    images="4 images", images_sha256="1" * 64, prefix_accuracy=(0.5, 0.75), block=4,
)  # fmt: skip


def tiny_checkpoint(folder: Path) -> Path:
    """A checkpoint of a network of one narrow branch, untrained, without torch's help."""
    import torch

    from paraedge.data import LabelledImages
    from paraedge.model import Checkpoint, ParaFormer, ParaFormerConfig, save_checkpoint
    from paraedge.model.records import CheckpointConfig, TrainingRecord
    from paraedge_measure.evaluation import Evaluation

    torch.manual_seed(0)
    shape = ParaFormerConfig(
        image_size=8, in_channels=1, num_classes=3, embed_dim=4, num_heads=1, mlp_ratio=1.0, num_branches=1,
        branch_depth=1, stem_stride=2, mean=(0.3,), std=(0.4,),
    )  # fmt: skip
    labels = np.array([0, 1, 2])
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    logits = np.zeros((1, 3, 3), np.float32)
    config = CheckpointConfig(
        name="tiny", description="tiny", license="Apache-2.0", dataset="digits", labels=("a", "b", "c"), model=shape
    )
    training = TrainingRecord(
        command="paraedge train", seed=0, epochs=1, settings={}, hardware="none", torch_version="2", train_seconds=1.0,
        final_train_loss=1.0, num_test_samples=3, prefix_accuracy=(0.5,),
    )  # fmt: skip
    made = Checkpoint(
        config, ParaFormer(shape).eval(), training, LabelledImages(images, labels), Evaluation(logits, labels)
    )
    save_checkpoint(made, folder, dtype=torch.float16)
    return folder


def _bundle_seeds(folder: Path) -> dict[str, dict[str, bytes]]:
    from support.keys import signed

    from paraedge_runtime.archive import write_zip
    from paraedge_runtime.update import write_update

    labels = fake_bundle(folder / "labels.paraedge", NEW)
    vectors = fake_bundle(folder / "vectors.paraedge", [{"add": 1.0}], input=MOTION, output=EMBEDDING)
    old = fake_bundle(folder / "old.paraedge", OLD)
    write_update(old, labels, folder / "u.zip")
    files, packed = tree(labels.path), labels.pack(folder / "b.zip").read_bytes()
    write_zip({"manifest.json": b"{}", "manifest.sha256": hash_line(b"{}"), "a/b": b"1"}, folder / "small.zip")
    of_update = files_of_zip(folder / "u.zip")
    of_vectors = signed(vectors, folder / "keys").manifest_bytes
    return {
        "manifest": {"labels": files["manifest.json"], "vectors": of_vectors},
        "bundle": {
            **{name.replace("/", "-"): bytes([at]) + files[name] for at, name in enumerate(BUNDLE_FILES)},
            "vectors": b"\0" + of_vectors,
        },
        "archive": {"packed": packed, "small": (folder / "small.zip").read_bytes()},
        "update": {
            **{name: bytes([at]) + of_update[name] for at, name in enumerate(UPDATE_FILES)},
            "whole": bytes([len(UPDATE_FILES)]) + (folder / "u.zip").read_bytes(),
        },
    }


def _signature_seeds(folder: Path) -> dict[str, bytes]:
    from support.keys import private_key, write_keys

    from paraedge.signing import sign_manifest

    keys = [private_key(folder, name) for name in ("release", "next")]
    files = write_keys(folder)
    return {
        "one": b"\0" + sign_manifest(b"{}", keys[:1], 1_800_000_000),
        "two": b"\0" + sign_manifest(b"{}", keys, 1_800_000_000),
        "expires": b"\0" + sign_manifest(b"{}", keys[:1], 1_800_000_000, 1_900_000_000),
        "key": b"\1" + RELEASE_KEY.encode(),
        "key-file": b"\2" + (files / "release.pub").read_bytes(),
    }


def _program_seeds() -> dict[str, bytes]:
    """The same small network as a program of each engine."""
    import torch

    from paraedge_converters.backends import converter_for

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    example = torch.zeros(1, 1, 4, 4)
    return {
        name: bytes([at])
        + converter_for(name)
        .lower(network.eval(), example, recipe="fp32", calibration=example, allow_undelegated=False)
        .program
        for at, name in enumerate(PROGRAM_ENGINES)
    }


def record(policy: str = "all") -> Record:
    """One of ten requests."""
    (cell,) = grid(
        deadlines=[0.5], arrivals=["closed"], interference=["none"], requests=10, load=None, hogs=1,
        square_period_s=0.2, quota=0.5,
    )  # fmt: skip
    missed = np.arange(10) == 2
    outcomes = Outcomes(np.full(10, 0.001), np.full(10, 2), missed, ~missed)
    return Record.of(outcomes, cell=cell, policy=policy, seed=0, run="r", full_s=0.004, cpu_s=0.05)


def _record_seeds() -> dict[str, bytes]:
    from paraedge_demo.messages import FORMAT as DEMO_FORMAT
    from paraedge_demo.messages import BranchBar, FrameRecord
    from paraedge_demo.messages import Header as DemoHeader

    made = record()
    header = DemoHeader(
        format=DEMO_FORMAT, bundle="fake", engine="fake", branches=(0, 1), labels=("ant", "bee"), source="images",
        max_threads=2,
    )  # fmt: skip
    bar = BranchBar(index=0, outcome="used", thread=0, start_ms=0.1, end_ms=0.2, reason="")
    frame = FrameRecord(
        number=1, at_s=0.1, name="a.png", label="ant", confidence=0.5, truth=None, latency_ms=1.0, inference_ms=0.9,
        stem_ms=0.1, overhead_ms=0.1, deadline_met=True, branches=(bar,), budget_ms=5.0, threads=2, policy="anytime",
        count=2, load=False, dropped_frames=0, requests_to_learn=0,
    )  # fmt: skip

    def lines(kind: int, *records: object) -> bytes:
        return bytes([kind]) + b"".join(msgspec.json.encode(one) + b"\n" for one in records)

    return {"bench": lines(0, HEADER, made, made), "demo": lines(1, header, frame)}


def _data_seeds() -> dict[str, bytes]:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    npz = io.BytesIO()
    names = np.array(["ant", "bee"])
    np.savez_compressed(npz, x_train=images, y_train=[0, 1], x_test=images, y_test=[0, 1], class_names=names)
    idx = struct.pack(">HBB3I", 0, 8, 3, *images.shape) + images.tobytes()
    planes = np.zeros((1, 3072), np.uint8)
    batch = pickle.dumps({b"data": planes, b"labels": [1], b"batch_label": b"b"}, protocol=2)
    npy = io.BytesIO()
    np.save(npy, np.zeros(MOTION.shape[1:], np.float32))
    csv = b"time_ms,acc_x,acc_y\n0,1,-2.5\n20,2e-3,4\n40,.5,6\n"
    window = io.BytesIO()
    np.savez(window, x=np.zeros((3, 2)), rate_hz=50, channel_names=np.array(["acc_x", "acc_y"]))
    kinds = [npz.getvalue(), idx, gzip.compress(idx, mtime=0), batch, npy.getvalue(), csv, window.getvalue()]
    names_of_kinds = ("npz", "idx", "idx-gz", "cifar", "npy", "csv", "window")
    return {name: bytes([at]) + kind for at, (name, kind) in enumerate(zip(names_of_kinds, kinds, strict=True))}


def _image_seeds() -> dict[str, bytes]:
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    found = {}
    for suffix in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"):
        file = io.BytesIO()
        noise.save(file, suffix)
        found[suffix.lower()] = file.getvalue()
    file = io.BytesIO()
    noise.save(file, "JPEG", progressive=True)
    return {**found, "progressive": file.getvalue()}


def _plan_seeds() -> dict[str, bytes]:
    from paraedge_measure.planning import Plan

    made = Plan(
        device="pi", bundle_name="fake", bundle_sha256="0" * 64, branches=(0, 1), engine="litert",
        target="raspberry-pi", recipe="fp32", threads=2, p50_ms=1.0, p95_ms=1.5, accuracy=0.9,
        size_bytes=1000, memory_bytes=2000, valid=True,
    )  # fmt: skip
    return {"plan": msgspec.json.format(msgspec.json.encode(made), indent=2)}


def main() -> None:
    """Write them all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = tiny_checkpoint(folder / "model")
        seeds = {
            **_bundle_seeds(folder),
            "program": _program_seeds(),
            "signature": _signature_seeds(folder / "keys"),
            "device": {"device": msgspec.json.encode(DEVICE)},
            "plan": _plan_seeds(),
            "recording": _record_seeds(),
            "checkpoint": {
                file: bytes([at]) + (checkpoint / file).read_bytes() for at, file in enumerate(CHECKPOINT_FILES)
            },
            "data": _data_seeds(),
            "image": _image_seeds(),
        }
    for target, files in seeds.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (CORPUS / target / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
