"""Train a network that is not in the package as ``paraedge train`` would: the same batches, steps and average."""

from __future__ import annotations

import torch

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model import ParaFormer
from paraedge.training.batches import TrainingBatches, training_batches
from paraedge.training.config import TrainingConfig
from paraedge.training.loop import learning_rate
from paraedge.training.step import TrainingStep


def trained(
    model: ParaFormer, data: ImageDataset | SignalDataset, config: TrainingConfig, device: str = "cpu"
) -> ParaFormer:
    """The network to keep, on ``device``; a line for each epoch is printed."""
    step = TrainingStep(model, config, torch.device(device))
    inputs, labels = (torch.from_numpy(array).to(device) for array in (data.train.inputs, data.train.labels))
    channel_names = data.channel_names if isinstance(data, SignalDataset) else ()
    split = TrainingBatches(inputs, labels, len(data.class_names), config, channel_names=channel_names)
    step.expect_steps(config.epochs * split.steps_per_epoch)
    batches = training_batches(split, 0)
    for epoch in range(config.epochs):
        step.start_epoch(epoch)
        for number in range(split.steps_per_epoch):
            step(*next(batches), learning_rate(config, epoch + number / split.steps_per_epoch))
        print(f"epoch {epoch + 1}, loss {step.loss:.3f}", flush=True)
    return step.trained
