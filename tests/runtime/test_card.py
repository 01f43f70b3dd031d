"""``card.json``: what people need of a bundle; every field checked, and against the manifest."""

import json

import pytest
from support.bundles import EMBEDDING, MOTION, edit_card, fake_bundle

from paraedge_runtime import Bundle, IntegrityError, ManifestError
from paraedge_runtime.card import Card, decode_card
from paraedge_runtime.manifest import MAX_MANIFEST_BYTES, encode_record


@pytest.fixture
def labelled(tmp_path):
    return fake_bundle(tmp_path / "labels.paraedge")


@pytest.fixture
def vectors(tmp_path):
    return fake_bundle(tmp_path / "vectors.paraedge", input=MOTION, output=EMBEDDING)


@pytest.mark.parametrize("kind", ["labelled", "vectors"])
def test_a_card_is_read_as_it_was_written(kind, request):
    bundle = request.getfixturevalue(kind)
    card = bundle.card
    assert isinstance(card, Card)
    assert decode_card(encode_record(card), bundle.manifest) == card
    assert list(card.parts) == list(bundle.manifest.parts())
    has_labels = kind == "labelled"
    assert [(one.top1_agreement is None, one.relative_error is None) for one in card.parity.prefixes] == [
        (not has_labels, has_labels)
    ] * 3
    assert (card.golden.labels is not None) == has_labels


