"""More branches on a trained network: the old ones stay as they are, and predict as before."""

from __future__ import annotations

from msgspec.structs import replace

from paraedge.model.config import ParaFormerConfig
from paraedge.model.paraformer import ParaFormer

__all__ = ["copy_old_parts", "extended_config"]


def extended_config(
    config: ParaFormerConfig,
    branches: int,
    num_classes: int,
    *,
    depth: int | None = None,
    width: int | None = None,
) -> ParaFormerConfig:
    """The shape with so many more branches, and perhaps more classes, which only the new branches know.

    Args:
        config: shape of the trained network.
        branches: how many to add.
        num_classes: of the extended network, the old ones first.
        depth: blocks of each new branch; those of the last old one when ``None``.
        width: channels of each new branch's own convolutions, likewise.

    Raises:
        ValueError: the result would be no network.
    """
    if branches < 1:
        raise ValueError(f"branches must be at least 1, got {branches}")
    if width is not None and config.branch_width is None:
        raise ValueError(
            f"width {width} is for branches with convolutions of their own; this model has none, leave it out"
        )
    known = (*config.known_classes, *(num_classes,) * branches)
    widths = (*config.branch_widths, *(width or config.branch_widths[-1],) * branches)
    stages = (*config.branch_stages, *config.branch_stages[-1:] * branches)
    return replace(
        config,
        num_branches=config.num_branches + branches,
        num_classes=num_classes,
        branch_depth=(*config.branch_depths, *(depth or config.branch_depths[-1],) * branches),
        branch_width=None if config.branch_width is None else widths,
        branch_stage=None if config.branch_stage is None else stages,
        branch_classes=None if len(set(known)) == 1 else known,
    )


def copy_old_parts(trained: ParaFormer, extended: ParaFormer) -> None:
    """Stem, branches and classifier of ``trained`` become the first ones of ``extended``.

    Raises:
        ValueError: ``extended`` does not start with the network that ``trained`` is.
    """
    state = trained.state_dict()
    own = extended.state_dict()
    wrong = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise ValueError(f"the network lacks {wrong[0]} {tuple(state[wrong[0]].shape)} of the one it extends")
    extended.load_state_dict(state, strict=False)
