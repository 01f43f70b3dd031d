"""Exports a stem for LiteRT's GPU delegate and runs it, in a process of its own: LiteRT looks for a GPU once in each.

python -m support.gpu FOLDER    prints what was found, as JSON
"""

import json
import sys
from pathlib import Path

import numpy as np

from paraedge.model import load_checkpoint
from paraedge.packaged import resolve_checkpoint
from paraedge_converters.description import ModelDescription
from paraedge_converters.pipeline import convert
from paraedge_runtime import Session
from paraedge_runtime.verification import verify_bundle
from support.conv_branches import ConvBranches


def main(folder: str) -> None:
    checkpoint = load_checkpoint(resolve_checkpoint("fashion-mnist"))
    images, labels = checkpoint.samples.images, checkpoint.samples.labels
    description = ModelDescription(
        name="conv-branches",
        description="three convolutional branches",
        license="MIT (Zalando SE)",
        labels=checkpoint.config.labels,
        samples=images[:32],
        sample_labels=labels[:32],
    )
    out = Path(folder)
    gpu = convert(ConvBranches(), description, out / "gpu", target="linux", engine="litert", delegate="gpu")
    cpu = convert(ConvBranches(), description, out / "cpu", target="linux", engine="litert")
    with Session.open(gpu, threads=2) as session, Session.open(cpu, threads=2) as other:
        errors = [np.abs(session.run(image).output - other.run(image).output).max() for image in images[32:40]]
    stem = gpu.card.parts["stem"]
    found = {
        "proof": stem.proof,
        "snr_db": stem.similarity and stem.similarity.snr_db,
        "problems": verify_bundle(gpu).problems,
        "largest_error": float(max(errors)),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
