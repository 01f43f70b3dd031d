"""The state that an interrupted training run goes on from."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from paraedge.training.step import TrainingStep
from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError

__all__ = ["ResumeFile", "RunState"]


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    epochs_done: int
    train_seconds: float
    loss: float


class ResumeFile:
    """State after the last whole epoch. Written by torch, read back with ``weights_only``: nothing runs.

    ``run`` is what decides the weights: a file of another run is refused.
    """

    def __init__(self, path: Path, run: list[msgspec.Struct | int | str | None]) -> None:
        self.path = path
        self._run = msgspec.json.encode(run).decode()

    @classmethod
    def beside(
        cls, out: str | os.PathLike[str], step: TrainingStep, run: list[msgspec.Struct | int | str | None]
    ) -> ResumeFile:
        """``out`` + ``.resume``; where every process has a state of its own, each has a file of its own."""
        rank = step.parallel.rank if step.parallel.own_state else 0
        return cls(Path(f"{Path(out)}.resume{rank or ''}"), run)  # Path: "out/" is "out"

    def save(self, step: TrainingStep, state: RunState) -> None:
        """Replace the file by the state of now; ``InputError`` where the disk has no room."""
        stored = {
            "run": self._run,
            "model": step.model.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "average": None if step.average is None else step.average.state_dict(),
            "state": [state.epochs_done, state.train_seconds, state.loss],
        }
        try:
            with new_file(self.path) as building, building.open("wb") as file:
                torch.save(stored, file)
        # RuntimeError: of torch's writer, where the file could not be written to its end.
        except (OSError, RuntimeError) as error:
            problem = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            raise InputError(
                f"{self.path} cannot be written: {problem}; free space and run the same command again; it continues "
                "after the last epoch that was saved"
            ) from error

    def load(self, step: TrainingStep) -> RunState:
        """Put the saved state into ``step``; the start of a run where there is no file.

        Raises:
            InputError: it is damaged, belongs to another run, or processes saved after different epochs.
        """
        state = self._load(step)
        if step.parallel.first_says(state.epochs_done) != state.epochs_done:
            first = self.path.with_name(f"{self.path.name.rpartition('.resume')[0]}.resume")
            raise InputError(f"{self.path} and {first} were saved after different epochs; delete all of them")
        return state

    def _load(self, step: TrainingStep) -> RunState:
        if not self.path.exists():
            return RunState(0, 0.0, math.nan)
        try:
            stored = torch.load(self.path, map_location=next(step.model.parameters()).device, weights_only=True)
            if stored["run"] != self._run:
                raise InputError(
                    f"{self.path} belongs to a run with other settings; use the same ones to "
                    "continue it, or delete it to start again"
                )
            step.model.load_state_dict(stored["model"])
            step.optimizer.load_state_dict(stored["optimizer"])
            if step.average is not None:
                step.average.load_state_dict(stored["average"])
            return RunState(*stored["state"])
        except InputError:
            raise
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise InputError(f"{self.path} is damaged ({type(error).__name__}); delete it to start again") from error
