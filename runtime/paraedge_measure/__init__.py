"""Measure devices and bundles, and plan by what was measured. Needs what ``paraedge_runtime`` needs; never torch.

from paraedge_measure import known_latency
from paraedge_runtime import Bundle, Session

bundle = Bundle.open("model.paraedge")
latency = known_latency("device.json", bundle, threads=2)       # measured by 'paraedge profile device.json'
with Session.open(bundle, threads=2, latency=latency) as session:
    prediction = session.run(image, budget_ms=12)               # budgets are kept from the first request on

``python -m paraedge_measure`` is what runs on a device that is measured over ssh. Importing this package imports
nothing heavy: names come from their modules when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge_measure.comparing import ComparedBundle, compare_bundles
    from paraedge_measure.connections import Connection, connect
    from paraedge_measure.deadlines.cells import Cell, grid
    from paraedge_measure.deadlines.interference import InterferenceSettings, open_interference
    from paraedge_measure.deadlines.records import Record, RecordFile
    from paraedge_measure.deadlines.runner import Bench
    from paraedge_measure.device import Device, Hardware, Measurement, PartLatency, merge, read_device, write_device
    from paraedge_measure.evaluation import Evaluation
    from paraedge_measure.hardware import read_hardware
    from paraedge_measure.latency import known_latency
    from paraedge_measure.planning import (
        Plan,
        Wish,
        candidate_plans,
        choose_plan,
        pareto_plans,
        predict_request_ms,
        read_plan,
        write_plan,
    )
    from paraedge_measure.profiling import RIGOROUS, USUAL, SeriesLength, profile_bundle

__all__ = [
    "RIGOROUS",
    "USUAL",
    "Bench",
    "Cell",
    "ComparedBundle",
    "Connection",
    "Device",
    "Evaluation",
    "Hardware",
    "InterferenceSettings",
    "Measurement",
    "PartLatency",
    "Plan",
    "Record",
    "RecordFile",
    "SeriesLength",
    "Wish",
    "candidate_plans",
    "choose_plan",
    "compare_bundles",
    "connect",
    "grid",
    "known_latency",
    "merge",
    "open_interference",
    "pareto_plans",
    "predict_request_ms",
    "profile_bundle",
    "read_device",
    "read_hardware",
    "read_plan",
    "write_device",
    "write_plan",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Bench": "paraedge_measure.deadlines.runner",
        "Cell": "paraedge_measure.deadlines.cells",
        "ComparedBundle": "paraedge_measure.comparing",
        "Connection": "paraedge_measure.connections",
        "Device": "paraedge_measure.device",
        "Evaluation": "paraedge_measure.evaluation",
        "Hardware": "paraedge_measure.device",
        "InterferenceSettings": "paraedge_measure.deadlines.interference",
        "Measurement": "paraedge_measure.device",
        "PartLatency": "paraedge_measure.device",
        "Plan": "paraedge_measure.planning",
        "RIGOROUS": "paraedge_measure.profiling",
        "Record": "paraedge_measure.deadlines.records",
        "RecordFile": "paraedge_measure.deadlines.records",
        "SeriesLength": "paraedge_measure.profiling",
        "USUAL": "paraedge_measure.profiling",
        "Wish": "paraedge_measure.planning",
        "candidate_plans": "paraedge_measure.planning",
        "choose_plan": "paraedge_measure.planning",
        "compare_bundles": "paraedge_measure.comparing",
        "connect": "paraedge_measure.connections",
        "grid": "paraedge_measure.deadlines.cells",
        "known_latency": "paraedge_measure.latency",
        "merge": "paraedge_measure.device",
        "open_interference": "paraedge_measure.deadlines.interference",
        "pareto_plans": "paraedge_measure.planning",
        "predict_request_ms": "paraedge_measure.planning",
        "profile_bundle": "paraedge_measure.profiling",
        "read_device": "paraedge_measure.device",
        "read_hardware": "paraedge_measure.hardware",
        "read_plan": "paraedge_measure.planning",
        "write_device": "paraedge_measure.device",
        "write_plan": "paraedge_measure.planning",
    },
)
