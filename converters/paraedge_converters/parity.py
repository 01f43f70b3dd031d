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
from paraedge_runtime.engines import LoadedPart
from paraedge_runtime.errors import EngineError, ParityError
from paraedge_runtime.manifest import Parity, PrefixParity, Similarity
from paraedge_runtime.similarity import compare, snr_at_least, top1_agreement

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
) -> tuple[Parity, Array]:
    """Run every part on what torch gave it, and the whole chain on the images.

    Args:
        reference: from :func:`torch_reference`.
        parts: ``stem`` first, then the branches in the reference's order.
        min_snr_db, min_top1_agreement: what every part and every prefix must reach.
        fused: the single-file model, compared with the sum of all branches.
        on_sample: called after each sample.

    Returns:
        The manifest's record, and the answers of every prefix, (n, k, num_outputs).

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
        prefixes.append(
            _check_answer(name, wanted_sums[:, count - 1], sums[:, count - 1], min_snr_db, min_top1_agreement)
        )
    if fused is not None:
        _check_answer("the fused model", wanted_sums[:, -1], whole, min_snr_db, min_top1_agreement)
    parity = Parity(
        reference=f"torch {torch.__version__}",
        num_samples=len(reference.inputs),
        min_snr_db=min_snr_db,
        min_top1_agreement=min_top1_agreement,
        parts=similarities,
        prefixes=tuple(prefixes),
        verdict="passed",
    )
    return parity, sums


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


def _check_answer(name: str, wanted: Array, got: Array, min_snr_db: float, min_top1_agreement: float) -> PrefixParity:
    similarity = _check(name, wanted, got, min_snr_db)
    agreement = top1_agreement(wanted, got)
    if agreement < min_top1_agreement:
        raise ParityError(
            f"{name}: the same label as torch on {100 * agreement:.2f} % of real images, "
            f"{100 * min_top1_agreement:.2f} % are needed"
        )
    return PrefixParity(
        snr_db=similarity.snr_db,
        cosine=similarity.cosine,
        max_abs_error=similarity.max_abs_error,
        top1_agreement=agreement,
    )
