"""The third stage: the parity gate, and what the finished parts reach on a test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_converters.description import EvaluationSet, ModelDescription
from paraedge_converters.early_stop import Calibration, calibrate_early_stop
from paraedge_converters.lowering import LoweredModel
from paraedge_converters.parity import Reference, check_parity
from paraedge_converters.request import ExportRequest
from paraedge_runtime.card import Accuracy, Parity, Similarity
from paraedge_runtime.engines import LoadedPart
from paraedge_runtime.inputs import normalise
from paraedge_runtime.manifest import InputSpec

__all__ = ["Proof", "prove"]


@dataclass(frozen=True, eq=False)
class Proof:
    """What was found out about the parts.

    Attributes:
        parity: the record of the gate.
        similarities: how near each part is, by name; ``None`` for one that never ran.
        outputs: (n, k, num_outputs), what the engine computes for every prefix of the description's samples.
        accuracy: of every prefix, where known.
        early_stop: where calibrated.
    """

    parity: Parity
    similarities: Mapping[str, Similarity | None]
    outputs: NDArray[np.float32]
    accuracy: Accuracy | None
    early_stop: Calibration | None


def prove(
    model: LoweredModel,
    reference: Reference,
    description: ModelDescription,
    input_spec: InputSpec,
    request: ExportRequest,
    on_sample: Callable[[str], None],
) -> Proof:
    """Hold the parts to what torch computes, then measure them on the description's test set, if it has one.

    Args:
        model: loaded parts.
        reference: of the description's samples.
        description: of the model.
        input_spec: of the model.
        request: what is made.
        on_sample: called after each sample, with what is being done.

    Raises:
        ParityError: names the part that is off, and by how much.
    """
    parity, similarities, outputs = check_parity(
        reference,
        model.loaded,
        request.recipe.tolerance,
        has_labels=description.labels is not None,
        on_sample=lambda: on_sample("parity"),
    )
    accuracy, early_stop = description.accuracy, description.early_stop
    if description.test_set is not None:
        how = f"{request.quantize} in {request.engine}"
        if "reference model" in model.proofs.values():
            how = f"{request.quantize} in the reference model of {request.delegate}"
        elif "never run" in model.proofs.values():
            how += f", parts of {request.delegate} on the CPU"
        accuracy, early_stop = _measure(
            model.loaded, description.test_set, input_spec, how, lambda: on_sample("test set")
        )
    elif request.quantize != "fp32":
        accuracy = early_stop = None  # those of the float32 model
    known = {name: None if model.proofs[name] == "never run" else found for name, found in similarities.items()}
    return Proof(parity, known, outputs, accuracy, early_stop)


def _measure(
    parts: Mapping[str, LoadedPart],
    test_set: EvaluationSet,
    input_spec: InputSpec,
    how: str,
    on_sample: Callable[[], None],
) -> tuple[Accuracy, Calibration]:
    """Run the test set through the parts, in the engine."""
    branches = [part for name, part in parts.items() if name not in ("stem", "fused")]
    logits = []
    for sample in test_set.samples:
        tokens = parts["stem"].run(normalise(sample[None], input_spec))
        logits.append(np.stack([branch.run(tokens)[0] for branch in branches]))
        on_sample()
    branch_logits = np.stack(logits, axis=1)  # (k, M, C)
    correct = branch_logits.cumsum(axis=0, dtype=np.float32).argmax(axis=2) == test_set.labels
    accuracy = Accuracy(
        dataset=f"{test_set.dataset}, {how}",
        num_samples=len(test_set.labels),
        prefix_accuracy=tuple(round(float(value), 6) for value in correct.mean(axis=1)),
    )
    early_stop = calibrate_early_stop(
        branch_logits, test_set.labels, dataset=accuracy.dataset, max_accuracy_drop=test_set.max_accuracy_drop
    )
    return accuracy, early_stop
