"""The bundle: every way one can be bad, what a subset keeps, writing that is whole or nothing."""

import contextlib
import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support import replacing
from support.bundles import (
    EMBEDDING,
    IMAGE_SHAPE,
    MOTION,
    NUM_LABELS,
    edit_card,
    edit_manifest,
    fake_bundle,
    hash_line,
    image,
    replace_file,
    sign,
    tree,
    write_manifest,
)

from paraedge_runtime import Bundle, BundleError, InputError, IntegrityError, ManifestError, Session
from paraedge_runtime.archive import write_zip
from paraedge_runtime.bundle import GoldenData, file_entry, write_bundle
from paraedge_runtime.core import load_core
from paraedge_runtime.manifest import MAX_MANIFEST_BYTES, decode_manifest
from paraedge_runtime.storage import FolderStorage
from paraedge_runtime.update import apply_update, write_update

INPUTS, OUTPUTS = "golden/inputs.npy", "golden/branch_outputs.npy"


@pytest.fixture
def path(tmp_path):
    return fake_bundle(tmp_path / "good.paraedge").path


@pytest.fixture
def sensor_path(tmp_path):
    return fake_bundle(tmp_path / "sensor.paraedge", input=MOTION, output=EMBEDDING).path


# Edits of the manifest -------------------------------------------------------------------------


def put(place, value):
    """An edit that sets a field, given by its dotted place."""

    def edit(document):
        *above, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        for key in above:
            document = document[key]
        document[last] = value

    return edit


def cut(place):
    """An edit that removes a field or the last item of a list."""

    def edit(document):
        *above, last = place.split(".")
        for key in above:
            document = document[int(key) if key.isdigit() else key]
        document.pop(-1 if last == "last" else last)

    return edit


def both(*edits):
    def edit(document):
        for one in edits:
            one(document)

    return edit


def swap_branches(document):
    document["branches"][0], document["branches"][1] = document["branches"][1], document["branches"][0]


def fused(**changes):
    """An edit that adds a fused model which has no file."""

    def edit(document):
        document["fused"] = {**document["card"], "file": "fused.fake", **changes}

    return edit


BAD_PATHS = {
    "climbs": "../x",
    "absolute": "/etc/passwd",
    "climbs in the middle": "a/../../b",
    "stays inside, but climbs": "golden/../stem.fake",
    "drive": "C:\\x",
    "drive, forward": "C:/x",
    "backslash": "golden\\images.npy",
    "above": "..",
    "itself": ".",
    "dot": "./stem.fake",
    "double slash": "golden//x",
    "slash at the end": "golden/",
    "hidden": ".stem",
    "hidden below": "golden/.x",
    "NUL": "stem\0.fake",
    "newline": "stem.fake\n",
    "space": "stem .fake",
    "home": "~/x",
    "not ASCII": "stém.fake",
    "stream": "stem.fake:x",
    "empty": "",
    "long": "a" * 201,
    "manifest": "manifest.json",
    "hash of the manifest": "manifest.sha256",
    "signature": "manifest.json.minisig",
}

