"""``manifest.json`` by itself: literal bytes, every field required, every type checked.

Fields that contradict each other are in ``test_bundle.py``, where they meet the reader.
"""

import copy
import json

import pytest

from paraedge_runtime import ManifestError
from paraedge_runtime.manifest import (
    FORMAT,
    MAX_MANIFEST_BYTES,
    Accuracy,
    BranchEntry,
    EarlyStop,
    FileEntry,
    Golden,
    HeldOut,
    InputSpec,
    Manifest,
    Parity,
    PartEntry,
    PrefixParity,
    Similarity,
    StopRule,
    decode_manifest,
    encode_manifest,
)

SHA = "5f" * 32
SIMILAR = Similarity(snr_db=None, cosine=1.0, max_abs_error=0.0)
MANIFEST = Manifest(
    format="paraedge-bundle/1",
    name="tiny-1.0",
    description="a tiny model × 2",
    license="Apache-2.0",
    labels=("ant", "bee"),
    input=InputSpec(
        name="image", shape=(1, 3, 4, 4), dtype="float32", layout="NCHW", mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 0.5)
    ),
    stem=PartEntry(
        file="stem.onnx",
        size_bytes=7,
        sha256=SHA,
        input_shape=(1, 3, 4, 4),
        output_shape=(1, 5, 4),
        parameters=12,
        macs=34,
        operators={"Conv": 1},
    ),
    branches=(
        BranchEntry(
            file="branch_03.onnx",
            size_bytes=8,
            sha256=SHA,
            input_shape=(1, 5, 4),
            output_shape=(1, 2),
            parameters=5,
            macs=6,
            operators={},
            index=3,
        ),
    ),
    total_branches=8,
    fused=None,
    engine="onnxruntime",
    engine_min_version={"onnxruntime": "1.19"},
    target="linux",
    recipe="fp32",
    accuracy=Accuracy(dataset="a test split", num_samples=10, prefix_accuracy=(0.5,)),
    early_stop=EarlyStop(
        dataset="a test split",
        num_samples=5,
        max_accuracy_drop=0.005,
        risk_confidence=0.95,
        prefixes=(StopRule(temperature=1.25, threshold=None),),
        held_out=HeldOut(num_samples=4, accuracy_full=0.5, accuracy_stopped=0.5, mean_branches=1.0),
    ),
    parity=Parity(
        reference="torch 2.13.0",
        num_samples=16,
        min_snr_db=100.0,
        min_top1_agreement=1.0,
        parts={"stem": SIMILAR, "branch_03": SIMILAR},
        prefixes=(PrefixParity(snr_db=120.5, cosine=1.0, max_abs_error=1e-6, top1_agreement=1.0),),
        verdict="passed",
    ),
    golden=Golden(
        images=FileEntry(file="golden/images.npy", size_bytes=9, sha256=SHA),
        branch_outputs=FileEntry(file="golden/branch_outputs.npy", size_bytes=10, sha256=SHA),
        labels=(0, 1),
    ),
    tool_versions={"torch": "2.13.0"},
    checkpoint_sha256=SHA,
)

