"""A session: a bundle's parts loaded into an engine, and threads that run its branches in parallel."""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._arguments import as_choice, as_flag, as_instance, as_whole, choose_branches, shown
from paraedge_runtime._input_kinds import as_input, exact_shapes
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.core import core_problem
from paraedge_runtime.cores import available_cores
from paraedge_runtime.engines import Engine, check_delegates, engine_info, open_engine
from paraedge_runtime.engines.base import SessionOptions
from paraedge_runtime.errors import EngineError, EngineUnavailable, InputError
from paraedge_runtime.inputs import check_input
from paraedge_runtime.latency import Latency
from paraedge_runtime.manifest import BranchEntry, PartEntry
from paraedge_runtime.prediction import Prediction, RawPrediction
from paraedge_runtime.sequential import SequentialSession
from paraedge_runtime.signature import TrustedKeys

__all__ = ["OVERLOADS", "POLICIES", "Session", "choose_threads"]


class _TorchTensor(Protocol):
    def detach(self) -> Any: ...


class _PilImage(Protocol):
    def convert(self, mode: str) -> Any: ...


Image = NDArray[np.uint8] | NDArray[np.float32] | str | os.PathLike[str] | _TorchTensor | _PilImage

# Which branches are started under a budget.
POLICIES = {
    "anytime": "those that will probably end in time, decided anew whenever one ends",
    "all": "every one, however late it may be",
}

# What becomes of a request that will probably have no prediction before its deadline.
OVERLOADS = {
    "run": "it runs, and its prediction comes late",
    "drop": "it is refused at once: RequestDropped is raised",
}


class _Request(NamedTuple):
    """The arguments of the core's ``run``."""

    first_branches: int = 0
    branches: Sequence[int] | None = None
    deadline_s: float = math.inf
    leave_s: float = math.inf
    all: bool = False
    early_stop: bool = False
    on_prediction: Any = None
    is_cancelled: Any = None
    drop: bool = False


_NOBODY: Sequence[float] = ()  # waits
_EVERYTHING = _Request()  # made once: what Python does is cold after a request