# id -> (edit, words the message has)
BAD_FIELDS = {
    "delegate that is no name": (put("stem.delegate", "core ml"), ["$.stem.delegate"]),
    "delegate of a number": (put("branches.1.delegate", 3), ["$.branches[1].delegate"]),
    "unknown field": (put("colour", "red"), ["`colour`"]),
    "field of format 1": (put("recipe", "fp32"), ["`recipe`"]),
    "unknown nested field": (put("branches.1.colour", "red"), ["`colour`", "$.branches[1]"]),
    "unknown field of a file": (put("files.0.colour", "red"), ["`colour`", "$.files[0]"]),
    "missing field": (cut("stem"), ["`stem`"]),
    "missing nested field": (cut("branches.2.sha256"), ["`sha256`", "$.branches[2]"]),
    "name of another type": (put("name", 5), ["`str`", "$.name"]),
    "size as a text": (put("stem.size_bytes", "2"), ["`int`", "$.stem.size_bytes"]),
    "size not whole": (put("stem.size_bytes", 2.5), ["`int`", "$.stem.size_bytes"]),
    "size with a point": (put("stem.size_bytes", 2.0), ["`int`", "$.stem.size_bytes"]),
    "version with a point": (put("version", 1.0), ["`int`", "$.version"]),
    "index with a point": (put("branches.1.index", 1.0), ["`int`", "$.branches[1].index"]),
    "size negative": (put("stem.size_bytes", -1), ["$.stem.size_bytes"]),
    "size beyond 2^53": (put("stem.size_bytes", 1 << 54), ["$.stem.size_bytes"]),
    "size of more than a bundle": (put("stem.size_bytes", (1 << 31) + 1), ["'size_bytes' adds up to"]),
    "sizes of more than a bundle": (
        both(put("stem.size_bytes", 1 << 30), put("files.1.size_bytes", 1 << 30)),
        ["'size_bytes' adds up to"],
    ),
    "branches an object": (put("branches", {}), ["`array`", "$.branches"]),
    "branches null": (put("branches", None), ["$.branches"]),
    "newer format": (put("format", "paraedge-bundle/3"), ["'format'", "newer", "update paraedge"]),
    "older format": (put("format", "paraedge-bundle/1"), ["'format'", "older", "export the bundle again"]),
    "garbage format": (put("format", "gibberish"), ["'gibberish'", "$.format"]),
    "format a number": (put("format", 1), ["$.format"]),
    "version 0": (put("version", 0), ["$.version"]),
    "version negative": (put("version", -1), ["$.version"]),
    "version a text": (put("version", "1.0"), ["$.version"]),
    "version not whole": (put("version", 1.5), ["$.version"]),
    "version beyond 2^53": (put("version", (1 << 53) + 1), ["$.version"]),
    "duplicate file": (put("branches.1.file", "branch_00.fake"), ["'branches[1].file'", "another entry"]),
    "duplicate file but for case": (put("branches.1.file", "BRANCH_00.FAKE"), ["'branches[1].file'", "another entry"]),
    "manifest as a part": (put("stem.file", "Manifest.json"), ["'stem.file'", "another entry"]),
    "signature as a file": (put("files.0.file", "manifest.json.minisig"), ["'files[0].file'", "another entry"]),
    "golden files the same": (put("files.1.file", INPUTS), ["'files[1].file'", "another entry"]),
    "a file that is a folder": (put("stem.file", "golden"), ["'files[0].file'", "another entry"]),
    "a folder that is a file": (put("files.1.file", "stem.fake/x"), ["'files[1].file'", "another entry"]),
    "a folder that is a file but for case": (put("files.1.file", "Card.json/x"), ["'files[1].file'"]),
    "too many files": (lambda document: document.update(files=document["files"] * 501), ["$.files"]),
    "card of another name": (put("card.file", "passport.json"), ["'card.file' is 'passport.json'"]),
    "card too large": (put("card.size_bytes", (1 << 20) + 1), ["'card.size_bytes' is 1048577, more than 1048576"]),
    "card null": (put("card", None), ["$.card"]),
    "duplicate index": (put("branches.1.index", 0), ["'branches[1].index'", "0 after 0"]),
    "index out of order": (swap_branches, ["'branches[1].index'", "0 after 1"]),
    "index beyond total_branches": (put("branches.2.index", 8), ["'branches[2].index'", "total_branches is 8"]),
    "total_branches too small": (put("total_branches", 2), ["'branches[2].index'", "total_branches is 2"]),
    "total_branches 0": (put("total_branches", 0), ["$.total_branches"]),
    "index negative": (put("branches.0.index", -1), ["$.branches[0].index"]),
    "index huge": (put("branches.2.index", 10_000), ["$.branches[2].index"]),
    "no branches": (put("branches", []), ["$.branches"]),
    "no labels": (put("output.labels", []), ["$.output.labels"]),
    "label too few": (cut("output.labels.last"), ["'branches[0].output_shape'", "2 outputs"]),
    "output of another kind": (put("output.kind", "boxes"), ["'boxes'", "$.output.kind"]),
    "output without kind": (cut("output.kind"), ["`kind`", "$.output"]),
    "output kind a number": (put("output.kind", 1), ["$.output.kind"]),
    "labels called a vector": (put("output.kind", "vector"), ["$.output"]),
    "stem reads another shape": (put("stem.input_shape", [1, 1, 8, 9]), ["'stem.input_shape'", "(1, 1, 8, 8)"]),
    "input of another shape": (put("input.shape", [1, 1, 9, 8]), ["'stem.input_shape'", "(1, 1, 9, 8)"]),
    "batch of two": (
        both(put("input.shape", [2, 1, 8, 8]), put("stem.input_shape", [2, 1, 8, 8])),
        ["'input.shape'", "first dimension"],
    ),
    "image of rank three": (put("input.shape", [1, 8, 8]), ["$.input.shape"]),
    "stem makes another shape": (put("stem.output_shape", [1, 6, 4]), ["'branches[0].input_shape'", "(1, 6, 4)"]),
    "branch reads another shape": (put("branches.1.input_shape", [1, 5, 5]), ["'branches[1].input_shape'"]),
    "branch makes another length": (put("branches.2.output_shape", [1, 4]), ["'branches[2].output_shape'"]),
    "branch makes another rank": (put("branches.2.output_shape", [3]), ["'branches[2].output_shape'"]),
    "dimension 0": (put("stem.output_shape", [1, 0, 4]), ["$.stem.output_shape[1]"]),
    "dimension negative": (put("stem.output_shape", [1, -5, 4]), ["$.stem.output_shape[1]"]),
    "dimension huge": (put("stem.output_shape", [1, 1 << 30, 4]), ["$.stem.output_shape[1]"]),
    "too many elements": (
        put("stem.output_shape", [1, 1 << 20, 1 << 9]),
        ["'stem.output_shape' is (1, 1048576, 512), more than 268435456 elements"],
    ),
    "elements that overflow": (put("stem.output_shape", [1 << 20] * 6), ["'stem.output_shape'", "elements"]),
    "rank 0": (put("stem.output_shape", []), ["$.stem.output_shape"]),
    "rank 7": (put("stem.output_shape", [1] * 7), ["$.stem.output_shape"]),
    "input of another kind": (put("input.kind", "sound"), ["'sound'", "$.input.kind"]),
    "input without kind": (cut("input.kind"), ["`kind`", "$.input"]),
    "image called a tensor": (put("input.kind", "tensor"), ["$.input"]),
    "axes of an image": (put("input.axes", ["channel", "y", "x"]), ["`axes`", "$.input"]),
    "resize unknown": (put("input.resize", "squash"), ["$.input.resize"]),
    "resize null": (put("input.resize", None), ["$.input.resize"]),
    "mean too long": (put("input.mean", [0.5, 0.5]), ["'input.mean'", "2 values, channels needs 1"]),
    "mean empty": (put("input.mean", []), ["'input.mean'", "0 values"]),
    "std too long": (put("input.std", [0.5, 0.5, 0.5]), ["'input.std'", "3 values, channels needs 1"]),
    "std 0": (put("input.std", [0.0]), ["'input.std'", "not above 0"]),
    "std negative": (put("input.std", [-0.25]), ["'input.std'", "not above 0"]),
    "std too small for float32": (put("input.std", [1e-42]), ["'input.std'", "too small for float32"]),
    "std too small for float64": (put("input.std", [5e-324]), ["'input.std'", "too small for float32"]),
    "mean too large for float32": (put("input.mean", [1e38]), ["'input.mean'", "too large beside std for float32"]),
    "mean NaN": (put("input.mean", [float("nan")]), ["malformed"]),
    "std infinite": (put("input.std", [float("inf")]), ["malformed"]),
    "mean null": (put("input.mean", [None]), ["$.input.mean[0]"]),
    "stop rules of too few prefixes": (cut("stop_rules.last"), ["'stop_rules'", "2 values for 3"]),
    "stop rules of no prefixes": (put("stop_rules", []), ["'stop_rules'", "0 values for 3"]),
    "a threshold at the end": (put("stop_rules.2.threshold", 0.9), ["'stop_rules'", "not null"]),
    "threshold 0": (put("stop_rules.0.threshold", 0), ["$.stop_rules[0].threshold"]),
    "threshold above 1": (put("stop_rules.0.threshold", 1.5), ["$.stop_rules[0].threshold"]),
    "threshold a text": (put("stop_rules.1.threshold", "never"), ["$.stop_rules[1].threshold"]),
    "threshold missing": (cut("stop_rules.1.threshold"), ["`threshold`", "$.stop_rules[1]"]),
    "temperature 0": (put("stop_rules.1.temperature", 0), ["$.stop_rules[1].temperature"]),
    "temperature negative": (put("stop_rules.0.temperature", -1.0), ["$.stop_rules[0].temperature"]),
    "temperature infinite": (put("stop_rules.0.temperature", float("inf")), ["malformed"]),
    "temperature null": (put("stop_rules.0.temperature", None), ["$.stop_rules[0].temperature"]),
    "stop rules not there": (cut("stop_rules"), ["`stop_rules`"]),
    "stop rules false": (put("stop_rules", False), ["$.stop_rules"]),
    "hash of another length": (put("stem.sha256", "0" * 63), ["$.stem.sha256"]),
    "hash in capitals": (put("stem.sha256", "A" * 64), ["$.stem.sha256"]),
    "hash with a newline": (put("card.sha256", "0" * 64 + "\n"), ["$.card.sha256"]),
    "name with a slash": (put("name", "../evil"), ["$.name"]),
    "name with a newline": (put("name", "evil\n"), ["$.name"]),
    "name empty": (put("name", ""), ["$.name"]),
    "name long": (put("name", "a" * 101), ["$.name"]),
    "label empty": (put("output.labels.1", ""), ["'output.labels[1]' is empty"]),
    "label twice": (put("output.labels.2", "ant"), ["'output.labels[2]' is 'ant', the same as labels[0]"]),
    "quantization unknown": (
        put("quantization", "int9"),
        ["'quantization' is 'int9', not one of fp32, fp16, int8-dynamic, int8-static, int8-weight, int4-weight (all"],
    ),
    "quantization in capitals": (put("quantization", "FP32"), ["'quantization' is 'FP32'"]),
    "quantization of a float stem twice": (put("quantization", "fp32+fp32-stem"), ["'fp32+fp32-stem'", "all but fp32"]),
    "quantization of nothing": (put("quantization", "fp32-stem"), ["'quantization' is 'fp32-stem'"]),
    "label long": (put("output.labels.0", "a" * 4097), ["$.output.labels[0]"]),
    "engine with a space": (put("engine", "a b"), ["$.engine"]),
    "engine of no package": (put("engine_min_version", {}), ["$.engine_min_version"]),
    "minimum version no number": (put("engine_min_version", {"fake": "latest"}), ["$.engine_min_version"]),
    "minimum version with a newline": (put("engine_min_version", {"fake": "1.0\n"}), ["$.engine_min_version"]),
    "signature of another algorithm": (
        put("signature", {"algorithm": "rsa", "file": "manifest.json.minisig"}),
        ["'rsa'", "$.signature.algorithm"],
    ),
    "signature elsewhere": (
        put("signature", {"algorithm": "ed25519", "file": "other.minisig"}),
        ["'other.minisig'", "$.signature.file"],
    ),
    "signature a text": (put("signature", "ed25519"), ["$.signature"]),
    "signature not there": (cut("signature"), ["`signature`"]),
}

