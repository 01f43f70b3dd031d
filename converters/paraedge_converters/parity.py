"""The parity gate: no bundle exists unless the real engine computes what torch computes, on real inputs.

Noise would not do: networks have passed on random input and failed on every photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from paraedge_converters.copying import copy_module
from paraedge_converters.protocol import BranchModel
from paraedge_converters.widening import has_half_precision, widened
from paraedge_runtime.card import Parity, PrefixParity, Similarity, Thresholds
from paraedge_runtime.engines import LoadedPart
from paraedge_runtime.errors import EngineError, ParityError, UnsupportedModel
from paraedge_runtime.similarity import (
    common_factor,
    compare,
    compare_prefix,
    prefix_name,
    prefix_shortfall,
    snr_at_least,
)
from paraedge_runtime.tolerances import Tolerance

__all__ = ["Reference", "check_parity", "torch_reference"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """What torch computes for n inputs.

    Attributes:
        inputs: (n, …), normalised.
        tokens: (n, …), output of the stem.
        branch_outputs: (n, k, num_outputs), of the chosen branches.
    """

    inputs: Array
    tokens: Array
    branch_outputs: Array

    @property
    def prefixes(self) -> Array:
        """(n, k, num_outputs), sums of the first 1, 2, … branches."""
        sums: Array = self.branch_outputs.cumsum(axis=1, dtype=np.float32)
        return sums


def torch_reference(model: BranchModel, branches: Sequence[int], inputs: Array) -> Reference:
    """Run copies of the original modules, unfolded and in float32, on ``inputs`` (n, …).

    Raises:
        UnsupportedModel: torch itself computes numbers that are not finite; the message names the parameter
            or buffer where they come from.
    """
    with torch.no_grad():
        tokens = _run("stem", model.stem, torch.from_numpy(inputs))
        outputs = [_run(f"branch_{index:02d}", model.branches[index], tokens) for index in branches]
    # torch may lay a convolution's output out channels last; parts are promised C-contiguous input.
    stacked = torch.stack(outputs, dim=1)
    return Reference(inputs, np.ascontiguousarray(tokens.numpy()), np.ascontiguousarray(stacked.numpy()))


def _run(name: str, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    copied = copy_module(module, name)
    form = widened(copied, x[:1]) if has_half_precision(copied) else copied
    output = torch.cat([form(one[None]) for one in x])  # as on the device: a part may take batch 1 only
    if output.isfinite().all():
        return output
    count = int((~output.isfinite()).sum())
    for path, tensor in [*copied.named_parameters(), *copied.named_buffers()]:
        if not tensor.isfinite().all():
            raise UnsupportedModel(
                f"{name} returns {count} non-finite values in torch, because its {path!r} has "
                f"{int((~tensor.isfinite()).sum())} of them; train it again or load an earlier checkpoint"
            )
    raise UnsupportedModel(
        f"{name} returns {count} non-finite values in torch, although its parameters are finite; "
        "look for a division by zero, a logarithm or an overflow in it"
    )


def check_parity(
    reference: Reference,
    parts: Mapping[str, LoadedPart],
    tolerance: Tolerance,
    *,
    has_labels: bool = True,
    on_sample: Callable[[], None] = lambda: None,
) -> tuple[Parity, dict[str, Similarity], Array]:
    """Run every part on what torch gave it, and the whole chain on the inputs.

    Args:
        reference: from :func:`torch_reference`.
        parts: ``stem`` first, then the branches in the reference's order; ``fused``, if it is there, is compared
            with the sum of all branches.
        tolerance: the limits.
        has_labels: whether the outputs are logits; of vectors the relative error counts, not the label.
        on_sample: called after each sample.

    Returns:
        The card's record, how near each part is, and what the engine computes for every prefix, (n, k, num_outputs).

    Raises:
        ParityError: names the part that is off, and by how much.
    """
    tokens, alone, chained, fused = _run_engine(reference, parts, on_sample)
    names = [name for name in parts if name not in ("stem", "fused")]
    similarities = {"stem": _check("stem", reference.tokens, tokens, tolerance)}
    for position, name in enumerate(names):
        output = reference.branch_outputs[:, position]
        similarities[name] = _check(name, output, alone[:, position], tolerance)
        _check(f"{name} after the stem", output, chained[:, position], tolerance)
    thresholds = tolerance.thresholds(has_labels=has_labels, num_inputs=len(reference.inputs))
    wanted, sums = reference.prefixes, chained.cumsum(axis=1, dtype=np.float32)
    prefixes = []
    for position in range(len(names)):
        what = prefix_name(position + 1)
        prefixes.append(_check_prefix(what, wanted[:, position], sums[:, position], tolerance, thresholds))
    if fused is not None:
        _check_prefix("the fused model", wanted[:, -1], fused, tolerance, thresholds)
    parity = Parity(
        reference=f"torch {torch.__version__}",
        num_samples=len(reference.inputs),
        thresholds=thresholds,
        prefixes=tuple(prefixes),
        verdict="passed",
    )
    return parity, similarities, sums


def _run_engine(
    reference: Reference, parts: Mapping[str, LoadedPart], on_sample: Callable[[], None]
) -> tuple[Array, Array, Array, Array | None]:
    """The stem's output, each branch's from torch's tokens and from the engine's own, and the fused model's."""
    stem, fused = parts["stem"], parts.get("fused")
    branches = [part for name, part in parts.items() if name not in ("stem", "fused")]
    tokens = np.empty_like(reference.tokens)
    alone = np.empty_like(reference.branch_outputs)
    chained = np.empty_like(reference.branch_outputs)
    whole = np.empty_like(reference.branch_outputs[:, 0])
    try:
        for number in range(len(reference.inputs)):
            one = slice(number, number + 1)
            tokens[number] = stem.run(reference.inputs[one])[0]
            for position, branch in enumerate(branches):
                alone[number, position] = branch.run(reference.tokens[one])[0]
                chained[number, position] = branch.run(tokens[one])[0]
            if fused is not None:
                whole[number] = fused.run(reference.inputs[one])[0]
            on_sample()
    except EngineError as error:
        raise ParityError(f"a lowered part fails: {error}") from error
    return tokens, alone, chained, None if fused is None else whole


