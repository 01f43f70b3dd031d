"""The parity gate: no bundle exists unless the real engine answers as torch does, on real images.

Noise would not do: networks have passed on random input and failed on every photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paraedge_converters.protocol import BranchModel
from paraedge_runtime.card import Parity, PrefixParity, Similarity, Thresholds
from paraedge_runtime.engines import LoadedPart
from paraedge_runtime.errors import EngineError, ParityError
from paraedge_runtime.similarity import compare, compare_prefix, prefix_shortfall, snr_at_least

__all__ = ["Reference", "check_parity", "torch_reference"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """What torch computes for n inputs.

    Attributes:
        inputs: (n, C, H, W), normalised.
        tokens: (n, …), output of the stem.
        branch_outputs: (n, k, num_outputs), of the chosen branches.
    """

    inputs: Array
    tokens: Array
    branch_outputs: Array


def torch_reference(model: BranchModel, branches: Sequence[int], inputs: Array) -> Reference:
    """Run the original model, unfolded and in float32, on ``inputs`` (n, C, H, W)."""
    with torch.inference_mode():
        tokens = model.stem(torch.from_numpy(inputs))
        outputs = torch.stack([model.branches[index](tokens) for index in branches], dim=1)
    # torch may lay a convolution's output out channels last; parts are promised C-contiguous input.
    return Reference(inputs, np.ascontiguousarray(tokens.numpy()), np.ascontiguousarray(outputs.numpy()))


def check_parity(
    reference: Reference,
    parts: Mapping[str, LoadedPart],
    *,
    min_snr_db: float,
    min_top1_agreement: float,
    fused: LoadedPart | None = None,
    on_sample: Callable[[], None] = lambda: None,
) -> tuple[Parity, dict[str, Similarity], Array]:
    """Run every part on what torch gave it, and the whole chain on the images.

    Args:
        reference: from :func:`torch_reference`.
        parts: ``stem`` first, then the branches in the reference's order.
        min_snr_db, min_top1_agreement: what every part and every prefix must reach.
        fused: the single-file model, compared with the sum of all branches.
        on_sample: called after each sample.

    Returns:
        The card's record, how near each part is, and the sums of every prefix, (n, k, num_outputs).

    Raises:
        ParityError: names the part that is off, and by how much.
    """
    names = list(parts)
    stem, branches = parts["stem"], [parts[name] for name in names[1:]]
    tokens = np.empty_like(reference.tokens)
    alone = np.empty_like(reference.branch_outputs)  # each branch fed with torch's tokens
    chained = np.empty_like(reference.branch_outputs)  # fed with the engine's own tokens
    whole = np.empty_like(reference.branch_outputs[:, 0])
    try:
        for number in range(len(reference.inputs)):
            image = reference.inputs[number : number + 1]
            tokens[number] = stem.run(image)[0]
            for place, branch in enumerate(branches):
                alone[number, place] = branch.run(reference.tokens[number : number + 1])[0]
                chained[number, place] = branch.run(tokens[number : number + 1])[0]
            if fused is not None:
                whole[number] = fused.run(image)[0]
            on_sample()
    except EngineError as error:
        raise ParityError(f"a lowered part does not run: {error}") from error

    thresholds = Thresholds(min_snr_db=min_snr_db, min_top1_agreement=min_top1_agreement, max_relative_error=None)
    similarities = {"stem": _check("stem", reference.tokens, tokens, min_snr_db)}
    for place, name in enumerate(names[1:]):
        wanted = reference.branch_outputs[:, place]
        similarities[name] = _check(name, wanted, alone[:, place], min_snr_db)
        _check(f"{name} after the stem", wanted, chained[:, place], min_snr_db)
    prefixes = []
    wanted_sums = reference.branch_outputs.cumsum(axis=1, dtype=np.float32)
    sums = chained.cumsum(axis=1, dtype=np.float32)
    for count in range(1, len(branches) + 1):
        name = f"the first {count} branch(es) together"
        prefixes.append(_check_prefix(name, wanted_sums[:, count - 1], sums[:, count - 1], thresholds))
    if fused is not None:
        _check_prefix("the fused model", wanted_sums[:, -1], whole, thresholds)
    parity = Parity(
        reference=f"torch {torch.__version__}",
        num_samples=len(reference.inputs),
        thresholds=thresholds,
        prefixes=tuple(prefixes),
        verdict="passed",
    )
    return parity, similarities, sums


def _check(name: str, wanted: Array, got: Array, min_snr_db: float) -> Similarity:
    if not np.isfinite(got).all():
        raise ParityError(
            f"{name}: the engine's output has {int((~np.isfinite(got)).sum())} values that are not finite"
        )
    if not got.any() and wanted.any():
        raise ParityError(f"{name}: the engine's output is all zero")
    similarity = compare(wanted, got)
    if not snr_at_least(similarity, min_snr_db):
        raise ParityError(
            f"{name}: SNR against torch is {similarity.snr_db} dB on real images, {min_snr_db} dB are needed "
            f"(cosine {similarity.cosine:.6f}, largest error {similarity.max_abs_error:.3g})"
        )
    return similarity


def _check_prefix(name: str, wanted: Array, got: Array, thresholds: Thresholds) -> PrefixParity:
    _check(name, wanted, got, thresholds.min_snr_db)
    prefix = compare_prefix(wanted, got, has_labels=True)
    if problem := prefix_shortfall(prefix, thresholds):
        raise ParityError(f"{name} {problem}")
    return prefix