# The same of a bundle that reads tensors and makes vectors.
BAD_SENSOR_FIELDS = {
    "tensor of rank one": (put("input.shape", [1]), ["$.input.shape"]),
    "tensor of rank seven": (put("input.shape", [1] * 7), ["$.input.shape"]),
    "batch of two": (
        both(put("input.shape", [2, 6, 16]), put("stem.input_shape", [2, 6, 16])),
        ["'input.shape'", "first dimension"],
    ),
    "axis too few": (put("input.axes", ["channel"]), ["'input.axes'", "1 names"]),
    "axis too many": (put("input.axes", ["batch", "channel", "time"]), ["'input.axes'", "3 names"]),
    "axis twice": (put("input.axes", ["time", "time"]), ["'input.axes'", "twice"]),
    "axis in capitals": (put("input.axes", ["Channel", "time"]), ["$.input.axes[0]"]),
    "axis with a newline": (put("input.axes", ["channel", "time\n"]), ["$.input.axes[1]"]),
    "axis empty": (put("input.axes", ["channel", ""]), ["$.input.axes[1]"]),
    "axis with a digit first": (put("input.axes", ["channel", "2nd"]), ["$.input.axes[1]"]),
    "axis long": (put("input.axes", ["channel", "a" * 33]), ["$.input.axes[1]"]),
    "normalized along another axis": (put("input.normalized_axis", "band"), ["'input.normalized_axis'", "'band'"]),
    "normalized along the other axis": (put("input.normalized_axis", "time"), ["'input.mean'", "6 values"]),
    "normalized along none": (put("input.normalized_axis", None), ["'input.mean'", "6 values, everything needs 1"]),
    "normalized along a number": (put("input.normalized_axis", 0), ["$.input.normalized_axis"]),
    "axis not there": (cut("input.normalized_axis"), ["`normalized_axis`"]),
    "std too few": (cut("input.std.last"), ["'input.std'", "5 values, axis 'channel' needs 6"]),
    "std 0": (put("input.std.3", 0), ["'input.std'", "not above 0"]),
    "std too small for float32": (put("input.std.3", 1e-39), ["'input.std'", "too small for float32"]),
    "rate 0": (put("input.rate_hz", 0), ["$.input.rate_hz"]),
    "rate of a text": (put("input.rate_hz", "16 kHz"), ["$.input.rate_hz"]),
    "rate too high": (put("input.rate_hz", 1_000_001), ["$.input.rate_hz"]),
    "rate without time": (
        both(put("input.axes", ["channel", "row"]), put("input.rate_hz", 100)),
        ["'input.rate_hz'", "needs an axis 'time'"],
    ),
    "channel name too few": (put("input.channel_names", list("abcde")), ["'input.channel_names'", "5 names", "has 6"]),
    "channel name twice": (put("input.channel_names", list("abcdea")), ["'input.channel_names'", "twice"]),
    "channel name that is none": (put("input.channel_names", [*"abcde", "a b"]), ["$.input.channel_names[5]"]),
    "channel names without channels": (
        both(
            put("input.axes", ["sensor", "time"]),
            both(put("input.normalized_axis", "sensor"), put("input.channel_names", list("abcdef"))),
        ),
        ["'input.channel_names'", "the axis 'channel' has 0"],
    ),
    "tensor called an image": (put("input.kind", "image"), ["$.input"]),
    "vector of no numbers": (put("output.size", 0), ["$.output.size"]),
    "vector too long": (put("output.size", (1 << 20) + 1), ["$.output.size"]),
    "vector of another length": (put("output.size", 8), ["'branches[0].output_shape'", "8 outputs"]),
    "vector without name": (cut("output.name"), ["`name`", "$.output"]),
    "vector with a name that is none": (put("output.name", "a b"), ["$.output.name"]),
    "stop rules of a vector": (
        put("stop_rules", [{"temperature": 1.0, "threshold": None}] * 3),
        ["'stop_rules' is not null, but the output is a vector"],
    ),
}
BAD_CASES = [
    *(pytest.param("path", *case, id=name) for name, case in BAD_FIELDS.items()),
    *(pytest.param("sensor_path", *case, id=f"sensor: {name}") for name, case in BAD_SENSOR_FIELDS.items()),
]


@pytest.mark.parametrize(("kind", "edit", "words"), BAD_CASES)
def test_a_bad_field_is_refused_and_named(tmp_path, kind, edit, words, request):
    path = request.getfixturevalue(kind)
    edit_manifest(path, edit)
    before = tree(tmp_path)
    with pytest.raises(ManifestError) as caught:
        Bundle.open(path)
    assert [word for word in ["manifest.json", *words] if word not in str(caught.value)] == []
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        load_core().check_bundle(str(path))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        pytest.param("path", put("stop_rules", None), id="no stop rules"),
        pytest.param(
            "path",
            both(put("stop_rules.0.threshold", None), put("stop_rules.1.threshold", 1)),
            id="never, and when sure",
        ),
        pytest.param("path", put("version", 1 << 53), id="the last version"),
        pytest.param("path", both(put("input.mean", [0]), put("input.std", [1.2e-41])), id="the smallest std"),
        pytest.param("path", put("input.mean", [-8e37]), id="a large mean"),
        pytest.param("path", put("input.resize", "crop"), id="images are cropped"),
        pytest.param("path", put("input.resize", "stretch"), id="images are stretched"),
        pytest.param(
            "sensor_path",
            both(put("input.normalized_axis", None), put("input.mean", [0]), put("input.std", [1])),
            id="one mean for everything",
        ),
        pytest.param("sensor_path", put("input.axes", ["channel", "a" * 32]), id="the longest name of an axis"),
        pytest.param("sensor_path", put("input.std.3", 1e-38), id="a small std of a tensor"),
        pytest.param("sensor_path", put("input.rate_hz", 1e6), id="the highest rate"),
        pytest.param("sensor_path", put("input.rate_hz", None), id="no rate"),
        pytest.param(
            "sensor_path", put("input.channel_names", ["x", "y", "z", "a.x", "a.y", "a-z"]), id="channel names"
        ),
        pytest.param("sensor_path", put("input.channel_names", None), id="no channel names"),
    ],
)
def test_what_may_be_null_or_at_its_limit_is_read(kind, edit, request):
    path = request.getfixturevalue(kind)
    edit_manifest(path, edit)
    assert Bundle.open(path).manifest.name == "fake"
    load_core().check_bundle(str(path))


@pytest.mark.parametrize("bad", BAD_PATHS.values(), ids=BAD_PATHS)
@pytest.mark.parametrize("place", ["stem", "branches.1", "files.0"])
def test_a_path_that_is_not_plain_is_refused(tmp_path, path, place, bad):
    edit_manifest(path, put(f"{place}.file", bad))
    before = tree(tmp_path)
    field = re.sub(r"\.(\d)", r"[\1]", place)
    with pytest.raises(ManifestError) as caught:
        Bundle.open(path)
    assert f"'{field}.file'" in str(caught.value) or f"$.{field}.file" in str(caught.value)
    with pytest.raises(ManifestError, match=re.escape(f"'{field}.file'")):
        load_core().check_bundle(str(path))
    assert tree(tmp_path) == before


# Raw manifests ---------------------------------------------------------------------------------

BAD_MANIFESTS = {
    "empty": (lambda raw: b"", ManifestError, "truncated"),
    "no JSON": (lambda raw: b"hello", ManifestError, "malformed"),
    "cut off": (lambda raw: raw[:-9], ManifestError, "truncated"),
    "not UTF-8": (lambda raw: raw.replace(b"ant", b"\xff\xfe\xe9"), ManifestError, "utf-8"),
    "UTF-16": (lambda raw: raw.decode().encode("utf-16"), ManifestError, "malformed"),
    "huge number": (lambda raw: raw.replace(b"0.25", b"1e400"), ManifestError, r"\$\.input\.std\[0\]"),
    "deeply nested": (lambda raw: b'{"a":' * 100_000, ManifestError, "unknown field `a`"),
    "deeply nested in a field": (
        lambda raw: raw.replace(b'"labels": [', b'"labels": [' + b"[" * 100_000),
        ManifestError,
        r"\$\.output\.labels",
    ),
    "huge": (lambda raw: raw + b" " * MAX_MANIFEST_BYTES, IntegrityError, "more than the 1048576 allowed"),
}


@pytest.mark.parametrize(("change", "error", "problem"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_that_cannot_be_parsed_is_refused(tmp_path, path, change, error, problem):
    write_manifest(path, change((path / "manifest.json").read_bytes()))
    before = tree(tmp_path)
    with pytest.raises(error, match=rf"manifest\.json.*{problem}"):
        Bundle.open(path)
    with pytest.raises(error, match=r"manifest\.json"):
        load_core().check_bundle(str(path))
    assert tree(tmp_path) == before


# The manifest's hash ---------------------------------------------------------------------------

# What 'sha256sum manifest.json' does not write: id -> change of its line.
BAD_LINES = {
    "empty": lambda line: b"",
    "no end": lambda line: line[:-1],
    "one space": lambda line: line.replace(b"  ", b" "),
    "binary": lambda line: line.replace(b"  ", b" *"),
    "capitals": lambda line: line[:64].replace(b"0", b"A").upper() + line[64:],
    "another name": lambda line: line.replace(b"manifest", b"Manifest"),
    "of Windows": lambda line: line[:-1].replace(b"  ", b" ") + b"\r\n",
    "not hexadecimal": lambda line: b"g" + line[1:],
    "not UTF-8": lambda line: b"\xff" + line[1:],
    "a digit less": lambda line: line[1:],
    "only the digits": lambda line: line[:64],
}


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("change", BAD_LINES.values(), ids=BAD_LINES)
def test_a_hash_of_the_manifest_in_another_form_is_refused(tmp_path, path, change, pack):
    files = Bundle.open(path).files()
    files["manifest.sha256"] = change(files["manifest.sha256"])
    (path / "manifest.sha256").write_bytes(files["manifest.sha256"])
    write_zip(files, tmp_path / "b.zip")
    for open_it in (Bundle.open, load_core().check_bundle):
        with pytest.raises(
            IntegrityError, match=r"manifest\.sha256 is not the line that 'sha256sum manifest.json' writes"
        ):
            open_it(str(tmp_path / "b.zip" if pack else path))


def test_every_bit_of_an_unsigned_manifest_and_of_its_hash_counts(path):
    for name in ("manifest.json", "manifest.sha256"):
        good = (path / name).read_bytes()
        for place in range(len(good)):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            (path / name).write_bytes(bad)
            for open_it in (Bundle.open, load_core().check_bundle):
                with pytest.raises(IntegrityError, match=r"manifest\.sha256"):
                    open_it(str(path))
        (path / name).write_bytes(good)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not here")
def test_sha256sum_checks_a_manifest(path):
    done = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "manifest.json: OK\n")


# Files -----------------------------------------------------------------------------------------


def _move_outside(path, name):
    """A link in the bundle to the very bytes that belong there, outside of it."""
    (path / name).rename(path.parent / "outside")
    (path / name).symlink_to(path.parent / "outside")


def _link_inside(path):
    (path / "branch_01.fake").unlink()
    (path / "branch_01.fake").symlink_to("branch_00.fake")


def _flip(path, name):
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)