def _check(name: str, wanted: Array, got: Array, tolerance: Tolerance) -> Similarity:
    if not np.isfinite(got).all():
        raise ParityError(
            f"{name}: the engine's output has {int((~np.isfinite(got)).sum())} values that are not finite"
        )
    if not got.any() and wanted.any():
        raise ParityError(f"{name}: the engine's output is all zero")
    similarity = compare(wanted, got)
    if not snr_at_least(similarity, tolerance.min_snr_db):
        raise ParityError(
            f"{name}: SNR against torch is {similarity.snr_db} dB on real inputs, below {tolerance.min_snr_db} dB "
            f"(cosine {similarity.cosine:.6f}, largest error {similarity.max_abs_error:.3g})"
        )
    scale = common_factor(wanted, got)
    if abs(scale - 1) > tolerance.max_scale_error:
        raise ParityError(
            f"{name}: the engine's output is {scale:.3f} times torch's on real inputs; "
            f"{1 - tolerance.max_scale_error:g} to {1 + tolerance.max_scale_error:g} is allowed"
        )
    return similarity


def _check_prefix(name: str, wanted: Array, got: Array, tolerance: Tolerance, thresholds: Thresholds) -> PrefixParity:
    _check(name, wanted, got, tolerance)
    prefix = compare_prefix(wanted, got, has_labels=thresholds.min_top1_agreement is not None)
    if problem := prefix_shortfall(prefix, thresholds):
        least = thresholds.min_top1_agreement
        why = (
            ""
            if least in (None, tolerance.min_top1_agreement)
            else f" (the limit for {100 * tolerance.min_top1_agreement:g} % on {len(wanted)} inputs)"
        )
        raise ParityError(f"{name} {problem}{why}")
    return prefix
