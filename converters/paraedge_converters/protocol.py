"""What a network must offer to be split, exported and run in branches: the ``BranchModel`` protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import nn

from paraedge_runtime.manifest import InputSpec

__all__ = ["BranchModel", "ModuleSequence"]


class ModuleSequence(Protocol):
    """What ``nn.ModuleList``, a list and a tuple of modules have in common."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> nn.Module: ...

    def __iter__(self) -> Iterator[nn.Module]: ...


class BranchModel(Protocol):
    """A stem, and branches that each read the stem's output and whose outputs add up.

    The branches may be any modules. The contract:

    * ``stem(x)`` takes ``input_spec.shape`` and returns one float tensor, batch first;
    * each of ``branches`` takes that tensor and returns (1, ``num_outputs``) additive outputs;
    * the output of several branches is the sum of their outputs, so a shared bias must not be added twice;
    * in eval mode every part is deterministic and can be exported by ``torch.export``.
    """

    @property
    def stem(self) -> nn.Module:
        """Input -> what every branch reads."""

    @property
    def branches(self) -> ModuleSequence:
        """Side by side, in the order in which a prefix grows."""

    @property
    def input_spec(self) -> InputSpec:
        """Shape and normalisation of one input."""

    @property
    def num_outputs(self) -> int:
        """Length of the output."""