def _as(path, name, make):
    (path / name).unlink()
    make(path / name)


BAD_FILES = {
    "stem missing": (lambda path: (path / "stem.fake").unlink(), "stem.fake is missing"),
    "branch missing": (lambda path: (path / "branch_02.fake").unlink(), "branch_02.fake is missing"),
    "golden missing": (lambda path: shutil.rmtree(path / "golden"), r"golden/.*\.npy is missing"),
    "manifest missing": (lambda path: (path / "manifest.json").unlink(), "has no manifest.json"),
    "hash of the manifest missing": (
        lambda path: (path / "manifest.sha256").unlink(),
        "manifest.sha256 is missing; copy all of it again, or export the bundle again",
    ),
    "manifest with a space more": (
        lambda path: (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes() + b" "),
        r"manifest.json has SHA-256 [0-9a-f]{12}…, manifest.sha256 says [0-9a-f]{12}…; it was damaged",
    ),
    "hash of another manifest": (
        lambda path: (path / "manifest.sha256").write_bytes(hash_line(b"{}")),
        "manifest.sha256 says 44136fa355b3…",
    ),
    "hash of the manifest a link": (lambda path: _move_outside(path, "manifest.sha256"), "is a symbolic link"),
    "hash of the manifest too long": (
        lambda path: (path / "manifest.sha256").write_bytes(hash_line(b"{}") + b"\n"),
        "manifest.sha256 has 81 bytes",
    ),
    "fused missing": (lambda path: edit_manifest(path, fused()), "fused.fake is missing"),
    "truncated": (lambda path: os.truncate(path / "branch_01.fake", 3), "branch_01.fake has 3 bytes"),
    "emptied": (lambda path: os.truncate(path / "branch_01.fake", 0), "branch_01.fake has 0 bytes"),
    "longer": (lambda path: os.truncate(path / "branch_01.fake", 99), "branch_01.fake has 99 bytes"),
    "terabyte": (lambda path: os.truncate(path / "branch_01.fake", 1 << 40), "branch_01.fake has 1099511627776 bytes"),
    "byte flipped": (lambda path: _flip(path, "branch_01.fake"), r"branch_01\.fake has SHA-256 .*damaged"),
    "golden flipped": (lambda path: _flip(path, OUTPUTS), r"golden/branch_outputs\.npy has SHA-256"),
    "parts exchanged": (
        lambda path: shutil.copy(path / "branch_00.fake", path / "branch_01.fake"),
        r"branch_01\.fake has SHA-256",
    ),
    "link inside": (_link_inside, "branch_01.fake is a symbolic link"),
    "link outside": (lambda path: _move_outside(path, "stem.fake"), "stem.fake is a symbolic link"),
    "link to nothing": (lambda path: _as(path, "stem.fake", lambda f: f.symlink_to("gone")), "is a symbolic link"),
    "golden folder a link": (lambda path: _move_outside(path, "golden"), "golden is a symbolic link"),
    "manifest a link": (lambda path: _move_outside(path, "manifest.json"), "manifest.json is a symbolic link"),
    "part a folder": (lambda path: _as(path, "stem.fake", Path.mkdir), "stem.fake is missing"),
    "part a pipe": (lambda path: _as(path, "stem.fake", os.mkfifo), "stem.fake is not a plain file"),
    "manifest a folder": (lambda path: _as(path, "manifest.json", Path.mkdir), "has no manifest.json"),
    "card missing": (lambda path: (path / "card.json").unlink(), "card.json is missing"),
    "card flipped": (lambda path: _flip(path, "card.json"), r"card\.json has SHA-256"),
    "signature that is not listed": (
        lambda path: (path / "manifest.json.minisig").write_bytes(b"x"),
        "manifest.json.minisig is not listed",
    ),
    "signature missing": (
        lambda path: (sign(path), (path / "manifest.json.minisig").unlink()),
        "manifest.json.minisig is missing",
    ),
    "signature too long": (lambda path: sign(path, bytes(4097)), "manifest.json.minisig has 4097 bytes"),
    "signature a link": (
        lambda path: (sign(path), _as(path, "manifest.json.minisig", lambda f: f.symlink_to("stem.fake"))),
        "manifest.json.minisig is a symbolic link",
    ),
    "extra file": (lambda path: (path / "notes.txt").write_text("x"), "notes.txt is not listed"),
    "extra hidden file": (lambda path: (path / ".DS_Stores").write_text("x"), "'.DS_Stores' is not listed"),
    "folder called as litter": (lambda path: (path / "._x").mkdir(), "'._x' is not listed"),
    "link called as litter": (lambda path: (path / "golden/.DS_Store").symlink_to("inputs.npy"), ".DS_Store"),
    "litter of another case": (lambda path: (path / "thumbs.db").write_text("x"), "thumbs.db is not listed"),
    "extra file in no alphabet": (
        lambda path: Path(os.fsdecode(bytes(path) + b"/\xff")).touch(),
        "is not listed in manifest.json; remove it",
    ),
    "extra folder that is hidden": (lambda path: (path / ".git").mkdir(), "'.git' is not listed"),
    "folders without end": (
        lambda path: (path / "/".join(["folder"] * 100)).mkdir(parents=True),
        "is not listed in manifest.json; remove it",
    ),
    "a crowd of folders": (
        lambda path: [(path / f"{number}").mkdir() for number in range(4200)],
        "holds more than 4096 files",
    ),
    "extra file below": (lambda path: (path / "golden" / "x").write_text("x"), "golden/x is not listed"),
    "extra manifest below": (
        lambda path: shutil.copy(path / "manifest.json", path / "golden"),
        "golden/manifest.json is not listed",
    ),
}


