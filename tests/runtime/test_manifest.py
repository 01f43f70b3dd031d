"""``manifest.json`` by itself: literal bytes, every field required, every type checked.

Fields that contradict each other are in ``test_bundle.py``, where they meet both readers.
"""

import copy
import json
import time

import pytest
from msgspec.structs import replace

from paraedge_runtime import ManifestError
from paraedge_runtime.manifest import (
    FORMAT,
    MAX_MANIFEST_BYTES,
    BranchEntry,
    FileEntry,
    ImageInput,
    LabelsOutput,
    Manifest,
    PartEntry,
    Signature,
    StopRule,
    TensorInput,
    VectorOutput,
    decode_manifest,
    encode_record,
)

SHA = "5f" * 32
MANIFEST = Manifest(
    format="paraedge-bundle/2",
    name="tiny-1.0",
    version=3,
    engine="onnxruntime",
    engine_min_version={"onnxruntime": "1.19"},
    target="linux",
    quantization="fp32",
    input=ImageInput(name="image", shape=(1, 3, 4, 4), mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 0.5)),
    output=LabelsOutput(labels=("ant", "bee × 2")),
    stem=PartEntry(
        file="stem.onnx", size_bytes=7, sha256=SHA, input_shape=(1, 3, 4, 4), output_shape=(1, 5, 4), macs=34
    ),
    branches=(
        BranchEntry(
            file="branch_03.onnx",
            size_bytes=8,
            sha256=SHA,
            input_shape=(1, 5, 4),
            output_shape=(1, 2),
            macs=6,
            index=3,
        ),
    ),
    total_branches=8,
    fused=None,
    stop_rules=(StopRule(temperature=1.25, threshold=None),),
    card=FileEntry(file="card.json", size_bytes=11, sha256=SHA),
    files=(FileEntry(file="golden/inputs.npy", size_bytes=9, sha256=SHA),),
    signature=None,
)

TEXT = """{
  "format": "paraedge-bundle/2",
  "name": "tiny-1.0",
  "version": 3,
  "engine": "onnxruntime",
  "engine_min_version": {
    "onnxruntime": "1.19"
  },
  "target": "linux",
  "quantization": "fp32",
  "input": {
    "kind": "image",
    "name": "image",
    "shape": [
      1,
      3,
      4,
      4
    ],
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
  "output": {
    "kind": "labels",
    "labels": [
      "ant",
      "bee × 2"
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
    "macs": 34
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
      "macs": 6,
      "index": 3
    }
  ],
  "total_branches": 8,
  "fused": null,
  "stop_rules": [
    {
      "temperature": 1.25,
      "threshold": null
    }
  ],
  "card": {
    "file": "card.json",
    "size_bytes": 11,
    "sha256": "SHA"
  },
  "files": [
    {
      "file": "golden/inputs.npy",
      "size_bytes": 9,
      "sha256": "SHA"
    }
  ],
  "signature": null
}
""".replace("SHA", SHA)

# With a fused model and a signature too, so that their fields are walked.
DOCUMENT = json.loads(TEXT)
DOCUMENT["fused"] = {**DOCUMENT["card"], "file": "fused.onnx"}
DOCUMENT["signature"] = {"algorithm": "ed25519", "file": "manifest.json.minisig"}

# The other kinds of input and output.
TENSOR = {
    "kind": "tensor",
    "name": "motion",
    "shape": [1, 6, 128],
    "axes": ["channel", "time"],
    "normalized_axis": "channel",
    "mean": [0.0] * 6,
    "std": [1.0] * 6,
}
SENSOR = copy.deepcopy(DOCUMENT) | {"input": TENSOR, "output": {"kind": "vector", "name": "embedding", "size": 2}}
SENSOR["stem"]["input_shape"] = TENSOR["shape"]
SENSOR["stop_rules"] = None

# Objects whose keys are names, not fields.
DICTIONARIES = {"engine_min_version"}


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


def _places(document):
    return sorted(_paths(document), key=_dotted)


PLACES = [(document, path) for document in (DOCUMENT, SENSOR) for path in _places(document)]
PLACES = [(document, path) for document, path in PLACES if document is DOCUMENT or path[0] in ("input", "output")]
FIELDS = [
    (document, path)
    for document, path in PLACES
    if isinstance(path[-1], str) and (len(path) == 1 or path[-2] not in DICTIONARIES)
]
NAMES = {path[-1] for _, path in FIELDS}
RECORDS = list({(id(document), path[:-1]): (document, path[:-1]) for document, path in FIELDS}.values())


def _ids(cases):
    return [f"{'image' if document is DOCUMENT else 'tensor'}-{_dotted(path) or 'top'}" for document, path in cases]


def _decode(document):
    return decode_manifest(json.dumps(document).encode())


def test_encoding_is_these_literal_bytes():
    assert encode_record(MANIFEST) == TEXT.encode()


def test_decoding_gives_it_back():
    assert decode_manifest(TEXT.encode()) == MANIFEST
    assert decode_manifest(encode_record(MANIFEST)) == MANIFEST


def test_spaces_and_order_of_fields_do_not_matter():
    shuffled = dict(reversed(json.loads(TEXT).items()))
    assert decode_manifest(json.dumps(shuffled, indent=7).encode()) == MANIFEST


def test_a_decoded_manifest_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        MANIFEST.name = "other"


