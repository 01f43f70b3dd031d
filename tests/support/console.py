"""Console blocks of the documentation: commands, what they printed, and what of it another machine may print otherwise.

A block is ``$ command`` and below it what the command printed. A line ``…`` in an output stands for lines that are left
out; an output that is nothing but ``…`` is to be filled in whole.
"""

from __future__ import annotations

import re

LEFT_OUT = "…"
# What these print are figures of the machine and of the moment. What a page prints after it trained, too: sums of
# floats in another order make another network.
MEASURES = re.compile(
    r"\bparaedge (?:bench|compare|doctor|keygen|plan|profile|sign)\b|--(?:budget-ms|explain|plan)\b|paraedge-demo "
)
TRAINS = re.compile(r"\bparaedge (?:train|extend)\b|\.npz\b|optimizer\.step\(")
# Why a branch of one request ran or was dropped is a matter of microseconds, and so is which branches count.
_REASON = re.compile(
    r"^ +branch N (?:ran from N to N ms on thread N: (?:the first branch always runs|no decision was needed|N ms "
    r"predicted, N ms left)|was dropped: (?:predicted to miss the deadline: N ms predicted, N ms left|its time on this "
    r"device is not known yet|no thread was free before the deadline|it had not finished at the deadline))$",
    re.MULTILINE,
)
_CHANGING = (
    (re.compile(r"\b[0-9a-f]{12,}\b"), "HASH"),
    (re.compile(r"\bRW[0-9A-Za-z+/]{54}(?![0-9A-Za-z+/=])"), "KEY"),
    (re.compile(r"\b[0-9A-F]{16}\b"), "KEY"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"(?<=\d)\+(?:cpu|cu\d+)\b"), ""),  # torch's build
)
_MACHINE = (
    (re.compile(r"^\S+: .*, \d+ core\(s\), .*$", re.MULTILINE), "THIS MACHINE"),
    (re.compile(r"(?<=measurement\(s\) of )\S+"), "THIS MACHINE"),
    (re.compile(r" \(best static\)|, \d+ after the deadline"), ""),
    (re.compile(r"(?:^(?:→ )? *[\d,-]+ +(?:executorch|litert|onnxruntime) .*\n)+", re.MULTILINE), "CHOICES\n"),
    (re.compile(r"^(?:not valid: .*|measured while the device was slowed down or busy.*\n)\n?", re.MULTILINE), ""),
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)*(?:e-\d+)?(?![\w.])(?: (?:k|M|G)?B\b)?")
_BRANCHES_USED = re.compile(r"(?<=% )N?(?:[-,]N?)* N(?: (?:would miss|late|not needed).*)?$", re.MULTILINE)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Each command of a block, without ``$ ``, and the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def cut(printed: list[str], shown: list[str]) -> list[str]:
    """What was printed, with the lines left out that ``shown`` leaves out: as many stay before and after its ``…``."""
    if LEFT_OUT not in shown or shown == [LEFT_OUT]:
        return printed
    before = shown.index(LEFT_OUT)
    after = len(shown) - before - 1
    if len(printed) <= before + after:
        return printed
    return [*printed[:before], LEFT_OUT, *printed[len(printed) - after :]]


def masked(lines: list[str], *, figures: bool = False) -> str:
    """An output without what another machine may print: times, sizes, hashes, versions, SNR, and the room they take.

    With ``figures`` every number is left out, percentages too.
    """
    text = "\n".join(lines)
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    if figures:
        for pattern, name in _MACHINE:
            text = pattern.sub(name, text)
        text = _REASON.sub("REASON", re.sub(r"[ ─]+", " ", _NUMBER.sub("N", text)))
        return re.sub(r"\bN( N)+\b", "N", _BRANCHES_USED.sub("N", text))  # a percentile may be missing
    text = re.sub(r"\b\d+\.\d+(\.\d+|e-\d+)?\b(?! ?%)|\b\d+(?= dB)", "N", text)
    return re.sub(r"[ ─]+", " ", text)