def test_a_card_changed_since_is_refused(labelled):
    bundle = Bundle.open(labelled.path)
    (labelled.path / "card.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"card\.json has 2 bytes"):
        _ = bundle.card


def put(place, value):
    def edit(card):
        *above, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        for key in above:
            card = card[key]
        card[last] = value

    return edit


def cut(place):
    def edit(card):
        *above, last = place.split(".")
        for key in above:
            card = card[int(key) if key.isdigit() else key]
        card.pop(-1 if last == "last" else last)

    return edit


# id -> (edit, words the message has)
BAD_LABELLED = {
    "unknown field": (put("colour", "red"), ["`colour`"]),
    "unknown nested field": (put("parts.stem.colour", "red"), ["`colour`", "$.parts"]),
    "missing field": (cut("license"), ["`license`"]),
    "description long": (put("description", "a" * 4097), ["$.description"]),
    "hash with a newline": (put("checkpoint_sha256", "0" * 64 + "\n"), ["$.checkpoint_sha256"]),
    "a part too many": (
        put("parts.branch_07", {"parameters": 1, "operators": {}, "similarity": None}),
        ["'parts'", "branch_07"],
    ),
    "a part that ran, and nobody knows how": (
        put("parts.stem.similarity", None),
        ["'parts.stem.similarity'", "engine"],
    ),
    "a part that never ran, and is near": (put("parts.stem.proof", "never run"), ["'parts.stem.similarity'", "never"]),
    "an unknown proof": (put("parts.stem.proof", "luck"), ["$.parts"]),
    "a part is missing": (cut("parts.branch_01"), ["'parts'", "branch_01"]),
    "parameters negative": (put("parts.stem.parameters", -1), ["$.parts"]),
    "parity of too few prefixes": (cut("parity.prefixes.last"), ["'parity.prefixes'", "2 values for 3"]),
    "parity failed": (put("parity.verdict", "failed"), ["'failed'", "$.parity.verdict"]),
    "parity on nothing": (put("parity.num_samples", 0), ["$.parity.num_samples"]),
    "agreement above 1": (put("parity.thresholds.min_top1_agreement", 2), ["$.parity.thresholds"]),
    "no agreement asked for": (
        put("parity.thresholds.min_top1_agreement", None),
        ["'parity.thresholds' must have a top-1 agreement and null as relative error: the output is labels"],
    ),
    "a relative error asked for": (put("parity.thresholds.max_relative_error", 0.1), ["'parity.thresholds'"]),
    "a prefix without agreement": (put("parity.prefixes.1.top1_agreement", None), ["'parity.prefixes[1]'"]),
    "a prefix with a relative error": (put("parity.prefixes.2.relative_error", 0.0), ["'parity.prefixes[2]'"]),
    "accuracy too short": (cut("accuracy.prefix_accuracy.last"), ["'accuracy.prefix_accuracy'", "2 values for 3"]),
    "accuracy above 1": (put("accuracy.prefix_accuracy.0", 1.5), ["$.accuracy.prefix_accuracy[0]"]),
    "accuracy on nothing": (put("accuracy.num_samples", 0), ["$.accuracy.num_samples"]),
    "accuracy drop 0": (put("early_stop.max_accuracy_drop", 0), ["$.early_stop.max_accuracy_drop"]),
    "risk confidence above 1": (put("early_stop.risk_confidence", 95), ["$.early_stop.risk_confidence"]),
    "early stop on less than nothing": (put("early_stop.num_samples", -1), ["$.early_stop.num_samples"]),
    "held out nothing": (put("early_stop.held_out.num_samples", 0), ["$.early_stop.held_out.num_samples"]),
    "stopped accuracy above 1": (put("early_stop.held_out.accuracy_stopped", 1.1), ["$.early_stop.held_out"]),
    "mean of no branch": (put("early_stop.held_out.mean_branches", 0), ["$.early_stop.held_out.mean_branches"]),
    "mean of more branches than there are": (
        put("early_stop.held_out.mean_branches", 3.5),
        ["'early_stop.held_out.mean_branches'", "is 3.5, there are 3"],
    ),
    "rules from nowhere": (put("early_stop", None), ["'early_stop' and the thresholds of the manifest's"]),
    "golden file not listed": (put("golden.inputs", "golden/x.npy"), ["'golden.inputs'", "'golden/x.npy'"]),
    "golden file a program": (put("golden.outputs", "stem.fake"), ["'golden.outputs'", "'stem.fake'"]),
    "golden label beyond labels": (put("golden.labels", [0, 1, 3, 0]), ["'golden.labels'", "up to 3"]),
    "golden label negative": (put("golden.labels", [0, 1, -1, 0]), ["$.golden.labels[2]"]),
    "golden labels empty": (put("golden.labels", []), ["'golden.labels'", "no class index"]),
    "golden labels null": (put("golden.labels", None), ["'golden.labels'", "no class index"]),
}
BAD_VECTORS = {
    "accuracy of a vector": (
        put("accuracy", {"dataset": "d", "num_samples": 1, "prefix_accuracy": [0.5] * 3}),
        ["'accuracy' is not null, but the output is a vector"],
    ),
    "labels of a vector": (put("golden.labels", [0, 1, 2, 0]), ["'golden.labels' is not null"]),
    "agreement of a vector": (put("parity.prefixes.0.top1_agreement", 1.0), ["'parity.prefixes[0]'"]),
    "no relative error": (
        put("parity.prefixes.0.relative_error", None),
        ["'parity.prefixes[0]' must have a relative error and null as top-1 agreement: the output is a vector"],
    ),
    "relative error negative": (put("parity.prefixes.0.relative_error", -0.1), ["$.parity.prefixes[0]"]),
    "threshold of labels": (put("parity.thresholds.min_top1_agreement", 1.0), ["'parity.thresholds'"]),
}
CASES = [
    *(pytest.param("labelled", *case, id=name) for name, case in BAD_LABELLED.items()),
    *(pytest.param("vectors", *case, id=name) for name, case in BAD_VECTORS.items()),
]


@pytest.mark.parametrize(("kind", "edit", "words"), CASES)
def test_a_bad_field_is_refused_and_named(kind, edit, words, request):
    path = request.getfixturevalue(kind).path
    edit_card(path, edit)
    bundle = Bundle.open(path)  # a device does not read it
    with pytest.raises(ManifestError) as caught:
        _ = bundle.card
    assert [word for word in ["card.json", *words] if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b" " * (MAX_MANIFEST_BYTES + 1)], ids=len
)
def test_what_is_no_card_is_refused(labelled, raw):
    with pytest.raises(ManifestError, match=r"^card\.json"):
        decode_card(raw, labelled.manifest)


def test_a_field_that_is_there_twice_is_refused(labelled):
    raw = encode_record(labelled.card).replace(b'"license"', b'"license": "MIT", "license"', 1)
    assert json.loads(raw)
    with pytest.raises(ManifestError, match=r"card\.json: field 'license' is there twice"):
        decode_card(raw, labelled.manifest)
