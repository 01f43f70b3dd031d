"""One training step: forward, loss of all prefixes, backward, AdamW, moving average; on a GPU as one CUDA graph.

Letters in shape comments: N branches, B images.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from paraedge.model.paraformer import ParaFormer
from paraedge.training.augment import augment
from paraedge.training.batches import normalise
from paraedge.training.config import TrainingConfig
from paraedge.training.loss import branch_loss, prefix_sums, prefix_weights, progressive_loss
from paraedge.training.parallel import OneProcess
from paraedge.training.teacher import Teacher

__all__ = ["TrainingStep"]

# Steps run one kernel at a time before the graph is recorded: compilation and lazy set-up happen there.
_STEPS_BEFORE_GRAPH = 3
# A training has at least so many times the steps that its moving average reaches back.
_STEPS_TO_AVERAGES = 10


class TrainingStep:
    """Model, optimizer and running means, and the step that moves them.

    A step of a small network is thousands of small kernels. Launched one by one from Python they leave
    a GPU idle most of the time (measured: 56 of 66 ms), so on a GPU the step is recorded once
    as a CUDA graph and replayed. Batches of another size than the first are run without it.

    With ``num_frozen`` the stem, the first so many branches and their classifier stay exactly as they are.
    ``teacher`` sees the same images, and its predictions become a share of the targets.
    ``parallel`` says what this process does of the step; processes that share out the images go without the graph.
    Another rule of training overrides :meth:`compute_loss`, :attr:`augment` and :attr:`generators`.

    Attributes:
        augment: what changes the images of a batch at random before it comes here.
        generators: random numbers that the rule draws on the device.
    """

    augment = staticmethod(augment)
    generators: tuple[torch.Generator, ...] = ()

    def __init__(
        self,
        model: ParaFormer,
        config: TrainingConfig,
        device: torch.device,
        *,
        num_frozen: int = 0,
        teacher: Teacher | None = None,
        parallel: type[OneProcess] = OneProcess,
    ) -> None:
        self.device = device
        self.model = model.to(device)
        if model.pretrained_parts():  # separable convolutions are faster so
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self._num_frozen = num_frozen
        self._teacher = None if teacher is None else teacher.ready(device)
        self._frozen: list[nn.Module] = [model.stem, *model.branches[:num_frozen]] if num_frozen else []
        if config.feature_copies:
            self._frozen += model.pretrained_parts()
        for part in self._frozen:
            part.requires_grad_(False)
        self.parallel = parallel(model)
        self._is_cuda = device.type == "cuda"
        groups = _parameter_groups(model, config)
        for group in groups:
            rate = config.learning_rate
            group["lr"] = torch.tensor(rate, device=device) if self._is_cuda else rate
        self.optimizer = torch.optim.AdamW(groups, fused=self._is_cuda, capturable=self._is_cuda)
        self.average = copy.deepcopy(self.model) if config.ema_decay else None
        self._set_average_decay(config.ema_decay)
        self._weights = prefix_weights(model.config.num_branches, config.prefix_weights).to(device)
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros(model.config.num_branches, device=device, dtype=torch.int64)
        self._count = self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_inputs: tuple[Tensor, Tensor] | None = None

    def expect_steps(self, num_steps: int) -> None:
        """Shorten the moving average for a training of so few steps that most of it would be random weights."""
        self._set_average_decay(min(self.config.ema_decay, max(0.0, 1.0 - _STEPS_TO_AVERAGES / num_steps)))

    def _set_average_decay(self, decay: float) -> None:
        self._move_average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @property
    def trained(self) -> ParaFormer:
        """The network to keep: the moving average, if there is one."""
        return self.model if self.average is None else self.average

    def start_epoch(self, epoch: int) -> None:
        """Training mode, and means over nothing yet."""
        self.model.train()
        for part in self._frozen:
            part.eval()  # BatchNorm's running statistics too
        self._loss.zero_()
        self._correct.zero_()
        self._count = self._steps = 0

    def __call__(self, images: Tensor | list[Tensor], targets: Tensor, learning_rate: float) -> None:
        """One step on uint8 images (B, H, W, channels) and targets (B, C), from the CPU.

        With ``feature_copies`` it takes in place of images what a frozen backbone made of them, (B, c, h, w) for
        every branch.
        """
        for group in self.optimizer.param_groups:
            rate = learning_rate * group["rate_share"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._count += len(targets)
        self._steps += 1
        if isinstance(images, list):
            self._learn(self.model.feature_logits(images), targets, targets)
        elif not self._is_cuda:
            self._compute(images, targets)
        else:
            self._compute_on_gpu(images, targets)

    def compute_loss(self, branch_logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and logits of every prefix (N, B, C), of what every branch predicts (N, B, C) and targets (B, C)."""
        config = self.config
        prefix_logits = prefix_sums(branch_logits)
        loss = progressive_loss(
            prefix_logits,
            targets,
            self._weights,
            label_smoothing=config.label_smoothing,
            temperature_power=config.prefix_temperature_power,
        )
        if config.branch_weight:
            alone = branch_loss(branch_logits[self._num_frozen :], targets, config.label_smoothing)
            loss = torch.lerp(loss, alone, config.branch_weight)
        return loss, prefix_logits

    @property
    def loss(self) -> float:
        """Mean over the epoch so far. Waits for the device."""
        return float(self.parallel.mean(self._loss)) / max(self._steps, 1)

    @property
    def prefix_accuracy(self) -> tuple[float, ...]:
        """Of every prefix on the augmented images of the epoch so far. Waits for the device."""
        return tuple((self.parallel.mean(self._correct) / max(self._count, 1)).tolist())

    def _compute(self, images: Tensor, targets: Tensor) -> None:
        # Without its cache of casts, which would outlive the recording of a graph.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._is_cuda, cache_enabled=False):
            branch_logits = self.parallel.branch_logits(normalise(images, self.model.config))
            labels, targets = targets, self._taught(images, targets)
        self._learn(branch_logits, targets, labels)

    def _learn(self, branch_logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        """From what every branch predicts, (N, B, C): loss, gradients, weights, means."""
        loss, prefix_logits = self.compute_loss(branch_logits.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.parallel.share_gradients()
        norm = self.parallel.gradient_norm()
        nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.clip_norm, norm)
        self.optimizer.step()
        if self.average is not None:
            self._move_average(_float_tensors(self.average), _float_tensors(self.model), None)
        with torch.no_grad():
            self._loss += loss
            self._correct += (prefix_logits.argmax(dim=2) == labels.argmax(dim=1)).sum(dim=1)

    def _taught(self, images: Tensor, targets: Tensor) -> Tensor:
        """The targets (B, C) with the teacher's share: its prediction for these images (B, H, W, channels)."""
        if self._teacher is None:
            return targets
        prediction = self._teacher.logits(images).softmax(dim=1)
        return torch.lerp(targets, prediction, self.config.teacher_weight)

    def _compute_on_gpu(self, images: Tensor, targets: Tensor) -> None:
        device = self._loss.device
        if self._graph_inputs is None:
            self._graph_inputs = (
                torch.empty_like(images, device=device),
                torch.empty_like(targets, device=device),
            )
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._steps_before_graph = _STEPS_BEFORE_GRAPH
        if images.shape != self._graph_inputs[0].shape or not self.parallel.is_recordable:
            self._compute(images.to(device), targets.to(device))
            return
        for kept, new in zip(self._graph_inputs, (images, targets), strict=True):
            kept.copy_(new, non_blocking=True)
        if self._steps_before_graph:
            self._steps_before_graph -= 1
            self._stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(self._stream):
                self._compute(*self._graph_inputs)
            torch.cuda.current_stream(device).wait_stream(self._stream)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                self._graph.register_generator_state(generator)
            # thread_local: the thread that pins batches may go on allocating.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._compute(*self._graph_inputs)
        self._graph.replay()


def _float_tensors(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()]


def _parameter_groups(model: ParaFormer, config: TrainingConfig) -> list[dict[str, object]]:
    """Matrices with weight decay and the rest without, each again by learning rate; ``rate_share`` is of the peak."""
    pretrained = {id(parameter) for part in model.pretrained_parts() for parameter in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and not name.endswith("positions")
        share = config.backbone_rate if id(parameter) in pretrained else 1.0
        groups.setdefault((config.weight_decay if is_matrix else 0.0, share), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for (decay, share), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]
