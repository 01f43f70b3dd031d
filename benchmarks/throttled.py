"""Half an hour on a processor that gets hot: dropped branches beside a fixed network, as accurate while it is cold.

    paraedge export --model cifar10 --target raspberry-pi --fused --out cifar10.paraedge
    .venv/bin/python benchmarks/throttled.py cifar10.paraedge --data-dir data --out hot.jsonl --plot hot.png
    .venv/bin/python benchmarks/throttled.py cifar10.paraedge --data-dir data --out hot.jsonl --plot hot.png --only-plot

The fixed network is the bundle's fused model, all branches in one LiteRT program on the engine's own threads: the same
logits, and no earlier prediction. It and a session with a budget take turns of 64 requests. The processor has its
speed in the first eighth of the time, then a quarter less of what ``--least`` takes away in each step of an eighth
down, and back up (``paraedge bench --interference throttle``). A request comes every deadline. What is not there at
its deadline is a miss, and counts as wrong. One line of JSON for each minute of each; the machine must do nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from paraedge.data.bundles import load_for_bundle
from paraedge_measure.deadlines.interference import InterferenceSettings, open_interference, throttle_share
from paraedge_measure.deadlines.serving import Block, Served, serve_block
from paraedge_measure.plots.figures import png_figure
from paraedge_runtime import Bundle, Session
from paraedge_runtime.inputs import normalise

BLOCK, WARM_RUNS, THREADS = 64, 300, 2
FIXED, ANYTIME = "fixed network", "branches dropped"
COUNTED = ("requests", "missed", "correct", "branches")
COLOURS = {FIXED: "#8d6e63", ANYTIME: "#1f6f8b"}


class Fused:
    """The fused model as a policy of ``paraedge bench``: it answers when it has finished, whatever the deadline."""

    def __init__(self, bundle: Bundle, path: Path) -> None:
        entry = bundle.manifest.fused
        if entry is None or not entry.file.endswith(".tflite"):
            raise SystemExit(f"{path} has no fused .tflite; export it with --target raspberry-pi --fused")
        self._spec = bundle.manifest.input
        self._interpreter = Interpreter(str(path / entry.file), num_threads=THREADS)
        self._interpreter.allocate_tensors()
        self._run = self._interpreter.get_signature_runner()
        (self._input,) = self._run.get_input_details()
        self._count = len(bundle.manifest.branches)

    def __call__(self, image: Any, deadline_s: float, waiting_s: Sequence[float]) -> Any:
        """What ``serve_block`` reads of a prediction."""
        (output,) = self._run(**{self._input: normalise(image[None], self._spec)}).values()
        return SimpleNamespace(label_index=int(output.argmax()), branches_used=range(self._count))


class Dropping:
    """A session under a budget."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, image: Any, deadline_s: float, waiting_s: Sequence[float]) -> Any:
        """``session.run``."""
        return self._session.run(image, deadline_s=deadline_s, waiting_s=waiting_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dataset", help="as 'paraedge bench' takes it")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--least", type=float, default=0.4, help="lowest speed, as a part of full speed")
    parser.add_argument("--deadline", type=float, default=1.5, help="as a multiple of the fixed network's cold median")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only-plot", action="store_true")
    arguments = parser.parse_args()
    for name, most in (("minutes", 1440.0), ("least", 1.0), ("deadline", 1000.0)):
        if not 0 < (value := getattr(arguments, name)) <= most:
            parser.error(f"--{name} must be above 0 and at most {most:g}, got {value}")
    if not arguments.only_plot:
        measure(arguments)
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    summary(lines)
    if arguments.plot:
        plot(lines, arguments.plot)