def test_what_it_derives():
    manifest = _decode(DOCUMENT)
    assert manifest.num_outputs == 2
    assert manifest.labels == ("ant", "bee × 2")
    assert manifest.branch_indexes == (3,)
    assert list(manifest.parts()) == ["stem", "branch_03"]
    assert {field: entry.file for field, entry in manifest.entries().items()} == {
        "stem": "stem.onnx",
        "branches[0]": "branch_03.onnx",
        "fused": "fused.onnx",
        "card": "card.json",
        "files[0]": "golden/inputs.npy",
    }
    assert "fused" not in MANIFEST.entries()
    assert manifest.signature == Signature(algorithm="ed25519", file="manifest.json.minisig")


def test_tensors_and_vectors():
    manifest = _decode(SENSOR)
    assert manifest.input == TensorInput(
        name="motion",
        shape=(1, 6, 128),
        axes=("channel", "time"),
        normalized_axis="channel",
        mean=(0.0,) * 6,
        std=(1.0,) * 6,
    )
    assert manifest.output == VectorOutput(name="embedding", size=2)
    assert (manifest.labels, manifest.num_outputs, manifest.stop_rules) == ((), 2, None)
    assert decode_manifest(encode_record(manifest)) == manifest


def test_images_are_stretched_where_a_bundle_does_not_say():
    """As of bundles that were made before there was a choice; what says nothing else is written as those are."""
    spec = decode_manifest(encode_record(MANIFEST)).input
    assert spec.resize == "stretch"
    assert b"resize" not in encode_record(MANIFEST)
    cropped = replace(MANIFEST, input=replace(spec, resize="crop"))
    assert b'"resize": "crop"' in encode_record(cropped)
    assert decode_manifest(encode_record(cropped)) == cropped


def test_format_is_the_documented_one():
    assert FORMAT == "paraedge-bundle/2"


@pytest.mark.parametrize(("document", "path"), FIELDS, ids=_ids(FIELDS))
def test_a_missing_field_is_named(document, path):
    document = copy.deepcopy(document)
    del _parent(document, path)[path[-1]]
    with pytest.raises(ManifestError, match=rf"manifest\.json: .*`{path[-1]}`"):
        _decode(document)


@pytest.mark.parametrize(("document", "path"), RECORDS, ids=_ids(RECORDS))
def test_an_unknown_field_is_named(document, path):
    document = copy.deepcopy(document)
    _parent(document, (*path, "colour"))["colour"] = "red"
    with pytest.raises(ManifestError, match=r"manifest\.json: .*unknown field `colour`"):
        _decode(document)


@pytest.mark.parametrize(("document", "path"), PLACES, ids=_ids(PLACES))
def test_a_wrong_type_is_named(document, path):
    """No field is true or false."""
    document = copy.deepcopy(document)
    _parent(document, path)[path[-1]] = True
    field = next(key for key in reversed(path) if isinstance(key, str) and key in NAMES)
    with pytest.raises(ManifestError, match=rf"manifest\.json: Expected .*\$\.(.*\b{field}\b|.*\[\.\.\.\])"):
        _decode(document)


def test_a_field_that_is_there_twice_is_found_in_time_that_grows_with_the_manifest():
    """Names of a whole megabyte, the last one twice; comparing each with each took minutes."""
    names = [f'"n{number}": "1.0"' for number in range(60_000)]
    text = TEXT.replace('"onnxruntime": "1.19"', ", ".join([*names, names[-1]]))
    assert len(text) < MAX_MANIFEST_BYTES
    started_s = time.monotonic()
    with pytest.raises(ManifestError, match="field 'n59999' is there twice"):
        decode_manifest(text.encode())
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", "truncated", id="empty"),
        pytest.param(b"not json", "malformed", id="no JSON"),
        pytest.param(TEXT.encode()[:-20], "truncated", id="cut off"),
        pytest.param(TEXT.encode() + b"{}", "trailing", id="two documents"),
        pytest.param(b"null", "Expected `object`", id="null"),
        pytest.param(b"[]", "Expected `object`", id="a list"),
        pytest.param(b'"paraedge-bundle/2"', "Expected `object`", id="a text"),
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
        pytest.param(b'{"x": ' + b"[" * 100_000, "unknown field `x`", id="deep lists in an unknown field"),
        pytest.param(b'{"x":' * 50_000, "unknown field `x`", id="deep objects"),
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
        ("paraedge-bundle/3", "newer than 'paraedge-bundle/2'; update paraedge"),
        ("paraedge-bundle/999999", "newer than 'paraedge-bundle/2'; update paraedge"),
        ("paraedge-bundle/9999999", "Invalid enum value"),
        ("paraedge-bundle/1", "older than 'paraedge-bundle/2'; export the bundle again"),
        ("paraedge-bundle/0", "older than 'paraedge-bundle/2'; export the bundle again"),
        ("paraedge-bundle/02", "Invalid enum value"),
        ("paraedge-bundle/2 ", "Invalid enum value"),
        ("paraedge-bundle/2.1", "Invalid enum value"),
        ("PARAEDGE-BUNDLE/2", "Invalid enum value"),
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
    with pytest.raises(ManifestError, match=r"'format' is 'paraedge-bundle/3', newer"):
        decode_manifest(b'{"format": "paraedge-bundle/3", "of another": "age"}')