@pytest.mark.parametrize(("spoil", "problem"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_and_named(path, spoil, problem):
    spoil(path)
    with pytest.raises(IntegrityError, match=problem) as caught:
        Bundle.open(path)
    assert str(path) in str(caught.value)
    with pytest.raises(IntegrityError, match=problem):
        load_core().check_bundle(str(path))


def test_what_systems_leave_in_folders_is_no_damage_and_never_packed(path, tmp_path):
    names, packed = set(tree(path)), Bundle.open(path).pack(tmp_path / "before.zip").read_bytes()
    for name in (".DS_Store", "._stem.fake", "golden/._inputs.npy", "golden/Thumbs.db", "desktop.ini"):
        (path / name).write_bytes(b"x")
    load_core().check_bundle(str(path))
    bundle = Bundle.open(path)
    assert bundle.pack(tmp_path / "after.zip").read_bytes() == packed
    assert set(bundle.files()) <= names
    bundle.subset([0, 1, 2], path.parent / "smaller")
    assert not [name for name in tree(path.parent / "smaller") if name not in names]
    write_zip({**bundle.files(), "Thumbs.db": b"x"}, tmp_path / "with.zip")  # of a zip it was asked what goes in
    for open_it in (Bundle.open, load_core().check_bundle):
        with pytest.raises(IntegrityError, match=r"Thumbs\.db is not listed"):
            open_it(str(tmp_path / "with.zip"))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: None, "does not exist", id="nothing"),
        pytest.param(Path.mkdir, "has no manifest.json", id="empty folder"),
        pytest.param(lambda path: path.write_text("hello"), "neither a bundle folder nor a zip", id="text file"),
        pytest.param(lambda path: path.write_bytes(b""), "neither a bundle folder nor a zip", id="empty file"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path, make, problem):
    make(tmp_path / "it")
    with pytest.raises(IntegrityError, match=problem):
        Bundle.open(tmp_path / "it")


@pytest.mark.parametrize("path", ["a" * 5000, "a\0b"], ids=["long", "NUL"])
def test_a_path_that_cannot_be_is_an_integrity_error(path):
    for open_it in (Bundle.open, load_core().check_bundle):
        with pytest.raises(IntegrityError, match="cannot be read: "):
            open_it(path)


def test_a_folder_that_may_not_be_read_is_an_integrity_error(path, monkeypatch):
    """Root may read everything, so the system's refusal is staged."""

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("scandir", "open"):
        with monkeypatch.context() as staged:
            staged.setattr(os, name, refuse)
            with pytest.raises(IntegrityError, match="cannot be read: Permission denied"):
                Bundle.open(path)


def test_a_program_that_does_not_fit_into_memory_is_an_integrity_error(path, monkeypatch):
    def refuse(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("paraedge_runtime.storage.open", refuse, raising=False)
    with pytest.raises(IntegrityError, match="does not fit into free memory"):
        Bundle.open(path)


def test_what_was_checked_is_what_runs(path):
    """Programs stay in memory; the other files are checked again whenever they are read."""
    bundle = Bundle.open(path)
    before = {name: bundle.program(part) for name, part in bundle.manifest.parts().items()}
    for name in ("stem.fake", "branch_01.fake", INPUTS):
        _flip(path, name)
    (path / "branch_02.fake").unlink()
    assert {name: bundle.program(part) for name, part in bundle.manifest.parts().items()} == before
    assert bundle.read(bundle.manifest.stem) == before["stem"]
    with pytest.raises(IntegrityError, match=r"golden/inputs\.npy has SHA-256"):
        bundle.golden()


def test_a_signature_is_kept_and_counted_and_not_hashed(path, tmp_path):
    unsigned = Bundle.open(path)
    assert unsigned.signature_bytes is None
    sign(path)
    bundle = Bundle.open(path)
    load_core().check_bundle(str(path))
    assert bundle.signature_bytes == b"a signature"
    assert bundle.size_bytes == sum(len(data) for data in tree(path).values() if isinstance(data, bytes))
    zipped = Bundle.open(bundle.pack(tmp_path / "signed.zip"))
    load_core().check_bundle(str(zipped.path))
    assert zipped.files() == bundle.files() == {n: data for n, data in tree(path).items() if isinstance(data, bytes)}
    subset = bundle.subset([0], tmp_path / "subset")
    assert (subset.manifest.signature, subset.signature_bytes) == (None, None)


def test_opening_keeps_no_file_open_and_changes_nothing(tmp_path, path):
    zipped = Bundle.open(path).pack(tmp_path / "b.zip")
    before, descriptors = tree(tmp_path), os.listdir("/proc/self/fd")
    for place in (path, zipped):
        Bundle.open(place).golden()
    (path / "stem.fake").unlink()
    with pytest.raises(IntegrityError):
        Bundle.open(path)
    del before["good.paraedge/stem.fake"]
    assert tree(tmp_path) == before
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


# Golden arrays: the file is replaced and its hash made to fit, so that the content is what is refused.


def _npy(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version, allow_pickle=True)
    return stream.getvalue()


def _header(text):
    """An .npy file with this header and no data."""
    raw = text.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw


def _described(descr="|u1", order="False", shape="(4, 8, 8, 1)"):
    return _header(f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n")


class _Evil:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return exec, ("import os; os.environ['PARAEDGE_TEST_UNPICKLED'] = '1'",)


GOOD_INPUTS = np.zeros((4, *IMAGE_SHAPE), dtype=np.uint8)
BAD_INPUTS = {
    "too few": _npy(GOOD_INPUTS[:3]),
    "too many": _npy(np.concatenate([GOOD_INPUTS, GOOD_INPUTS])),
    "none": _npy(GOOD_INPUTS[:0]),
    "other size": _npy(np.zeros((4, 8, 9, 1), np.uint8)),
    "NCHW": _npy(GOOD_INPUTS.transpose(0, 3, 1, 2)),
    "flat": _npy(GOOD_INPUTS.ravel()),
    "a number": _npy(np.uint8(5)),
    "int8": _npy(GOOD_INPUTS.astype(np.int8)),
    "bool": _npy(GOOD_INPUTS.astype(bool)),
    "float32": _npy(GOOD_INPUTS.astype(np.float32)),
    "text": _npy(GOOD_INPUTS.astype("U1")),
    "Fortran order": _npy(np.asfortranarray(np.zeros((4, 8, 8, 1), np.uint8))),
    "objects": _npy(np.full((4, 8, 8, 1), None)),
    "evil objects": _npy(np.full((4, 8, 8, 1), _Evil())),
    "structured": _npy(np.zeros((4, 8, 8, 1), [("a", "u1")])),
    "gigantic shape": _described(shape="(4, 1048576, 1048576, 1048576)"),
    "shape beyond 64 bits": _described(shape=f"({1 << 70}, 1)"),
    "negative shape": _described(shape="(-4, 8, 8, 1)"),
    "shape a list": _described(shape="[4, 8, 8, 1]"),
    "no data": _described(),
    "data too short": _npy(GOOD_INPUTS)[:-1],
    "data too long": _npy(GOOD_INPUTS) + b"\0",
    "format 2.0": _npy(GOOD_INPUTS, (2, 0)),
    "format 3.0": _npy(GOOD_INPUTS, (3, 0)),
    "format 9.9": b"\x93NUMPY\x09\x09" + _npy(GOOD_INPUTS)[8:],
    "empty file": b"",
    "no array": b"hello, this is text",
    "magic only": b"\x93NUMPY\x01\x00",
    "header cut off": _npy(GOOD_INPUTS)[:40],
    "header empty": _header(""),
    "header no dictionary": _header("[]"),
    "header lacks a key": _header("{'descr': '|u1', 'shape': (4, 8, 8, 1)}"),
    "header open": _header("("),
    "header open text": _header("'''"),
    "header badly indented": _header("  x\n y"),
    "header nested": _header("(" * 400),
    "header recursive": _header("-" * 9000 + "1"),
    "header unhashable": _header("{[]: 1}"),
    "header with code": _header("__import__('os').abort()"),
    "header NUL": _header("\0"),
    "header beyond numpy's limit": _header(" " * 20_000 + "{}"),
    "dtype nonsense": _described("nonsense"),
    "dtype empty": _described(()),
    "dtype half a tuple": _described(("<f4",)),
    "dtype half a field": _described([("a",)]),
    "dtype a number": _described(5),
    "integers of Python 2": _described(shape="(4L, 8L, 8L, 1L)"),
}
GOOD_OUTPUTS = np.zeros((4, 3, NUM_LABELS), dtype=np.float32)
BAD_OUTPUTS = {
    "too few images": _npy(GOOD_OUTPUTS[:3]),
    "too few branches": _npy(GOOD_OUTPUTS[:, :2]),
    "too few labels": _npy(GOOD_OUTPUTS[:, :, :2]),
    "float64": _npy(GOOD_OUTPUTS.astype(np.float64)),
    "float16": _npy(GOOD_OUTPUTS.astype(np.float16)),
    "complex64": _npy(GOOD_OUTPUTS.astype(np.complex64)),
    "int32": _npy(GOOD_OUTPUTS.astype(np.int32)),
    "big-endian": _npy(GOOD_OUTPUTS.astype(">f4")),
    "Fortran order": _npy(np.asfortranarray(GOOD_OUTPUTS)),
    "the images": _npy(GOOD_INPUTS),
}
BAD_GOLDEN = [
    *(pytest.param(INPUTS, data, id=f"images {name}") for name, data in BAD_INPUTS.items()),
    *(pytest.param(OUTPUTS, data, id=f"outputs {name}") for name, data in BAD_OUTPUTS.items()),
]


@pytest.mark.parametrize(("name", "data"), BAD_GOLDEN)
def test_golden_files_that_are_not_the_arrays_are_refused(path, name, data):
    replace_file(path, name, data)
    bundle = Bundle.open(path)
    with pytest.raises(IntegrityError, match=f"{name} (holds|is not an array)|golden data has"):
        bundle.golden()
    assert "PARAEDGE_TEST_UNPICKLED" not in os.environ


def test_golden_is_what_was_written(path):
    replace_file(path, INPUTS, _npy(GOOD_INPUTS + 7))
    replace_file(path, OUTPUTS, _npy(GOOD_OUTPUTS + 0.5))
    golden = Bundle.open(path).golden()
    assert golden.inputs.dtype == np.uint8
    assert (golden.inputs == 7).all()
    assert golden.inputs.shape == (4, *IMAGE_SHAPE)
    assert golden.branch_outputs.dtype == np.float32
    assert (golden.branch_outputs == 0.5).all()
    assert golden.branch_outputs.shape == (4, 3, NUM_LABELS)
    assert golden.labels.tolist() == [0, 1, 2, 0]


def test_golden_data_and_its_files_are_each_others_inverse(tmp_path):
    outputs = np.arange(36, dtype=np.float32).reshape(4, 3, 3)
    files = GoldenData(GOOD_INPUTS, outputs, np.array([0, 1, 2, 0])).files()
    assert set(files) == {INPUTS, OUTPUTS}
    assert np.array_equal(np.load(io.BytesIO(files[INPUTS])), GOOD_INPUTS)
    assert np.array_equal(np.load(io.BytesIO(files[OUTPUTS])), outputs)


def test_golden_data_of_tensors_and_vectors(sensor_path):
    inputs = np.arange(2 * 6 * 16, dtype=np.float32).reshape(2, 6, 16)
    outputs = np.arange(2 * 3 * 7, dtype=np.float32).reshape(2, 3, 7)
    replace_file(sensor_path, INPUTS, _npy(inputs))
    replace_file(sensor_path, OUTPUTS, _npy(outputs))
    golden = Bundle.open(sensor_path).golden()
    assert np.array_equal(golden.inputs, inputs)
    assert np.array_equal(golden.branch_outputs, outputs)
    assert golden.labels is None


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        (INPUTS, _npy(np.zeros((4, 6, 16), np.uint8)), r"inputs\.npy holds"),
        (INPUTS, _npy(np.zeros((4, 1, 6, 16), np.float32)), r"inputs\.npy holds"),
        (INPUTS, _npy(np.full((4, 6, 16), np.nan, np.float32)), r"inputs\.npy has non-finite values"),
        (OUTPUTS, _npy(np.full((4, 3, 7), np.inf, np.float32)), r"branch_outputs\.npy has non-finite values"),
        (OUTPUTS, _npy(np.zeros((5, 3, 7), np.float32)), "the golden data has 4 inputs, 5 outputs"),
    ],
)
def test_golden_tensors_that_are_not_right_are_refused(sensor_path, name, data, problem):
    replace_file(sensor_path, name, data)
    with pytest.raises(IntegrityError, match=problem):
        Bundle.open(sensor_path).golden()


# Anything at all -------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 1 << 20, 1 << 53, 1 << 64, 1e400, -0.0, 5e-324])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "",
            "..",
            "golden",
            "stem.fake",
            "card.json",
            "manifest.json.minisig",
            "paraedge-bundle/2",
            "tensor",
            "vector",
            "\ud800",
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_SETTINGS = settings(deadline=None, max_examples=300, derandomize=True, database=None)


@pytest.fixture(scope="module", params=["labels", "vectors"])
def good(request, tmp_path_factory):
    """A good bundle, opened again and again with other manifests, and what is in it."""
    kinds = {} if request.param == "labels" else {"input": MOTION, "output": EMBEDDING}
    path = fake_bundle(tmp_path_factory.mktemp("mutated") / "good.paraedge", **kinds).path
    return path, tree(path)


def _containers(node):
    if isinstance(node, dict | list):
        yield node
        for value in node.values() if isinstance(node, dict) else node:
            yield from _containers(value)


def _mutate(data, document):
    node = data.draw(st.sampled_from(list(_containers(document))), label="container")
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if isinstance(node, dict):
        actions = ["replace", "delete", "rename", "add"]
    else:
        actions = ["replace", "delete", "duplicate", "swap", "insert"]
    action = data.draw(st.sampled_from(actions if keys else actions[-1:]), label="action")
    key = data.draw(st.sampled_from(keys), label="key") if keys else 0
    if action == "replace":
        node[key] = data.draw(_JSON, label="value")
    elif action == "delete":
        del node[key]
    elif action == "rename":
        node[data.draw(st.text(max_size=9), label="name")] = node.pop(key)
    elif action == "add":
        node[data.draw(st.text(max_size=9), label="name")] = data.draw(_JSON, label="value")
    elif action == "duplicate":
        node.append(copy.deepcopy(node[key]))
    elif action == "swap":
        other = data.draw(st.sampled_from(keys), label="other")
        node[key], node[other] = node[other], node[key]
    else:
        node.insert(key, data.draw(_JSON, label="value"))


def _open_or_refuse(path, before, raw):
    """Open the bundle with these bytes as its manifest: it is a good one, or a ``BundleError``.

    The native reader says the same.
    """
    write_manifest(path, raw)
    try:
        bundle = Bundle.open(path)
    except BundleError:
        with pytest.raises(BundleError):
            load_core().check_bundle(str(path))
    else:
        load_core().check_bundle(str(path))
        assert bundle.manifest == decode_manifest(raw)
        with contextlib.suppress(BundleError):
            golden = bundle.golden()
            assert len(golden.inputs) == len(golden.branch_outputs)
            assert golden.branch_outputs.shape[1:] == (len(bundle.manifest.branches), bundle.manifest.num_outputs)
    assert tree(path) == {**before, "manifest.json": raw, "manifest.sha256": hash_line(raw)}


@_SETTINGS
@given(data=st.data())
def test_any_change_of_the_document_is_fine_or_a_bundle_error(good, data):
    path, before = good
    document = json.loads(before["manifest.json"])
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        _mutate(data, document)
    _open_or_refuse(path, before, json.dumps(document).encode())


@_SETTINGS
@given(data=st.data())
def test_any_change_of_the_bytes_is_fine_or_a_bundle_error(good, data):
    path, before = good
    raw = bytearray(before["manifest.json"])
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        start = data.draw(st.integers(0, len(raw)), label="start")
        end = data.draw(st.integers(start, min(start + 9, len(raw))), label="end")
        raw[start:end] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"-", b"9", b"e9", b"\\u"]),
            label="new",
        )
    _open_or_refuse(path, before, bytes(raw))