TEXT = """{
  "format": "paraedge-bundle/1",
  "name": "tiny-1.0",
  "description": "a tiny model × 2",
  "license": "Apache-2.0",
  "labels": [
    "ant",
    "bee"
  ],
  "input": {
    "name": "image",
    "shape": [
      1,
      3,
      4,
      4
    ],
    "dtype": "float32",
    "layout": "NCHW",
    "mean": [
      0.5,
      0.25,
      0.0
    ],
    "std": [
      1.0,
      2.0,
      0.5
    ]
  },
  "stem": {
    "file": "stem.onnx",
    "size_bytes": 7,
    "sha256": "SHA",
    "input_shape": [
      1,
      3,
      4,
      4
    ],
    "output_shape": [
      1,
      5,
      4
    ],
    "parameters": 12,
    "macs": 34,
    "operators": {
      "Conv": 1
    }
  },
  "branches": [
    {
      "file": "branch_03.onnx",
      "size_bytes": 8,
      "sha256": "SHA",
      "input_shape": [
        1,
        5,
        4
      ],
      "output_shape": [
        1,
        2
      ],
      "parameters": 5,
      "macs": 6,
      "operators": {},
      "index": 3
    }
  ],
  "total_branches": 8,
  "fused": null,
  "engine": "onnxruntime",
  "engine_min_version": {
    "onnxruntime": "1.19"
  },
  "target": "linux",
  "recipe": "fp32",
  "accuracy": {
    "dataset": "a test split",
    "num_samples": 10,
    "prefix_accuracy": [
      0.5
    ]
  },
  "early_stop": {
    "dataset": "a test split",
    "num_samples": 5,
    "max_accuracy_drop": 0.005,
    "risk_confidence": 0.95,
    "prefixes": [
      {
        "temperature": 1.25,
        "threshold": null
      }
    ],
    "held_out": {
      "num_samples": 4,
      "accuracy_full": 0.5,
      "accuracy_stopped": 0.5,
      "mean_branches": 1.0
    }
  },
  "parity": {
    "reference": "torch 2.13.0",
    "num_samples": 16,
    "min_snr_db": 100.0,
    "min_top1_agreement": 1.0,
    "parts": {
      "stem": {
        "snr_db": null,
        "cosine": 1.0,
        "max_abs_error": 0.0
      },
      "branch_03": {
        "snr_db": null,
        "cosine": 1.0,
        "max_abs_error": 0.0
      }
    },
    "prefixes": [
      {
        "snr_db": 120.5,
        "cosine": 1.0,
        "max_abs_error": 1e-6,
        "top1_agreement": 1.0
      }
    ],
    "verdict": "passed"
  },
  "golden": {
    "images": {
      "file": "golden/images.npy",
      "size_bytes": 9,
      "sha256": "SHA"
    },
    "branch_outputs": {
      "file": "golden/branch_outputs.npy",
      "size_bytes": 10,
      "sha256": "SHA"
    },
    "labels": [
      0,
      1
    ]
  },
  "tool_versions": {
    "torch": "2.13.0"
  },
  "checkpoint_sha256": "SHA"
}
""".replace("SHA", SHA)

# With a fused model too, so that its fields are walked.
DOCUMENT = json.loads(TEXT)
DOCUMENT["fused"] = {**DOCUMENT["stem"], "file": "fused.onnx", "output_shape": [1, 2]}

# Objects whose keys are names, not fields.
DICTIONARIES = {"engine_min_version", "tool_versions", "operators", "parts"}


