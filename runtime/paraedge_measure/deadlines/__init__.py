"""Deadline-keeping measured: arrival patterns × interference × deadlines × policies, on one engine.

``cells`` says what is measured, ``runner`` measures it, ``records`` keeps it, ``summary`` compares. The
protocol is written out in ``docs/anytime-bench.md``.
"""

__all__: list[str] = []