# Writing ---------------------------------------------------------------------------------------


def _files(bundle):
    """Of a bundle, as ``write_bundle`` takes them."""
    return {n: data for n, data in bundle.files().items() if n not in ("manifest.json", "manifest.sha256", "card.json")}


def test_written_bundle_is_exactly_its_files(tmp_path):
    bundle = fake_bundle(tmp_path / "deep" / "b.paraedge")
    assert set(tree(tmp_path / "deep" / "b.paraedge")) == {
        "manifest.json",
        "manifest.sha256",
        "card.json",
        "stem.fake",
        *(f"branch_{place:02d}.fake" for place in range(3)),
        "golden",
        INPUTS,
        OUTPUTS,
    }
    assert os.listdir(tmp_path / "deep") == ["b.paraedge"]
    assert bundle.path == tmp_path / "deep" / "b.paraedge"
    assert Bundle.open(str(bundle.path)).manifest == bundle.manifest
    assert repr(bundle) == f"Bundle('{bundle.path}', branches=[0, 1, 2])"
    assert bundle.size_bytes == sum(len(data) for data in tree(bundle.path).values() if isinstance(data, bytes))


def test_same_content_makes_the_same_bytes(tmp_path):
    one, two = (fake_bundle(tmp_path / name) for name in ("one", "two"))
    assert tree(one.path) == tree(two.path)
    assert one.pack(tmp_path / "1.zip").read_bytes() == two.pack(tmp_path / "2.zip").read_bytes()


def test_a_bundle_is_replaced_by_the_next(tmp_path):
    fake_bundle(tmp_path / "b", [{}] * 5)
    replaced = fake_bundle(tmp_path / "b", [{}] * 2)
    assert replaced.manifest.branch_indexes == (0, 1)
    assert "branch_04.fake" not in tree(tmp_path / "b")
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda files: files.pop("stem.fake"), BundleError, id="file missing"),
        pytest.param(lambda files: files.update({"stem.fake": b"other"}), IntegrityError, id="other bytes"),
        pytest.param(lambda files: files.update({"extra": b""}), BundleError, id="unlisted file"),
        pytest.param(lambda files: files.update({"stem.fake": None}), TypeError, id="no bytes"),
        pytest.param(lambda files: files.update({"golden": b""}), BundleError, id="file where a folder is"),
        pytest.param(lambda files: files.update({"../escaped": b""}), BundleError, id="path out of the folder"),
    ],
)
@pytest.mark.parametrize("stood", [True, False], ids=["replacing", "nothing there"])
def test_writing_that_fails_leaves_what_was(tmp_path, spoil, error, stood):
    bundle = fake_bundle(tmp_path / "b")
    files, card, manifest = _files(bundle), bundle.card, replace(bundle.manifest, name="newer")
    if not stood:
        shutil.rmtree(tmp_path / "b")
    before = tree(tmp_path)
    spoil(files)
    with pytest.raises(error):
        write_bundle(manifest, card, files, tmp_path / "b")
    assert tree(tmp_path) == before


