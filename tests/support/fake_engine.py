"""An engine whose parts do what their bytes say: the session's behaviour can be staged exactly.

A part's program is JSON:
    {"add": 1.5}            output is the input's mean plus this
    {"fail": "message"}     raises
    {"nan": true}           returns NaN
    {"event": "name"}       sets GATES[name].entered, then waits for GATES[name].release
    {"sleep_s": 0.1}        takes at least so long
    {"macs": 500}           the manifest says so (fake_bundle)
"""

import json
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from paraedge_runtime.engines import ENGINES, EngineInfo
from paraedge_runtime.engines.base import mapped_errors


@dataclass
class Gate:
    entered: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


GATES: dict[str, Gate] = {}
PARTS: list["FakePart"] = []  # every part loaded since register()
RUNNING: dict["FakePart", int] = {}  # part -> how many threads are inside it, to catch two at once
_counting = threading.Lock()


class FakeEngine:
    name = "fake"
    distribution = "fake"
    version = "1.0"
    description = "fake 1.0"
    parallel = True
    native = None

    def load(self, name, program, entry):
        with mapped_errors("fake", f"loading {entry.file}"):
            part = FakePart(name, json.loads(program), entry.output_shape)
        PARTS.append(part)
        return part


class SequentialFakeEngine(FakeEngine):
    description = "fake 1.0 (one after another)"
    parallel = False


class OldFakeEngine(FakeEngine):
    version = "0.9.7"


class FakePart:
    def __init__(self, name, behaviour, output_shape):
        self.name = name
        self.behaviour = behaviour
        self.output_shape = output_shape
        self.closed = False
        self.threads = []  # identity of the thread of each run

    def run(self, x):
        assert not self.closed, "a closed part was run"
        self.threads.append(threading.get_ident())
        with _counting:
            inside = RUNNING[self] = RUNNING.get(self, 0) + 1
        try:
            assert inside == 1, f"{self.name} runs in two threads at once"
            result = self._run(x)
            assert not self.closed, "a part was closed while it ran"
            return result
        finally:
            with _counting:
                RUNNING[self] -= 1

    def _run(self, x):
        behaviour = self.behaviour
        with mapped_errors("fake", f"running {self.name}"):
            if "event" in behaviour:
                gate = GATES[behaviour["event"]]
                gate.entered.set()
                assert gate.release.wait(30), "nobody released the gate"
            time.sleep(behaviour.get("sleep_s", 0))
            if "fail" in behaviour:
                raise ValueError(behaviour["fail"])
            if behaviour.get("nan"):
                return np.full(self.output_shape, np.nan, dtype=np.float32)
            value = float(x.mean()) + behaviour.get("add", 0.0)
            ramp = np.arange(self.output_shape[-1], dtype=np.float32)
            return np.broadcast_to(value * ramp, self.output_shape).astype(np.float32)

    def close(self):
        self.closed = True


def register(monkeypatch, kind: str = "FakeEngine", name: str = "fake") -> None:
    PARTS.clear()
    info = EngineInfo(f"support.fake_engine:{kind}", ".fake", ("fake",), "fake")
    monkeypatch.setitem(ENGINES, name, info)
