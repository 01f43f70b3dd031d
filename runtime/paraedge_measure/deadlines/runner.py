"""Runs a cell: policies take turns in blocks, on the same requests, under the same interference."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
import uuid
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.deadlines.arrivals import arrival_pattern
from paraedge_measure.deadlines.cells import Cell
from paraedge_measure.deadlines.interference import open_interference
from paraedge_measure.deadlines.oracles import (
    ORACLE_DYNAMIC,
    ORACLE_FIRST,
    ORACLE_STATIC,
    Trace,
    replay_dynamic,
    replay_static,
)
from paraedge_measure.deadlines.policies import Known, Policy, make_policy
from paraedge_measure.deadlines.records import FORMAT, Header, Outcomes, Record
from paraedge_measure.deadlines.serving import (
    FAR_S,
    LEAD_S,
    WARM,
    Block,
    Served,
    record_block,
    run_every_branch,
    serve_block,
)
from paraedge_measure.device import Device, encode_device
from paraedge_measure.latency import known_latency
from paraedge_runtime import Bundle, Session
from paraedge_runtime._arguments import as_callable, as_instance, as_whole
from paraedge_runtime.cores import available_cores
from paraedge_runtime.errors import EngineError, InputError
from paraedge_runtime.inputs import check_input

__all__ = ["ORACLES", "Bench"]

ORACLES = (ORACLE_STATIC, ORACLE_DYNAMIC, ORACLE_FIRST)

LEAST_RUNS, LEAST_S = 100, 1.0  # of the unloaded measurement
FAMILIAR = 30  # requests that every policy sees before the interference begins, for those that learn

Progress = Callable[[int], None]


class Bench:
    """A bundle to benchmark on this machine. Its unloaded times are measured when it is created.

    Attributes:
        header: the fields that all records share.
        full_s: median time of the full model, by the caller's clock.
        known: what the policies are told.
    """

    def __init__(
        self,
        bundle: Bundle,
        images: NDArray[np.uint8] | NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        source: str,
        engine: str | None = None,
        threads: int | None = None,
        profile: Device | None = None,
        block: int = 64,
        on_progress: Progress = lambda count: None,
    ) -> None:
        """Run every image once, then measure the unloaded machine.

        Args:
            bundle: what is measured.
            images: (M, H, W, C) uint8, or (M, ...) float32 where the bundle reads tensors; requests are drawn from
                them.
            labels: (M,), the class index of each image.
            source: where they are from.
            engine: as ``Session.open`` takes it.
            threads: as ``Session.open`` takes it.
            profile: of this device, for paraedge's own policies; they learn its speed when ``None``.
            block: requests that one policy serves before another takes its turn.
            on_progress: called with a number of images that were run.

        Raises:
            InputError: no images, labels that are not theirs or not the bundle's, or a block below 1.
            ProfileError: ``profile`` is not of this device and bundle.
            EngineError: a branch does not work: accuracy would mean nothing.
        """
        as_instance("bundle", bundle, Bundle)
        as_instance("images", images, np.ndarray)
        as_instance("labels", labels, np.ndarray)
        as_callable("on_progress", on_progress)
        if as_whole("block", block, least=0) < 1:
            raise InputError(f"--block must be at least 1, got {block}")
        manifest = bundle.manifest
        if not images.ndim or not len(images):
            raise InputError(f"{source} has no images; measuring accuracy needs some")
        if labels.shape != (len(images),):
            raise InputError(
                f"{source}: {len(images)} images have labels of shape {labels.shape}; every image needs one"
            )
        if labels.min() < 0 or labels.max() >= manifest.num_outputs:
            raise InputError(
                f"{source}: labels run from {labels.min()} to {labels.max()}, "
                f"the bundle has {manifest.num_outputs} outputs"
            )
        check_input(images[0], manifest.input)  # a session would resize others, and the time be measured
        self._images, self._labels = images, labels
        latency = known_latency(profile, bundle, engine=engine, threads=threads)
        self._open: Callable[[], Session] = lambda: Session.open(
            bundle, engine=engine, threads=threads, latency=latency
        )
        self._shared = self._open()
        try:
            # (K, M): whether the first 1, 2, … branches name image m
            self._prefix_correct = self._classify(on_progress)
            prefix_accuracy = tuple(round(float(value), 6) for value in self._prefix_correct.mean(axis=1))
            published = bundle.card.accuracy
            accuracy = prefix_accuracy if published is None else published.prefix_accuracy
            self.full_s, stage_s, return_s = self._measure_unloaded()
            self.known = Known(stage_s, return_s, accuracy)
        except BaseException:
            self.close()
            raise
        self.header = Header(
            format=FORMAT,
            bundle=manifest.name,
            bundle_sha256=bundle.sha256,
            engine=self._shared.engine.description,
            threads=self._shared.threads,
            profile=None if profile is None else hashlib.sha256(encode_device(profile)).hexdigest(),
            cores=available_cores(),
            images=f"{len(images)} images, {source}",
            images_sha256=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
            prefix_accuracy=prefix_accuracy,
            block=block,
        )

    def _classify(self, on_progress: Progress) -> NDArray[np.bool_]:
        rows = []
        for image, label in zip(self._images, self._labels, strict=True):
            prediction = self._shared.run(image)
            if prediction.branches_dropped:
                drop = prediction.branches_dropped[0]
                raise EngineError(f"branch {drop.index} was dropped: {drop.reason}; accuracy needs every branch")
            rows.append(prediction.prefix_outputs.argmax(axis=1) == label)
            on_progress(1)
        return np.array(rows).T

    def _measure_unloaded(self) -> tuple[float, tuple[float, ...], float]:
        """Median seconds of the full model; until 1, 2, … branches are in; and from there to the caller."""
        full: list[float] = []
        stages: list[list[float]] = []
        returns: list[float] = []
        begin = time.monotonic()
        while len(full) < LEAST_RUNS or time.monotonic() - begin < LEAST_S:
            image = self._images[len(full) % len(self._images)]
            start = time.monotonic()
            self._shared.run(image)
            full.append(time.monotonic() - start)
            durations, ends_s = run_every_branch(self._shared, image)
            stages.append(ends_s)
            returns.append(durations.return_s)
        return (
            float(np.median(full)),
            tuple(float(value) for value in np.median(stages, axis=0)),
            float(np.median(returns)),
        )

    def close(self) -> None:
        """Stop the threads and free the programs."""
        self._shared.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def expected_s(self, cell: Cell, num_policies: int) -> float:
        """Estimated duration of ``run_cell`` with this many policies, including the recording for the oracles."""
        deadline_s = cell.deadline * self.full_s
        serving_s = min(self.full_s, deadline_s)
        blocks = -(-cell.requests // self.header.block)
        total_s = cell.requests * serving_s if arrival_pattern(cell.arrivals).closed else self._arrivals_s(cell, 0)[-1]
        between_s = WARM * serving_s + LEAD_S + self.full_s
        return num_policies * float(total_s + blocks * between_s + FAMILIAR * serving_s)

    def check(self, policy: str) -> None:
        """Serve one request by a policy.

        Raises:
            ParaEdgeError: the policy does not work with this bundle, such as early stop without thresholds.
        """
        with contextlib.ExitStack() as sessions:
            serve = self._policy(policy, sessions)
            serve(self._images[0], time.monotonic() + FAR_S, ())

    def run_cell(
        self,
        cell: Cell,
        policies: Sequence[str],
        seed: int,
        *,
        oracles: bool = True,
        on_progress: Progress = lambda count: None,
    ) -> list[Record]:
        """Measure the policies in turns, then replay the oracles.

        Args:
            cell: what to measure.
            policies: names; every round has a new random order.
            seed: seed of arrivals, images, order and the phase of the square wave.
            oracles: also record durations, in turns with the policies, and replay the oracles.
            on_progress: called with a number of requests that were served.

        Raises:
            InputError, DeviceError: this machine cannot run the interference.
            EngineError: a part failed.
        """
        blocks = self._blocks(cell, seed)
        deadline_s = cell.deadline * self.full_s
        rng = np.random.default_rng([seed, 3])
        turns: list[str | None] = [*policies, *([None] if oracles else [])]  # None: recording for the oracles
        served = {name: Served(cell.requests) for name in policies}
        traces: list[Trace] = []
        with contextlib.ExitStack() as sessions:
            serving = {name: self._policy(name, sessions) for name in policies}
            for image in itertools.islice(itertools.cycle(blocks[0].images), FAMILIAR):
                for policy in serving.values():
                    policy(image, time.monotonic() + deadline_s, ())
            with open_interference(cell.interference, cell.interference_settings) as align:
                for block in blocks:
                    for turn in rng.permutation(len(turns)):
                        name = turns[turn]
                        if name is None:
                            traces.append(record_block(self._shared, block, align))
                        else:
                            serve_block(serving[name], block, align, served[name])
                        on_progress(len(block.images))
        run = uuid.uuid4().hex[:12]
        records = [
            Record.of(
                done.outcomes(deadline_s), cell=cell, policy=name, seed=seed, run=run, full_s=self.full_s,
                cpu_s=done.cpu_s,
            )
            for name, done in served.items()
        ]  # fmt: skip
        if oracles:
            records += [
                Record.of(outcomes, cell=cell, policy=name, seed=seed, run=run, full_s=self.full_s, cpu_s=None)
                for name, outcomes in self._replay(traces, blocks, self._order(cell, seed)).items()
            ]
        return records

    def _policy(self, name: str, sessions: contextlib.ExitStack) -> Policy:
        return make_policy(name, self.known, self._shared, lambda: sessions.enter_context(self._open()))

    def _order(self, cell: Cell, seed: int) -> NDArray[np.int64]:
        """(requests,) which image each request is: every image once, then all again in another order."""
        rng = np.random.default_rng([seed, 2])
        count = len(self._images)
        laps = -(-cell.requests // count)
        return np.concatenate([rng.permutation(count) for _ in range(laps)])[: cell.requests]

    def _arrivals_s(self, cell: Cell, seed: int) -> NDArray[np.float64]:
        return arrival_pattern(cell.arrivals).times(
            cell.requests,
            full_s=self.full_s,
            deadline_s=cell.deadline * self.full_s,
            load=cell.load or None,
            seed=seed,
        )

    def _blocks(self, cell: Cell, seed: int) -> list[Block]:
        arrivals_s = self._arrivals_s(cell, seed)
        order = self._order(cell, seed)
        rng = np.random.default_rng([seed, 4])
        return [
            Block(
                place=slice(start, start + self.header.block),
                images=self._images[order[start : start + self.header.block]],
                labels=self._labels[order[start : start + self.header.block]],
                offsets_s=arrivals_s[start : start + self.header.block] - arrivals_s[start],
                deadline_s=cell.deadline * self.full_s,
                closed=arrival_pattern(cell.arrivals).closed,
                phase_s=rng.uniform(0, cell.square_period_s),
                settle_s=self.full_s,
            )
            for start in range(0, cell.requests, self.header.block)
        ]

    def _replay(self, traces: list[Trace], blocks: list[Block], order: NDArray[np.int64]) -> dict[str, Outcomes]:
        accuracy = self.known.accuracy

        def replayed(replay: Callable[..., NDArray[np.int64]], choice: object) -> Outcomes:
            counts = np.concatenate(
                [
                    replay(
                        choice, trace, block.offsets_s.tolist(), block.deadline_s, self._shared.threads,
                        closed=block.closed,
                    )
                    for trace, block in zip(traces, blocks, strict=True)
                ]
            )  # fmt: skip
            return self._replayed(counts, order)

        static = [replayed(replay_static, count) for count in range(1, len(accuracy) + 1)]
        return {
            ORACLE_STATIC: max(static, key=lambda outcomes: int(outcomes.correct.sum())),
            ORACLE_DYNAMIC: replayed(replay_dynamic, accuracy),
            ORACLE_FIRST: static[0],
        }

    def _replayed(self, counts: NDArray[np.int64], order: NDArray[np.int64]) -> Outcomes:
        missed = counts == 0
        correct = ~missed & self._prefix_correct[np.maximum(counts, 1) - 1, order]
        return Outcomes(np.full(len(counts), np.nan), counts, missed, correct)