def test_a_manifest_that_contradicts_itself_is_not_written(tmp_path):
    bundle = fake_bundle(tmp_path / "b")
    before = tree(tmp_path)
    with pytest.raises(ManifestError, match="total_branches"):
        write_bundle(replace(bundle.manifest, total_branches=1), bundle.card, _files(bundle), tmp_path / "b")
    assert tree(tmp_path) == before


def _browser_extension(path):
    path.mkdir()
    (path / "manifest.json").write_text('{"manifest_version": 3}')
    (path / "thesis.txt").write_text("precious")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.mkdir(), id="empty folder"),
        pytest.param(lambda path: (path / "thesis").mkdir(parents=True), id="folder of something else"),
        pytest.param(lambda path: (path / "manifest.json").mkdir(parents=True), id="manifest that is a folder"),
        pytest.param(lambda path: path.write_text("thesis"), id="file"),
        pytest.param(_browser_extension, id="folder with a manifest.json of something else"),
        pytest.param(lambda path: path.symlink_to("other"), id="link to a bundle"),
        pytest.param(lambda path: path.symlink_to("gone"), id="link to nothing"),
    ],
)
def test_what_is_no_bundle_folder_is_never_replaced(tmp_path, make):
    bundle = fake_bundle(tmp_path / "good")
    fake_bundle(tmp_path / "other")
    make(tmp_path / "target")
    before = tree(tmp_path)
    problem = r"target exists and is not a bundle folder; choose another name with --out"
    with pytest.raises(BundleError, match=problem):
        write_bundle(bundle.manifest, bundle.card, _files(bundle), tmp_path / "target")
    with pytest.raises(BundleError, match=problem):
        bundle.subset([0], tmp_path / "target")
    assert tree(tmp_path) == before


def _with(name):
    def make(path):
        fake_bundle(path)
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("precious")

    return make


def _without_a_part(path):
    fake_bundle(path)
    (path / "stem.fake").unlink()


def _of_another_format(path):
    fake_bundle(path)
    edit_manifest(path, lambda document: document.update(format="paraedge-bundle/7"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        pytest.param(_with("thesis.txt"), r"thesis\.txt is not listed", id="a file beside it"),
        pytest.param(_with("photos/p.jpg"), r"photos/p\.jpg is not listed", id="a folder beside it"),
        pytest.param(_with("stem.fake"), r"stem\.fake has \d+ bytes", id="a part of one's own"),
        pytest.param(_without_a_part, r"stem\.fake is missing", id="less than a bundle"),
        pytest.param(_of_another_format, r"'paraedge-bundle/7', newer", id="of another format"),
    ],
)
def test_what_is_more_or_less_than_a_bundle_is_never_replaced(tmp_path, make, named):
    bundle = fake_bundle(tmp_path / "good")
    make(tmp_path / "target")
    before = tree(tmp_path)
    problem = rf"target exists and is not a whole bundle, so it is not replaced; .*{named}"
    with pytest.raises(BundleError, match=problem):
        write_bundle(bundle.manifest, bundle.card, _files(bundle), tmp_path / "target")
    with pytest.raises(BundleError, match=problem):
        bundle.subset([0], tmp_path / "target")
    assert tree(tmp_path) == before


# Subsets ---------------------------------------------------------------------------------------


@pytest.fixture
def four(tmp_path):
    return fake_bundle(tmp_path / "four.paraedge", [{"add": float(number)} for number in range(4)])


@pytest.mark.parametrize(
    ("chosen", "is_prefix"),
    [([0], True), ([0, 1], True), ([0, 1, 2, 3], True), ([1], False), ([0, 2], False), ([1, 2, 3], False)],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_subset(tmp_path, four, chosen, is_prefix, kind):
    whole = four if kind == "folder" else Bundle.open(four.pack(tmp_path / "four.zip"))
    small = whole.subset(iter(chosen), tmp_path / "small.paraedge")
    count, manifest = len(chosen), whole.manifest
    assert small.path == tmp_path / "small.paraedge"
    assert small.manifest.branch_indexes == tuple(chosen)
    assert small.manifest.total_branches == manifest.total_branches
    assert small.manifest.branches == tuple(manifest.branches[place] for place in chosen)
    for entry in small.manifest.parts().values():
        assert (small.path / entry.file).read_bytes() == (four.path / entry.file).read_bytes()
    if is_prefix:
        assert small.card.accuracy.prefix_accuracy == whole.card.accuracy.prefix_accuracy[:count]
        assert small.card.parity.prefixes == whole.card.parity.prefixes[:count]
    else:
        assert small.card.accuracy is None
        assert small.card.parity.prefixes == ()
    # What early stop promises is against all branches of the bundle that it was calibrated for.
    # The temperatures of confidences are those of the prefixes, and stay.
    temperatures = [rule.temperature for rule in manifest.stop_rules[:count]] if is_prefix else []
    assert [rule.temperature for rule in small.manifest.stop_rules or ()] == temperatures
    if count == 4:
        assert small.manifest.stop_rules == manifest.stop_rules
    elif is_prefix:
        assert not any(rule.threshold for rule in small.manifest.stop_rules)
    else:
        assert small.manifest.stop_rules is None
    assert small.card.early_stop == (whole.card.early_stop if count == 4 else None)
    assert set(small.card.parts) == {"stem", *(f"branch_{index:02d}" for index in chosen)}
    golden, expected = small.golden(), whole.golden()
    assert np.array_equal(golden.inputs, expected.inputs)
    assert np.array_equal(golden.branch_outputs, expected.branch_outputs[:, chosen])
    assert np.array_equal(golden.labels, expected.labels)


def test_subset_of_a_subset_speaks_of_the_first_models_branches(tmp_path, four):
    second = four.subset([1, 2, 3], tmp_path / "second").subset([1, 3], tmp_path / "third")
    assert second.manifest.branch_indexes == (1, 3)
    assert np.array_equal(second.golden().branch_outputs, four.golden().branch_outputs[:, [1, 3]])
    assert second.card.parity.prefixes == ()


def test_subset_of_everything_is_the_same_bundle(tmp_path, four):
    assert tree(four.subset(range(4), tmp_path / "all").path) == tree(four.path)


def test_subset_leaves_a_fused_model_out(tmp_path, path):
    (path / "fused.fake").write_bytes(b"{}")
    entry = file_entry("fused.fake", b"{}")
    edit_manifest(path, fused(size_bytes=entry.size_bytes, sha256=entry.sha256))
    small = Bundle.open(path).subset([0, 1], tmp_path / "small")
    assert small.manifest.fused is None
    assert "fused.fake" not in tree(tmp_path / "small")


def test_subset_of_a_bundle_without_accuracy(tmp_path):
    assert fake_bundle(tmp_path / "b", accuracy=None).subset([0], tmp_path / "s").card.accuracy is None


@pytest.mark.parametrize(
    "chosen", [[], [4], [-1], [0, 9], [1, 0], [1, 1], ["0"]], ids=lambda chosen: str(chosen) or "none"
)
def test_subset_refuses_branches_it_cannot_take(tmp_path, four, chosen):
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"invalid branches .*four\.paraedge has \[0, 1, 2, 3\]; give unique"):
        four.subset(chosen, tmp_path / "small")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("spelled", ["four.paraedge", "x/../four.paraedge", "link", "four.paraedge/inner"])
def test_subset_refuses_to_write_onto_itself(tmp_path, four, spelled):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("four.paraedge")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="is the bundle itself, or inside it; choose another name with --out"):
        four.subset([0], tmp_path / spelled)
    assert tree(tmp_path) == before


def test_nothing_is_written_into_a_bundle(tmp_path, four):
    small = four.subset([0], tmp_path / "small.paraedge")
    write_update(small, four, tmp_path / "update.zip")
    (tmp_path / "link").symlink_to("four.paraedge/golden")
    before = tree(tmp_path)
    for out in (four.path / "x", four.path / "golden" / "x", tmp_path / "link" / "x"):
        for write in (four.pack, lambda path: write_update(small, four, path), lambda path: four.subset([0], path)):
            with pytest.raises(InputError, match="is the bundle itself, or inside it; choose another name with --out"):
                write(out)
    with pytest.raises(InputError, match="is the bundle itself, or inside it"):
        apply_update(small, tmp_path / "update.zip", small.path / "x")
    assert tree(tmp_path) == before