def _paths(node, before=()):
    """Every place of a document below the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from _paths(value, (*before, key))


def _parent(document, path):
    for key in path[:-1]:
        document = document[key]
    return document


def _dotted(path):
    return ".".join(map(str, path))


PLACES = sorted(_paths(DOCUMENT), key=_dotted)
FIELDS = [path for path in PLACES if isinstance(path[-1], str) and (len(path) == 1 or path[-2] not in DICTIONARIES)]
RECORDS = sorted({path[:-1] for path in FIELDS}, key=_dotted)


def _decode(document):
    return decode_manifest(json.dumps(document).encode())


def test_encoding_is_these_literal_bytes():
    assert encode_manifest(MANIFEST) == TEXT.encode()


def test_decoding_gives_it_back():
    assert decode_manifest(TEXT.encode()) == MANIFEST
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


def test_spaces_and_order_of_fields_do_not_matter():
    shuffled = dict(reversed(json.loads(TEXT).items()))
    assert decode_manifest(json.dumps(shuffled, indent=7).encode()) == MANIFEST


def test_a_decoded_manifest_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        MANIFEST.name = "other"


def test_what_it_derives():
    manifest = _decode(DOCUMENT)
    assert manifest.num_outputs == 2
    assert manifest.branch_indexes == (3,)
    assert list(manifest.parts()) == ["stem", "branch_03"]
    assert {field: entry.file for field, entry in manifest.files().items()} == {
        "stem": "stem.onnx",
        "branches[0]": "branch_03.onnx",
        "fused": "fused.onnx",
        "golden.images": "golden/images.npy",
        "golden.branch_outputs": "golden/branch_outputs.npy",
    }
    assert "fused" not in MANIFEST.files()


def test_format_is_the_documented_one():
    assert FORMAT == "paraedge-bundle/1"


@pytest.mark.parametrize("path", FIELDS, ids=_dotted)
def test_a_missing_field_is_named(path):
    document = copy.deepcopy(DOCUMENT)
    del _parent(document, path)[path[-1]]
    with pytest.raises(ManifestError, match=rf"manifest\.json: .*`{path[-1]}`"):
        _decode(document)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: _dotted(path) or "top")
def test_an_unknown_field_is_named(path):
    document = copy.deepcopy(DOCUMENT)
    _parent(document, (*path, "colour"))["colour"] = "red"
    with pytest.raises(ManifestError, match=r"manifest\.json: .*unknown field `colour`"):
        _decode(document)


@pytest.mark.parametrize("path", PLACES, ids=_dotted)
def test_a_wrong_type_is_named(path):
    """No field is true or false."""
    document = copy.deepcopy(DOCUMENT)
    _parent(document, path)[path[-1]] = True
    field = next(key for key in reversed(path) if isinstance(key, str) and key in str(FIELDS))
    with pytest.raises(ManifestError, match=rf"manifest\.json: Expected .*\$\.(.*\b{field}\b|.*\[\.\.\.\])"):
        _decode(document)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", "truncated", id="empty"),
        pytest.param(b"not json", "malformed", id="no JSON"),
        pytest.param(TEXT.encode()[:-20], "truncated", id="cut off"),
        pytest.param(TEXT.encode() + b"{}", "trailing", id="two documents"),
        pytest.param(b"null", "Expected `object`", id="null"),
        pytest.param(b"[]", "Expected `object`", id="a list"),
        pytest.param(b'"paraedge-bundle/1"', "Expected `object`", id="a text"),
        pytest.param(b"{}", "`format`", id="empty object"),
        pytest.param(TEXT.encode("utf-16"), "malformed", id="UTF-16"),
        pytest.param(TEXT.encode("utf-8-sig"), "malformed", id="byte order mark"),
        pytest.param(TEXT.encode("latin-1"), "utf-8", id="not UTF-8"),
        pytest.param(TEXT.replace("tiny-1.0", r"\ud800").encode(), "malformed", id="lone surrogate"),
        pytest.param(TEXT.replace("1.19", "1\0.19").encode(), "malformed", id="NUL inside"),
        pytest.param(TEXT.replace("0.25", "NaN").encode(), "malformed", id="NaN is no JSON"),
        pytest.param(TEXT.replace("0.25", "-Infinity").encode(), "malformed", id="Infinity is no JSON"),
        pytest.param(TEXT.replace("0.25", "1e400").encode(), r"\$\.input\.mean\[1\]", id="mean 1e400"),
        pytest.param(TEXT.replace("34", "1e400").encode(), r"\$\.stem\.macs", id="count 1e400"),
        pytest.param(TEXT.replace("34", "9" * 5000).encode(), r"\$\.stem\.macs", id="count of 5000 digits"),
        pytest.param(b'{"format": ' + b"[" * 100_000, r"\$\.format", id="deep lists in format"),
        pytest.param(b'{"x": ' + b"[" * 100_000, "recursion", id="deep lists in an unknown field"),
        pytest.param(b'{"x":' * 50_000, "recursion", id="deep objects"),
        pytest.param(b" " * MAX_MANIFEST_BYTES + TEXT.encode(), "more than the 1048576 allowed", id="huge"),
    ],
)
def test_what_is_no_manifest_at_all_is_refused(raw, problem):
    with pytest.raises(ManifestError, match=rf"^manifest\.json(?s:.*){problem}"):
        decode_manifest(raw)


def test_the_largest_manifest_allowed_is_read():
    raw = TEXT.encode()
    assert decode_manifest(b" " * (MAX_MANIFEST_BYTES - len(raw)) + raw) == MANIFEST


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("paraedge-bundle/2", "newer than 'paraedge-bundle/1'; update paraedge"),
        ("paraedge-bundle/999999", "newer than 'paraedge-bundle/1'; update paraedge"),
        ("paraedge-bundle/9999999", "Invalid enum value"),
        ("paraedge-bundle/0", "Invalid enum value"),
        ("paraedge-bundle/1 ", "Invalid enum value"),
        ("paraedge-bundle/1.1", "Invalid enum value"),
        ("PARAEDGE-BUNDLE/1", "Invalid enum value"),
        ("onnx", "Invalid enum value"),
        ("", "Invalid enum value"),
        (1, "Expected `str`"),
        (None, "Expected `str`"),
    ],
)
def test_another_format_is_refused(version, problem):
    with pytest.raises(ManifestError, match=rf"manifest\.json: .*{problem}") as caught:
        _decode({**DOCUMENT, "format": version})
    assert "format" in str(caught.value)


def test_a_newer_format_is_told_apart_before_its_new_fields_are_read():
    with pytest.raises(ManifestError, match=r"'format' is 'paraedge-bundle/2', newer"):
        decode_manifest(b'{"format": "paraedge-bundle/2", "of another": "age"}')
