"""Expansion: new branches learn new data or new classes, beside old ones that stay exactly as they are."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec.structs import replace

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model.checkpoint import Checkpoint
from paraedge.model.extension import extended_config
from paraedge.training.config import TrainingConfig
from paraedge.training.loop import train
from paraedge_converters.request import fitting_name
from paraedge_runtime.errors import InputError

__all__ = ["extend", "extension_training"]


_SETTINGS = TrainingConfig.__struct_fields__


def extension_training(base: Checkpoint, branches: int, **changes: object) -> TrainingConfig:
    """How new branches are trained: as the old ones were, but for ``changes``; only their prefixes count.

    Settings of ``base`` that are not in ``TrainingConfig`` (of experiments, of other versions) are left out.

    Raises:
        InputError: the changes make no sense together.
    """
    num_old = base.config.model.num_branches
    known = {name: base.training.settings[name] for name in _SETTINGS if name in base.training.settings}
    settings = {**known, "prefix_weights": (0.0,) * num_old + (1.0,) * branches, **changes}
    settings["warmup_epochs"] = min(settings["warmup_epochs"], settings["epochs"] / 10)
    try:
        return msgspec.convert(settings, TrainingConfig)
    except (ValueError, msgspec.ValidationError) as error:
        raise InputError(str(error)) from error


def extend(
    base: Checkpoint,
    data: ImageDataset | SignalDataset,
    out: str | os.PathLike[str],
    *,
    branches: int,
    config: TrainingConfig | None = None,
    loader: str | None = None,
    depth: int | None = None,
    width: int | None = None,
    **options: Any,
) -> Checkpoint:
    """Train new branches beside those of ``base`` and write the checkpoint folder ``out``.

    The stem and the old branches are not changed, so neither are the outputs of the old prefixes. Classes of ``data``
    that ``base`` does not know become new labels after the old ones; the old branches add 0 to their logits. Include
    images of the old classes: a new branch that never sees them learns to lower their logits.

    Args:
        base: the trained network.
        data: images of old classes, new classes, or both, matched by name.
        out: folder to write.
        branches: number of branches to add.
        config: settings of the training; ``None`` for :func:`extension_training`.
        loader: see ``CheckpointConfig``.
        depth: blocks per new branch; ``None`` for as many as in the last old branch.
        width: channels of a new branch's convolutions; ``None`` as in the last old branch.
        options: further arguments of :func:`paraedge.training.train`.

    Raises:
        InputError: see :func:`paraedge.training.train`.
    """
    labels = base.config.labels + tuple(name for name in data.class_names if name not in base.config.labels)
    try:
        model = extended_config(base.config.model, branches, len(labels), depth=depth, width=width)
    except ValueError as error:
        raise InputError(str(error)) from error
    checkpoint_config = replace(
        base.config,
        name=fitting_name(base.config.name),
        description=f"{base.config.description}, and {branches} branch{'es' * (branches > 1)} on {data.name}",
        license=base.config.license
        if data.license == base.config.license
        else f"{base.config.license}; new branches: {data.license}",
        dataset=data.name,
        loader=loader,
        labels=labels,
        model=model,
    )
    return train(
        data.with_class_names(labels),
        checkpoint_config,
        config or extension_training(base, branches),
        out,
        base=base,
        **options,
    )