def test_subset_of_a_bundle_with_bad_golden_data_writes_nothing(tmp_path, path):
    replace_file(path, OUTPUTS, b"no array")
    bundle = Bundle.open(path)
    before = tree(tmp_path)
    with pytest.raises(IntegrityError, match="is not an array"):
        bundle.subset([0], tmp_path / "small")
    assert tree(tmp_path) == before


def test_subset_of_vectors_and_files_that_are_nobodys(tmp_path, sensor_path):
    (sensor_path / "notes.txt").write_text("of the model")
    entry = file_entry("notes.txt", b"of the model")
    edit_manifest(
        sensor_path,
        lambda document: document["files"].append(
            {"file": entry.file, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
        ),
    )
    whole = Bundle.open(sensor_path)
    small = whole.subset([0, 2], tmp_path / "small")
    load_core().check_bundle(str(small.path))
    assert (small.path / "notes.txt").read_text() == "of the model"
    assert small.golden().labels is None
    assert np.array_equal(small.golden().branch_outputs, whole.golden().branch_outputs[:, [0, 2]])


def test_a_bundle_with_a_bad_card_is_not_written(tmp_path, path):
    edit_card(path, lambda card: card["parts"].pop("branch_01"))
    bundle = Bundle.open(path)
    before = tree(tmp_path)
    card = fake_bundle(tmp_path / "other").card
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(IntegrityError, match=r"card\.json"):
        write_bundle(bundle.manifest, card, _files(bundle), tmp_path / "new")
    with pytest.raises(ManifestError, match=r"card\.json: field 'parts'"):
        bundle.subset([0], tmp_path / "new")
    assert tree(tmp_path) == before


# Packing ---------------------------------------------------------------------------------------


def test_pack_gives_a_zip_that_is_the_same_bundle(tmp_path, path):
    bundle = Bundle.open(path)
    packed = bundle.pack(str(tmp_path / "b.zip"))
    zipped = Bundle.open(packed)
    assert packed == tmp_path / "b.zip"
    assert zipped.manifest == bundle.manifest
    assert zipped.path == packed
    assert _files(zipped) == _files(bundle)
    assert zipped.size_bytes == bundle.size_bytes
    assert zipped.pack(tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert zipped.pack(packed).read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_pack_onto_a_folder_is_refused(tmp_path, path):
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="is a folder; name the file to write with --out"):
        Bundle.open(path).pack(path)
    assert tree(tmp_path) == before


def test_pack_of_a_bundle_damaged_since_writes_nothing(tmp_path, path):
    bundle = Bundle.open(path)
    _flip(path, INPUTS)
    before = tree(tmp_path)
    with pytest.raises(IntegrityError, match=r"golden/inputs\.npy"):
        bundle.pack(tmp_path / "b.zip")
    assert tree(tmp_path) == before


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    bundle = fake_bundle(tmp_path / "b")
    raw = (bundle.path / "manifest.json").read_bytes()
    write_manifest(bundle.path, raw.replace(b'"name": "fake"', b'"name": "first",\n  "name": "fake"', 1))
    with pytest.raises(ManifestError, match="field 'name' is there twice"):
        Bundle.open(bundle.path)


def _photos(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", "precious")


def _bundle_with_a_photo(path):
    fake_bundle(path.with_name("packed")).pack(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("holiday.jpg", "precious")


def _link_to_a_packed_bundle(path):
    path.symlink_to(fake_bundle(path.with_name("packed")).pack(path.with_name("packed.zip")))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.write_text("precious"), id="text"),
        pytest.param(_photos, id="another zip"),
        pytest.param(_bundle_with_a_photo, id="a bundle and more"),
        pytest.param(_link_to_a_packed_bundle, id="a link"),
        pytest.param(lambda path: path.symlink_to("gone"), id="a link to nothing"),
    ],
)
def test_pack_leaves_what_is_no_packed_bundle_alone(tmp_path, make):
    bundle = fake_bundle(tmp_path / "b")
    make(tmp_path / "mine")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=r"mine exists and is not a packed bundle; choose another name with --out"):
        bundle.pack(tmp_path / "mine")
    assert tree(tmp_path) == before


def test_pack_replaces_a_packed_bundle(tmp_path):
    fake_bundle(tmp_path / "old").pack(tmp_path / "b.zip")
    new = fake_bundle(tmp_path / "new", [{}] * 5)
    assert Bundle.open(new.pack(tmp_path / "b.zip")).sha256 == new.sha256


def test_opening_a_broken_bundle_leaks_no_descriptor(tmp_path):
    bundle = fake_bundle(tmp_path / "b")
    _flip(bundle.path, OUTPUTS)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(IntegrityError, match="golden"):
            Bundle.open(bundle.path)
    assert len(os.listdir("/proc/self/fd")) == before


# While it is replaced --------------------------------------------------------------------------


def _put_another(place, behaviours):
    """By another writer, whose own reading of the place is none of the test's."""
    new = fake_bundle(place.with_name("new"), behaviours)
    shutil.rmtree(place)
    new.path.rename(place)


@pytest.fixture
def replaced_while_read(monkeypatch):
    """Calls ``replace(number)`` after the file list of attempt ``number`` to read the folder, ``times`` times."""

    def install(replace, times):
        names, count = FolderStorage.names, 0

        def listed(storage):
            nonlocal count
            found = names(storage)
            if storage.path.name == "b" and count < times:
                count += 1
                replace(count)
            return found

        monkeypatch.setattr(FolderStorage, "names", listed)

    return install


@pytest.mark.parametrize("times", [1, 3])
def test_a_bundle_that_is_replaced_while_it_is_read_is_the_new_one(tmp_path, replaced_while_read, times):
    fake_bundle(tmp_path / "b", [{}] * 3)
    replaced_while_read(lambda number: _put_another(tmp_path / "b", [{"add": float(number)}] * (1 + number % 2)), times)
    opened = Bundle.open(tmp_path / "b")
    assert opened.program(opened.manifest.branches[0]) == json.dumps({"add": float(times)}).encode()
    assert len(opened.manifest.branches) == 1 + times % 2


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
def test_every_open_during_replacement_succeeds(tmp_path):
    """Of a folder and a zip, in Python and in C, until both bundles were met at both places."""
    met = replacing.run(400, tmp_path)
    assert sum(met.values()) >= 400
    assert len(met) == 6


def test_a_bundle_that_is_replaced_without_end_is_refused(tmp_path, replaced_while_read):
    fake_bundle(tmp_path / "b")
    replaced_while_read(lambda number: _put_another(tmp_path / "b", [{}] * (1 + number % 2)), 1000)
    with pytest.raises(IntegrityError):
        Bundle.open(tmp_path / "b")


def test_damage_is_said_at_once(tmp_path, monkeypatch):
    fake_bundle(tmp_path / "b")
    _flip(tmp_path / "b", "stem.fake")
    names, calls = FolderStorage.names, []
    monkeypatch.setattr(FolderStorage, "names", lambda storage: calls.append(1) or names(storage))
    with pytest.raises(IntegrityError, match=r"stem\.fake"):
        Bundle.open(tmp_path / "b")
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["manifest.json", "card.json"])
def test_what_is_wrong_in_a_record_is_said_with_the_bundle_s_name(tmp_path, name):
    path = fake_bundle(tmp_path / "mine.paraedge").path
    if name == "manifest.json":
        edit_manifest(path, lambda document: document.update(total_branches=1))
    else:
        edit_card(path, lambda document: document.update(license=7))
    with pytest.raises(ManifestError, match=rf"mine\.paraedge: {name}"):
        _ = Bundle.open(path).card


def test_a_prefix_without_thresholds_keeps_its_calibration(tmp_path, fake_engine):
    """The confidences of the first two branches are the same numbers in a bundle of the two; early stop is refused."""
    whole = fake_bundle(tmp_path / "whole", [{"add": 0.1}, {"add": 0.5}, {"add": 1.0}])
    small = whole.subset(2, tmp_path / "small")
    with Session.open(whole, branches=2) as before, Session.open(small) as after:
        expected, found = before.run(image()), after.run(image())
        assert found.is_calibrated
        assert found.confidence == expected.confidence
        with pytest.raises(InputError, match="early_stop needs thresholds"):
            after.run(image(), early_stop=True)
    with Session.open(small.subset(1, tmp_path / "one")) as one:
        assert one.run(image(), early_stop=True).is_calibrated  # there is nothing to stop