def measure(arguments: argparse.Namespace) -> None:
    bundle = Bundle.open(arguments.bundle)
    test = load_for_bundle(bundle.manifest, arguments.dataset, arguments.data_dir).test
    rng = np.random.default_rng(0)
    turns: list[dict[str, Any]] = []
    with Session.open(bundle, threads=THREADS) as session:
        policies = {FIXED: Fused(bundle, arguments.bundle), ANYTIME: Dropping(session)}
        cold_s = {name: cold(policy, test.inputs) for name, policy in policies.items()}
        deadline_s = arguments.deadline * cold_s[FIXED]
        header = {
            "bundle": bundle.manifest.name, "engine": session.engine.description, "deadline_ms": deadline_s * 1e3,
            "minutes": arguments.minutes, "least": arguments.least,
            "cold_ms": {name: value * 1e3 for name, value in cold_s.items()},
        }  # fmt: skip
        settings = InterferenceSettings(1, 1.0, arguments.least, arguments.minutes * 60)
        with open_interference("throttle", settings) as align:
            start_s = time.monotonic()
            while time.monotonic() - start_s < arguments.minutes * 60:
                order = rng.permutation(len(test.labels))[:BLOCK]
                for name in rng.permutation(list(policies)):
                    served = Served(BLOCK)
                    begin_s = time.monotonic() - start_s
                    serve_block(policies[name], block(test, order, deadline_s), align, served)
                    outcomes = served.outcomes(deadline_s)
                    turns.append(
                        {
                            "policy": str(name), "minute": int(begin_s / 60),
                            "share": throttle_share(begin_s, arguments.minutes * 60, arguments.least),
                            "requests": BLOCK, "missed": int(outcomes.missed.sum()),
                            "correct": int(outcomes.correct.sum()), "branches": int(outcomes.branches.sum()),
                        }
                    )  # fmt: skip
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in [header, *by_minute(turns)]))


def by_minute(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns of the same policy, minute and speed in one line."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for turn in turns:
        line = lines.setdefault((turn["policy"], turn["minute"], turn["share"]), {**turn, **dict.fromkeys(COUNTED, 0)})
        for field in COUNTED:
            line[field] += turn[field]
    return list(lines.values())


def cold(policy: Any, inputs: Any) -> float:
    """Median seconds of a request without a deadline in the way."""
    seconds = []
    for number in range(WARM_RUNS):
        start_s = time.monotonic()
        policy(inputs[number % len(inputs)], start_s + 60.0, ())
        seconds.append(time.monotonic() - start_s)
    return float(np.median(seconds))


def block(test: Any, order: Any, deadline_s: float) -> Block:
    return Block(
        place=slice(0, BLOCK), images=test.inputs[order], labels=test.labels[order],
        offsets_s=np.arange(BLOCK) * deadline_s, deadline_s=deadline_s, closed=False, phase_s=0.0, settle_s=deadline_s,
    )  # fmt: skip


def rate(lines: list[dict[str, Any]], field: str) -> float:
    return 100.0 * sum(line[field] for line in lines) / max(sum(line["requests"] for line in lines), 1)


def summary(lines: list[dict[str, Any]]) -> None:
    header, turns = lines[0], lines[1:]
    print(json.dumps(header))
    print("| speed | " + " | ".join(f"{name}: correct, missed, %; branches" for name in COLOURS) + " |")
    for share in [None, *sorted({line["share"] for line in turns}, reverse=True)]:
        cells = []
        for name in COLOURS:
            mine = [line for line in turns if line["policy"] == name and share in (None, line["share"])]
            branches = rate(mine, "branches") / 100.0
            cells.append(f"{rate(mine, 'correct'):.2f}, {rate(mine, 'missed'):.2f}; {branches:.2f}")
        print(f"| {'all' if share is None else f'{share:.2f}'} | " + " | ".join(cells) + " |")


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    header, turns = lines[0], lines[1:]
    minutes = header["minutes"]
    with png_figure(path, 6.4, 6.4) as figure:
        speed, accuracy, misses = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2, 2])
        times = np.linspace(0, minutes, 800, endpoint=False)
        speed.plot(times, [100 * throttle_share(t, minutes, header["least"]) for t in times], color="#52606d")
        for name, colour in COLOURS.items():
            mine = [line for line in turns if line["policy"] == name]
            numbers = sorted({line["minute"] for line in mine})
            for axis, field in ((accuracy, "correct"), (misses, "missed")):
                rates = [rate([line for line in mine if line["minute"] == number], field) for number in numbers]
                axis.plot([number + 0.5 for number in numbers], rates, color=colour, label=name, marker="o", ms=3)
        for axis, title in ((speed, "speed, %"), (accuracy, "correct and in time, %"), (misses, "missed, %")):
            axis.set_ylabel(title)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        accuracy.legend(loc="lower left")
        misses.set_xlabel("minutes")
        figure.suptitle(f"{header['bundle']}, deadline {header['deadline_ms']:.1f} ms", fontsize="medium")


if __name__ == "__main__":
    main()