class Session:
    """Runs one bundle. Sessions may share a ``Bundle``.

    Use one session per calling thread: calls from several threads are safe, but run one after another, the one with
    the earliest deadline first. ``close`` waits for calls in progress.

        with Session.open("model.paraedge", threads=4) as session:
            prediction = session.run(image)                  # all branches
            prediction = session.run(image, budget_ms=12)    # the best prediction there is after 12 ms
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        core: Any,
        branches: tuple[int, ...],
        description: str,
        temperatures: tuple[float, ...],
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.threads: int = core.threads
        self._labels = bundle.manifest.labels
        self._description = description
        self._temperatures = temperatures
        self._core = core
        self._exact_shapes = exact_shapes(bundle.manifest.input)
        self._branches = branches
        self._pid = os.getpid()

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        *,
        engine: str | None = None,
        threads: int | None = None,
        branches: int | Sequence[int] | None = None,
        latency: Latency | None = None,
        trusted_keys: TrustedKeys | None = None,
    ) -> Session:
        """Load a bundle into its engine.

        Args:
            bundle: an open bundle, or the path of one.
            engine: an engine that can run the bundle's files; ``None`` for the bundle's own.
            threads: number of threads that run branches, including the caller's; at most one per branch. ``None``:
                one per branch, up to the number of cores.
            branches: branches to load: a count (the first ones) or indexes; ``None`` for all.
            latency: measured latency of the parts on this device, from ``paraedge_measure.known_latency``; budgets
                then hold from the first request. ``None``: it is learned in the first twenty requests.
            trusted_keys: require a signature by one of these keys; see ``Bundle.open``. Only for a path.

        Raises:
            BundleError: the bundle is damaged or not trusted.
            EngineUnavailable: the engine is not installed, or older than the bundle needs, or a part is for a delegate
                that this machine lacks.
            EngineError: the engine refuses a part.
            InputError: ``bundle``, ``engine``, ``threads``, ``branches``, ``latency`` or ``trusted_keys`` is invalid.
        """
        if not isinstance(bundle, Bundle | str | os.PathLike):
            raise InputError(f"the bundle must be a path or an open Bundle, got {shown(bundle)}")
        known = Latency(()) if latency is None else as_instance("latency", latency, Latency)
        if isinstance(bundle, Bundle) and trusted_keys is not None:
            raise InputError("trusted_keys are for the path of a bundle; pass them to Bundle.open")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, trusted_keys=trusted_keys)
        manifest = opened.manifest
        name = manifest.engine if engine is None else engine
        suffix = engine_info(name).suffix
        if not all(part.file.endswith(suffix) for part in manifest.parts().values()):
            raise InputError(
                f"engine {name!r} runs {suffix} files, {opened.path} was made for {manifest.engine!r}; "
                f"export it again with --engine {name}"
            )
        chosen = choose_branches(branches, manifest.branch_indexes)
        check_delegates(name, manifest.parts().values())
        loaded_engine = open_engine(name)
        _check_version(loaded_engine, manifest.engine_min_version)
        calibrated = manifest.stop_rules
        is_prefix = chosen == manifest.branch_indexes[: len(chosen)]
        options = SessionOptions(
            threads=choose_threads(threads, loaded_engine, len(chosen)),
            part_ms=tuple(known.part_ms),
            contention=tuple(known.contention),
            # Thresholds promise something against all branches together, temperatures fit a prefix.
            stop_rules=calibrated if calibrated and chosen == manifest.branch_indexes else (),
            temperatures=tuple(rule.temperature for rule in calibrated[: len(chosen)])
            if calibrated and is_prefix
            else (),
            has_labels=bool(manifest.labels),
        )
        parts = [
            (part_name, opened.read(entry), entry)
            for part_name, entry in manifest.parts().items()
            if not isinstance(entry, BranchEntry) or entry.index in chosen
        ]
        core, description = _open_core(loaded_engine, parts, opened, options)
        return cls(opened, loaded_engine, core, chosen, description, options.temperatures)

    @property
    def branches(self) -> tuple[int, ...]:
        """Indexes of the branches that are loaded."""
        return self._branches

    @overload
    def run(
        self,
        image: Image,
        *,
        branches: int | Sequence[int] | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = _NOBODY,
        policy: str = "anytime",
        on_overload: str = "run",
        early_stop: bool = False,
        min_confidence: float | None = None,
    ) -> Prediction: ...

    @overload
    def run(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        branches: int | Sequence[int] | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = _NOBODY,
        policy: str = "anytime",
        on_overload: str = "run",
        early_stop: bool = False,
        min_confidence: float | None = None,
    ) -> list[Prediction]: ...

    def run(
        self,
        image: Image | list[Any] | tuple[Any, ...],
        *,
        branches: int | Sequence[int] | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = _NOBODY,
        policy: str = "anytime",
        on_overload: str = "run",
        early_stop: bool = False,
        min_confidence: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Run the stem, then branches in parallel, and add up their outputs.

        Under a budget the first branch always runs; another branch starts if it will probably finish in time. The
        prediction is returned at the deadline with the finished branches. If none has finished by then, it is
        returned late, and ``deadline_met`` is false. A failing branch does not fail the request: a branch that fails,
        or whose output is not finite, is dropped, and ``Prediction.explain`` says why. Outputs are added in branch
        order, so the result does not depend on the number of threads.

        Args:
            image: the path of an image, a PIL image, or a uint8 image in numpy or torch: (H, W, C), (H, W), or
                (C, H, W) if C is the bundle's number of channels. Images of another size are scaled (needs Pillow).
                Or float32 (1, C, H, W), already normalised. For a bundle that reads tensors: float32 of its shape,
                or the path of a ``.npy`` file. A list or tuple of these returns a list of predictions.
            branches: branches to run: a count (the first loaded ones) or indexes.
            budget_ms: time limit in milliseconds from now, including reading and scaling; with a list, the limit of
                each image once all have been read.
            deadline_s: the time limit as a point in time of ``time.monotonic()``.
            waiting_s: deadlines of the requests waiting behind this one, soonest first. Only the first branch may
                take time that one of them needs for a prediction of its own.
            policy: a key of ``POLICIES``.
            on_overload: a key of ``OVERLOADS``: what becomes of a request that will probably have no prediction before
                its deadline, since it waits behind others or the first branch takes too long.
            early_stop: return the first prefix whose confidence reaches the threshold calibrated at export.
            min_confidence: above 0, at most 1. A prediction with a lower confidence is unknown, and its ``label`` is
                ``None``; what runs does not change.

        Raises:
            InputError: ``image`` does not fit the bundle, or an argument is invalid.
            RequestDropped: see ``on_overload``.
            EngineError: the stem or every branch failed, the session is closed, it was opened before this process was
                forked, or this is called from a request of its own (by an engine, or in a signal's handler).
        """
        if isinstance(image, (list, tuple)):
            return [
                self.run(
                    one,
                    branches=branches,
                    budget_ms=budget_ms,
                    deadline_s=deadline_s,
                    waiting_s=waiting_s,
                    policy=policy,
                    on_overload=on_overload,
                    early_stop=early_stop,
                    min_confidence=min_confidence,
                )
                for one in self._as_inputs(image)
            ]
        if (
            branches is budget_ms is deadline_s is min_confidence is None
            and early_stop is False
            and isinstance(policy, str)
            and policy == "anytime"
            and isinstance(on_overload, str)
            and on_overload == "run"
            and waiting_s is _NOBODY
        ):
            return self._run(image, _EVERYTHING)
        request = self._request(branches, budget_ms, deadline_s, policy, on_overload, early_stop)
        return self._run(image, request, _points_in_time(waiting_s), self._least(min_confidence))

    async def arun(
        self,
        image: Image,
        *,
        branches: int | Sequence[int] | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = _NOBODY,
        policy: str = "anytime",
        on_overload: str = "run",
        early_stop: bool = False,
        min_confidence: float | None = None,
    ) -> Prediction:
        """``run`` for asyncio, without blocking the event loop: one image, no list. The budget counts from the call."""
        _refuse_list(image)
        request = self._request(branches, budget_ms, deadline_s, policy, on_overload, early_stop)
        points_s, least = _points_in_time(waiting_s), self._least(min_confidence)
        return await asyncio.to_thread(self._run, image, request, points_s, least)

    def stream(
        self,
        image: Image,
        *,
        branches: int | Sequence[int] | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        policy: str = "anytime",
        on_overload: str = "run",
        early_stop: bool = False,
        min_confidence: float | None = None,
    ) -> Iterator[Prediction]:
        """Yield improving predictions for one image (no list): after the first branch, then as more finish.

        The last prediction is what ``run`` would have returned. To stop the request, stop iterating: no further
        branch starts, and none is waited for. The request runs in its own thread, from the first ``next``; the budget
        counts from the call.
        """
        _refuse_list(image)
        request = self._request(branches, budget_ms, deadline_s, policy, on_overload, early_stop)
        return self._stream(image, request, self._least(min_confidence))

    def _stream(self, image: Image, request: _Request, min_confidence: float) -> Iterator[Prediction]:
        predictions: SimpleQueue[Prediction | BaseException | None] = SimpleQueue()  # None: there are no more
        pid = os.getpid()
        wanted = True

        def tell(raw: RawPrediction) -> bool:
            predictions.put(Prediction(raw, self._labels, self._description, self._temperatures, min_confidence))
            return wanted

        def work() -> None:
            try:
                told = request._replace(on_prediction=tell, is_cancelled=lambda: not wanted)
                predictions.put(self._run(image, told, _NOBODY, min_confidence))
            except BaseException as error:  # raised where the predictions are read
                predictions.put(error)
            predictions.put(None)

        thread = threading.Thread(target=work, name="paraedge-stream", daemon=True)
        thread.start()
        try:
            while (prediction := predictions.get()) is not None:
                if isinstance(prediction, BaseException):
                    raise prediction
                yield prediction
                if pid != os.getpid():
                    self._refuse_fork()
        finally:
            wanted = False
            if pid == os.getpid():  # the thread exists
                thread.join()

    def _request(
        self,
        branches: int | Sequence[int] | None,
        budget_ms: float | None,
        deadline_s: float | None,
        policy: str,
        on_overload: str,
        early_stop: bool,
    ) -> _Request:
        if budget_ms is not None:
            if deadline_s is not None:
                raise InputError(
                    f"pass budget_ms or deadline_s, not both; got {shown(budget_ms)} and {shown(deadline_s)}"
                )
            if not _is_number(budget_ms) or not 0 < budget_ms < math.inf:
                raise InputError(f"budget_ms must be finite and above 0, got {shown(budget_ms)}")
            deadline_s = time.monotonic() + float(budget_ms) / 1e3
        elif deadline_s is None:
            deadline_s = math.inf
        elif not _is_number(deadline_s) or math.isnan(deadline_s):
            raise InputError(f"deadline_s must be a time of time.monotonic(), got {shown(deadline_s)}")
        as_choice("policy", policy, POLICIES)
        as_choice("on_overload", on_overload, OVERLOADS)
        early_stop = as_flag("early_stop", early_stop)
        if early_stop and not self._has_stop_rules():
            raise InputError(
                "early_stop needs thresholds calibrated at export for exactly these branches, and the bundle has none; "
                "'paraedge inspect' shows them"
            )
        chosen = None if branches is None else choose_branches(branches, self._branches)
        return _Request(
            branches=chosen,
            deadline_s=float(deadline_s),
            all=policy == "all",
            early_stop=early_stop,
            drop=on_overload == "drop",
        )

    def _has_stop_rules(self) -> bool:
        manifest = self.bundle.manifest
        return manifest.has_early_stop and self._branches == manifest.branch_indexes

    def _least(self, min_confidence: float | None) -> float:
        """The confidence that a label needs."""
        if min_confidence is None:
            return 0.0
        if not self._labels:
            raise InputError("min_confidence is for bundles with labels; this one's output is a vector")
        if not _is_number(min_confidence) or not 0 < min_confidence <= 1:
            raise InputError(f"min_confidence must be above 0 and at most 1, got {shown(min_confidence)}")
        return float(min_confidence)

    def _run(
        self, image: Image, request: _Request, waiting_s: Sequence[float] = (), min_confidence: float = 0.0
    ) -> Prediction:
        if self._pid != os.getpid():
            self._refuse_fork()
        if type(image) is not np.ndarray or self._exact_shapes.get(image.shape) is not image.dtype:
            image = as_input(image, self.bundle.manifest.input)
        core = self._core
        if core is None:
            raise EngineError(f"the session on {self.bundle.path} is closed; open a new one")
        if waiting_s:
            request = request._replace(leave_s=_leave_s(waiting_s, core.mandatory_ms))
        raw = core.run(image, *request)
        if raw is None:  # not contiguous, or not finite
            raw = core.run(check_input(image, self.bundle.manifest.input), *request)
        return Prediction(raw, self._labels, self._description, self._temperatures, min_confidence)

    def _as_inputs(self, images: Sequence[Any]) -> list[Any]:
        """All are read before the first runs: whichever cannot be is refused before the work."""
        inputs = []
        for place, image in enumerate(images):
            try:
                inputs.append(as_input(image, self.bundle.manifest.input))
            except InputError as error:
                raise InputError(f"image {place} of the list of {len(images)}: {error}") from None
        return inputs

    def _refuse_fork(self) -> NoReturn:
        raise EngineError(
            f"the session on {self.bundle.path} was opened before a fork, and its threads are in the parent "
            "process; open a session in the child process"
        )

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for calls in progress, stop the threads and free the programs. Closing twice does nothing.

        Args:
            timeout_s: wait at most this long; calls in progress are cancelled and raise ``EngineError``. ``None``
                waits without limit.

        Raises:
            EngineError: a branch is still running after ``timeout_s``. The session accepts no more calls. Its threads
                and memory are freed when it is closed again after the branch has finished, or when the process exits.
                Or this is called from a request of its own, which it would wait for.
            InputError: ``timeout_s`` is not a number of at least 0.
        """
        if timeout_s is not None and not (_is_number(timeout_s) and 0 <= timeout_s < math.inf):
            raise InputError(f"timeout_s must be finite and at least 0, got {shown(timeout_s)}")
        if self._pid != os.getpid():
            return  # the threads are the parent's
        core, most_s = self._core, min(float(timeout_s or 0), threading.TIMEOUT_MAX)  # 292 years; no clock goes further
        if core is None:
            return
        if timeout_s is not None and not core.settle(most_s):
            raise EngineError(
                f"a branch of {self.bundle.path} did not finish within {timeout_s:g} s; close the session again later, "
                "or end the process"
            )
        core.close()
        self._core = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def choose_threads(threads: int | None, engine: Engine, branches: int) -> int:
    """Threads that run so many branches: at most one per branch; up to the number of cores for ``None``.

    Raises:
        InputError: ``threads`` is no whole number of at least 1.
    """
    wanted = available_cores() if threads is None else as_whole("threads", threads)
    return min(branches, wanted) if engine.parallel and not core_problem() else 1


def _open_core(
    engine: Engine, parts: list[tuple[str, bytes, PartEntry]], bundle: Bundle, options: SessionOptions
) -> tuple[Any, str]:
    """A session of the native core, or the sequential one; and which it is, for people."""
    spec = bundle.manifest.input
    if problem := core_problem():
        return SequentialSession(engine, parts, spec, options), f"{engine.description}; one after another: {problem}"
    from paraedge_runtime import _native

    sources = [_native.PartSource(name, program, entry) for name, program, entry in parts]
    return _native.Session(engine.native or engine, sources, spec, options), engine.description


def _refuse_list(image: object) -> None:
    if isinstance(image, (list, tuple)):
        raise InputError(f"pass one image, got a {type(image).__name__} of {len(image)}; run() takes lists")


def _points_in_time(waiting_s: Sequence[float]) -> tuple[float, ...]:
    try:
        points = tuple(waiting_s)
    except TypeError:
        raise InputError(f"waiting_s must be a sequence of deadlines, got {shown(waiting_s)}") from None
    for other_s in points:
        if not _is_number(other_s) or math.isnan(other_s):
            raise InputError(f"waiting_s must be times of time.monotonic(), got {shown(other_s)}")
    return points


def _leave_s(waiting_s: Sequence[float], mandatory_ms: float) -> float:
    """When to leave, so that those that wait can have their first predictions in time, one after another."""
    if math.isnan(mandatory_ms):
        return math.inf
    now_s = time.monotonic()
    not_lost = [other_s for other_s in waiting_s if other_s > now_s]
    return min(
        (other_s - place * mandatory_ms / 1e3 for place, other_s in enumerate(not_lost, start=1)), default=math.inf
    )


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:  # a whole number that no clock reaches
        return False
    return True


def _check_version(engine: Engine, minimum: dict[str, str]) -> None:
    if engine.distribution not in minimum:
        raise EngineUnavailable(
            f"this bundle needs {' or '.join(minimum)}, and {engine.distribution} {engine.version} is installed"
        )
    needed = minimum[engine.distribution]

    def numbers(version: str) -> list[int]:
        found = [int(number) for number in re.findall(r"\d+", version)[:4]]
        return found + [0] * (4 - len(found))

    if numbers(engine.version) < numbers(needed):
        raise EngineUnavailable(
            f"this bundle needs {engine.distribution} {needed} or newer, {engine.version} is installed; "
            f"pip install '{engine.distribution}>={needed}'"
        )
