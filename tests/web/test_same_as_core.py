"""The JavaScript runtime beside the core and Python: the same decisions, the same refusals, the same bytes."""

import base64
import hashlib
import importlib.util
import json
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.bundles import EMBEDDING, IMAGE, MOTION, fake_bundle, hash_line, sign, tree
from support.keys import KEY_ID, PUBLIC, private_key, signed, write_keys

from paraedge.signing import sign_manifest
from paraedge_runtime.core import load_core
from paraedge_runtime.inputs import fitted_image, normalise
from paraedge_runtime.manifest import ImageInput


def _tables(name):
    """The tables of cases that the tests of the other two readers have."""
    path = Path(__file__).parents[1] / "runtime" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tables_of_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARCHIVE, BUNDLE, MANIFEST, SIGNATURE = map(_tables, ["test_archive", "test_bundle", "test_manifest", "test_signature"])


# The controller ----------------------------------------------------------------------------------


def _history(seed):
    numbers = random.Random(seed)
    branches = numbers.randint(1, 8)
    steps = []
    for _ in range(150):
        what = numbers.choice(
            ["observe"] * 6 + ["outlasted", "outlasted", "dropped", "dropped", "returned", "did_not_wait"]
        )
        part, busy = numbers.randint(0, branches), numbers.randint(1, 4)
        ms = math.exp(numbers.gauss(0.5, 1.2)) if numbers.random() < 0.97 else numbers.choice([0.0, 1e4])
        told = {"returned": [ms], "did_not_wait": [], "dropped": [part]}.get(what, [part, busy, ms])
        steps.append((what, told, numbers.randint(0, branches), numbers.randint(1, 5)))
    return {
        "macs": [numbers.choice([0, numbers.randint(1, 10**8)]) for _ in range(branches)],
        "partMs": [numbers.uniform(0.05, 20) for _ in range(branches + 1)] if seed % 3 == 0 else [],
        "contention": [1.0, numbers.uniform(1, 1.6), numbers.uniform(1.2, 2.5)] if seed % 2 else [],
        "steps": steps,
    }


def test_the_controller_says_what_the_core_says_after_any_history(driver):
    histories = [_history(seed) for seed in range(60)]
    told = [
        {
            **history,
            "steps": [
                {"what": {"did_not_wait": "didNotWait"}.get(what, what), "told": told, "part": part, "busy": busy}
                for what, told, part, busy in history["steps"]
            ],
        }
        for history in histories
    ]
    for history, answers in zip(histories, driver("controller", told), strict=True):
        core = load_core().Controller.make(
            [float(value) for value in history["macs"]], history["partMs"], history["contention"]
        )
        for (what, told_to, part, busy), answer in zip(history["steps"], answers, strict=True):
            getattr(core, what)(*told_to)
            expected = [core.predicted_ms(part, busy), core.margin_ms(0.05), core.mandatory_ms, core.requests_to_learn]
            found = [math.nan if value is None else value for value in answer]
            assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)


def _requests(seed):
    """Requests that come in bursts, one after another or wait, some without a deadline; times in whole microseconds."""
    numbers = random.Random(seed)
    mandatory_ms = None if seed == 0 else round(numbers.uniform(0.5, 20), 3)
    now_ms = ended_ms = 1000.0
    requests = []
    for _ in range(200):
        gap_ms = numbers.choice([0.0, 0.05, 0.4, numbers.uniform(0, 30), numbers.expovariate(1 / 8)])
        came_ms = round(now_ms + gap_ms, 3)
        began_ms = max(came_ms, ended_ms)
        budget_ms = round(numbers.choice([12.0, 12.0, 12.0, numbers.uniform(1, 60)]), 3)
        deadline_ms = None if numbers.random() < 0.02 else came_ms + budget_ms
        requests.append({"nowMs": began_ms, "deadlineMs": deadline_ms, "endedMs": ended_ms})
        ended_ms = round(began_ms + numbers.uniform(0.3, 6), 3)
        now_ms = numbers.choice([came_ms, ended_ms])
    return {"mandatoryMs": mandatory_ms, "requests": requests}


def test_requests_that_may_come_are_left_the_time_that_the_core_leaves_them(driver):
    histories = [_requests(seed) for seed in range(40)]
    most_ms = 0.0
    for history, answers in zip(histories, driver("arrivals", histories), strict=True):
        core = load_core().Arrivals()
        mandatory_ms = math.nan if history["mandatoryMs"] is None else history["mandatoryMs"]
        for request, answer in zip(history["requests"], answers, strict=True):
            if request["deadlineMs"] is None:
                core.came_without_deadline()
            else:
                core.came(request["nowMs"], request["deadlineMs"], request["endedMs"], mandatory_ms)
            expected_ms = 0.0 if math.isnan(mandatory_ms) else core.earlier_ms(mandatory_ms)
            assert (0.0 if answer is None else answer) == pytest.approx(expected_ms, abs=1e-5)  # its clock has whole ns
            most_ms = max(most_ms, expected_ms)
    assert most_ms > 20


# The reader --------------------------------------------------------------------------------------


@pytest.fixture
def opened(driver, tmp_path):
    """What the reader says of many zips, name -> bytes, at once; with trusted keys if they are given."""

    def ask(zips, trusted_keys=None):
        for number, data in enumerate(zips.values()):
            (tmp_path / f"{number}.zip").write_bytes(data)
        cases = [{"path": str(tmp_path / f"{number}.zip")} for number in range(len(zips))]
        if trusted_keys is not None:
            cases = [case | {"trustedKeys": trusted_keys} for case in cases]
        return dict(zip(zips, driver("bundles", cases), strict=True))

    return ask


SENSOR = {"input": MOTION, "output": EMBEDDING}
KINDS = {"labels": {}, "vectors": SENSOR, "signed": {}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of good bundles, by kind."""
    made = {}
    for kind, changes in KINDS.items():
        folder = tmp_path_factory.mktemp("good") / f"{kind}.paraedge"
        fake_bundle(folder, **changes)
        if kind == "signed":
            sign(folder)
        made[kind] = {name: data for name, data in tree(folder).items() if isinstance(data, bytes)}
    return made


def _zipped(files):
    """As ``paraedge pack`` orders them."""
    names = sorted(files, key=lambda name: (name != "manifest.json", name))
    return ARCHIVE._zip([ARCHIVE.Entry(name, files[name]) for name in names])


def _edited(files, edit):
    document = json.loads(files["manifest.json"])
    edit(document)
    raw = json.dumps(document).encode()
    return _zipped({**files, "manifest.json": raw, "manifest.sha256": hash_line(raw)})


GOLDEN = {"inputs": BUNDLE.INPUTS, "outputs": BUNDLE.OUTPUTS}
CARDS = {
    b"": "ManifestError",
    b"null": "IntegrityError",
    b"[1": "ManifestError",
    b"\xff{}": "ManifestError",
    b'{"golden": 3}': "IntegrityError",
    b'{"golden": {"inputs": "golden/inputs.npy", "outputs": "x"}}': "IntegrityError",
    json.dumps({"golden": {**GOLDEN, "labels": ["0"]}}).encode(): "ManifestError",
}


def test_a_damaged_card_with_a_right_hash_is_refused_where_the_golden_data_are_read(driver, files, tmp_path):
    good = files["labels"]
    paths = [tmp_path / "good.zip", *(tmp_path / f"{number}.zip" for number in range(len(CARDS)))]
    for path, card in zip(paths, [good["card.json"], *CARDS], strict=True):
        entry = {"size_bytes": len(card), "sha256": hashlib.sha256(card).hexdigest()}
        path.write_bytes(
            _edited({**good, "card.json": card}, lambda manifest, entry=entry: manifest["card"].update(entry))
        )
    first, *others = driver("golden", [str(path) for path in paths])
    assert (first["inputs"][0], first["labels"]) == (4, [0, 1, 2, 0])
    assert [answer["error"] for answer in others] == list(CARDS.values())


def _only_manifest(raw, signature=None):
    """A bundle of a manifest, its hash and its signature, without the files that it lists."""
    files = {"manifest.json": raw, "manifest.sha256": hash_line(raw)}
    return _zipped(files if signature is None else files | {SIGNATURE.SIGNATURE: signature})


def test_it_refuses_every_archive_that_the_others_refuse(files, opened):
    packed = _zipped(files["labels"])
    answers = opened({name: change(packed) for name, (change, _) in ARCHIVE.REFUSED.items()})
    assert [
        name for name, answer in answers.items() if answer.get("error") not in ("IntegrityError", "ManifestError")
    ] == []
    wrong = {
        name: answers[name]["message"]
        for name, (_, problem) in ARCHIVE.REFUSED.items()
        if problem not in answers[name]["message"]
    }
    assert wrong == {}


def test_it_takes_every_archive_that_the_others_take(files, opened):
    zips = {
        f"{kind}, {name}": change(_zipped(files[kind])) for kind in KINDS for name, change in ARCHIVE.ACCEPTED.items()
    }
    assert {name: answer for name, answer in opened(zips).items() if answer.get("name") != "fake"} == {}


def test_it_refuses_every_field_that_the_others_refuse(files, opened):
    edits = {name: (edit, "labels") for name, (edit, _) in BUNDLE.BAD_FIELDS.items()}
    edits |= {f"sensor: {name}": (edit, "vectors") for name, (edit, _) in BUNDLE.BAD_SENSOR_FIELDS.items()}
    edits |= {
        f"{place}: {name}": (BUNDLE.put(f"{place}.file", bad), "labels")
        for name, bad in BUNDLE.BAD_PATHS.items()
        for place in ("stem", "branches.1", "files.0")
    }
    answers = opened({name: _edited(files[kind], edit) for name, (edit, kind) in edits.items()})
    assert {name: answer for name, answer in answers.items() if answer.get("error") != "ManifestError"} == {}
    assert all("manifest.json" in answer["message"] for answer in answers.values())


def _manifests():
    """Documents with a field less, a field more, another type, and what is no manifest at all."""
    for document, path in MANIFEST.FIELDS:
        copy = json.loads(json.dumps(document))
        del MANIFEST._parent(copy, path)[path[-1]]
        yield f"without {MANIFEST._dotted(path)}", json.dumps(copy).encode()
    for document, path in MANIFEST.RECORDS:
        copy = json.loads(json.dumps(document))
        MANIFEST._parent(copy, (*path, "colour"))["colour"] = "red"
        yield f"more in {MANIFEST._dotted(path)}", json.dumps(copy).encode()
    for document, path in MANIFEST.PLACES:
        copy = json.loads(json.dumps(document))
        MANIFEST._parent(copy, path)[path[-1]] = True
        yield f"true for {MANIFEST._dotted(path)}", json.dumps(copy).encode()
    text = MANIFEST.TEXT.encode()
    yield "a name twice", text.replace(b'"version": 3', b'"version": 3, "version": 3')
    yield "a name twice, spelt otherwise", text.replace(b'"version": 3', b'"version": 3, "v\\u0065rsion": 3')
    raws = next(
        mark.args[1]
        for mark in MANIFEST.test_what_is_no_manifest_at_all_is_refused.pytestmark
        if mark.name == "parametrize"
    )
    for case in raws:
        yield case.id, case.values[0]


def test_it_refuses_every_manifest_that_the_others_refuse(opened):
    zips = {f"{number} {name}": _only_manifest(raw) for number, (name, raw) in enumerate(_manifests())}
    answers = opened(zips)
    assert {
        name: answer
        for name, answer in answers.items()
        if answer.get("error") != ("IntegrityError" if name.endswith("huge") else "ManifestError")
    } == {}
    # What is wrong is the manifest, not that its files are missing.
    good = opened({"good": _only_manifest(MANIFEST.TEXT.encode())})["good"]
    assert good["error"] == "IntegrityError"
    assert "stem.onnx is missing" in good["message"]


def test_it_refuses_every_manifest_that_has_not_its_hash(files, opened):
    good = files["labels"]
    lines = {name: change(good["manifest.sha256"]) for name, change in BUNDLE.BAD_LINES.items()}
    zips = {name: _zipped({**good, "manifest.sha256": line}) for name, line in lines.items()}
    zips["another manifest"] = _zipped({**good, "manifest.json": good["manifest.json"] + b" "})
    answers = opened(zips)
    assert {name: answer for name, answer in answers.items() if answer.get("error") != "IntegrityError"} == {}
    assert "manifest.sha256 says" in answers.pop("another manifest")["message"]
    assert {name for name, answer in answers.items() if "is not the line that" in answer["message"]} == set(lines)


def test_it_takes_what_is_at_its_limit(files, opened):
    cases = next(
        mark.args[1]
        for mark in BUNDLE.test_what_may_be_null_or_at_its_limit_is_read.pytestmark
        if mark.name == "parametrize"
    )
    zips = {
        case.id: _edited(files["vectors" if case.values[0] == "sensor_path" else "labels"], case.values[1])
        for case in cases
    }
    assert {name: answer for name, answer in opened(zips).items() if answer.get("name") != "fake"} == {}


def test_it_says_of_damaged_zips_what_the_core_says(tmp_path, files, opened):
    packed, numbers = _zipped(files["labels"]), random.Random(7)
    directory = packed.index(b"PK\x01\x02")
    zips = {}
    for number in range(600):
        raw = bytearray(packed)
        ARCHIVE._damage(raw, numbers, directory)
        zips[number] = bytes(raw)
    path = tmp_path / "damaged.zip"
    refused = 0
    for number, answer in opened(zips).items():
        path.write_bytes(zips[number])
        try:
            load_core().check_bundle(str(path))
        except Exception:
            refused += 1
            assert "error" in answer, number
        else:
            assert "error" not in answer, (number, answer)
    assert 300 < refused < 600


# Signatures --------------------------------------------------------------------------------------

TRUSTED = [PUBLIC["release"], PUBLIC["next"]]


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path / "keys")


def _zip_of(path):
    """A bundle folder as a zip, whatever is wrong with it."""
    return _zipped({name: data for name, data in tree(path).items() if isinstance(data, bytes)})


def test_what_a_trusted_key_signed_is_opened(tmp_path, keys, opened):
    zips, names = {}, [("release",), ("next", "release"), ("stranger", "next")]
    for number, signers in enumerate(names):
        zips[number] = _zip_of(signed(fake_bundle(tmp_path / f"{number}.paraedge"), keys, *signers).path)
    answers = opened(zips, TRUSTED)
    assert [answers[number].get("signedBy") for number in zips] == [
        KEY_ID[name] for name in ("release", "next", "next")
    ]
    assert [answer["signedBy"] for answer in opened(zips).values()] == [None] * 3  # nobody asked
    assert opened({0: zips[0]}, PUBLIC["release"])[0]["signedBy"] == KEY_ID["release"]


def test_a_signature_of_minisign_is_taken(opened):
    """Its manifest is none, which is said only after the signature was found right."""
    answer = opened({0: _only_manifest(SIGNATURE.MANIFEST, SIGNATURE.BY_MINISIGN)}, TRUSTED)[0]
    assert (answer["error"], "'format' is missing" in answer["message"]) == ("ManifestError", True)
    changed = _only_manifest(SIGNATURE.MANIFEST + b" ", SIGNATURE.BY_MINISIGN)
    assert "does not match manifest.json" in opened({0: changed}, TRUSTED)[0]["message"]


def test_it_refuses_every_signature_that_the_others_refuse(tmp_path, keys, opened):
    zips = {}
    for number, (name, (damage, _)) in enumerate(SIGNATURE.REFUSED.items()):
        path = signed(fake_bundle(tmp_path / f"{number}" / "b.paraedge"), keys).path
        damage(path, keys)
        zips[name] = _zip_of(path)
    answers = opened(zips, TRUSTED)
    assert {name: answer for name, answer in answers.items() if answer.get("error") != "IntegrityError"} == {}
    wrong = {
        name: answers[name]["message"]
        for name, (_, problem) in SIGNATURE.REFUSED.items()
        if problem not in answers[name]["message"]
    }
    assert wrong == {}


def test_a_signature_ends_when_its_signer_said(tmp_path, keys, opened):
    path, now_s = signed(fake_bundle(tmp_path / "b.paraedge"), keys).path, int(time.time())
    zips = {}
    for seconds in (3600, -1):
        SIGNATURE.sign_again(path, keys, expires_s=now_s + seconds)
        zips[seconds] = _zip_of(path)
    answers = opened(zips, TRUSTED)
    assert answers[3600]["signedBy"] == KEY_ID["release"]
    assert re.search(rf"of key {KEY_ID['release']} ended on 2\d\d\d-\d\d-\d\d; take a newer", answers[-1]["message"])


def test_every_byte_of_a_signature_but_the_untrusted_comment_counts(tmp_path, keys, opened):
    path = signed(fake_bundle(tmp_path / "b.paraedge"), keys).path
    good = (path / SIGNATURE.SIGNATURE).read_bytes()
    comment = range(len("untrusted comment: "), good.index(b"\n"))
    zips = {}
    for place, byte in enumerate(good):
        (path / SIGNATURE.SIGNATURE).write_bytes(good[:place] + bytes([byte ^ 1]) + good[place + 1 :])
        zips[place] = _zip_of(path)
    answers = opened(zips, TRUSTED)
    assert {place for place, answer in answers.items() if "error" not in answer} == set(comment)


def test_the_digest_is_that_of_python_for_every_length(tmp_path, keys, opened):
    """BLAKE2b works on blocks of 128 bytes: manifests around every multiple are signed here and checked there."""
    zips = {}
    for size in [0, 1, 111, 112, 127, 128, 129, 255, 256, 257, 4096, 1_000_000]:
        manifest = b" " * size
        signature = sign_manifest(manifest, [private_key(keys, "release")], 1000)
        zips[size] = _only_manifest(manifest, signature)
    assert {answer["error"] for answer in opened(zips, TRUSTED).values()} == {"ManifestError"}


BAD_KEYS = {
    "none": ([], "no trusted key is named"),
    "too many": ([PUBLIC["release"]] * 101, "more than 100 trusted keys"),
    "empty": ("", "is not a public key"),
    "a number": (7, "is not a public key"),
    "another algorithm": ("RW" + "A" * 54, "is not a public key"),
    "another letter": (PUBLIC["release"][:-1] + "!", "is not a public key"),
    "one letter less": (PUBLIC["release"][:-1], "is not a public key"),
    "a line more": (PUBLIC["release"] + "\n", "is not a public key"),
    "one of two": ([PUBLIC["release"], "x"], "is not a public key"),
}


@pytest.mark.parametrize(("given", "problem"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_key_opens_nothing(files, opened, given, problem):
    answer = opened({0: _zipped(files["labels"])}, given)[0]
    assert (answer["error"], problem in answer["message"]) == ("InputError", True)


# Inputs ------------------------------------------------------------------------------------------


def _base64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _spec(spec):
    scale, shift = (np.asarray(values, np.float32).tolist() for values in spec.scale_and_shift())
    if isinstance(spec, ImageInput):
        return {
            "kind": "image",
            "name": spec.name,
            "shape": spec.shape,
            "resize": spec.resize,
            "scale": scale,
            "shift": shift,
        }
    return {
        "kind": "tensor",
        "name": spec.name,
        "shape": spec.shape,
        "axes": spec.axes,
        "normalizedAxis": spec.normalized_axis,
        "rateHz": spec.rate_hz,
        "channelNames": spec.channel_names,
        "scale": scale,
        "shift": shift,
    }


def test_images_are_scaled_within_one_grey_level_of_python(driver):
    """Pillow's rule, not a canvas's: every size, grey and colour, with transparency."""
    rng = np.random.default_rng(3)
    sizes = [(28, 28), (8, 8), (480, 640), (100, 33), (7, 9), (1, 1), (33, 500), (8, 20)]
    colour = ImageInput(name="image", shape=(1, 3, 12, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    cases, expected = [], []
    for spec in (IMAGE, colour):
        for height, width in sizes:
            for channels in (1, 3, 4):
                pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
                cases.append(
                    {
                        "spec": _spec(spec),
                        "pixels": _base64(pixels),
                        "height": height,
                        "width": width,
                        "channels": channels,
                    }
                )
                image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
                _, wanted, *size = spec.shape
                expected.append(normalise(fitted_image(image, *size, wanted)[None], spec))
    found = [np.frombuffer(base64.b64decode(answer), np.float32) for answer in driver("inputs", cases)]
    other = 0
    for case, one, reference in zip(cases, found, expected, strict=True):
        scale = np.repeat(case["spec"]["scale"], one.size // len(case["spec"]["scale"]))
        grey_levels = np.abs(one - reference.ravel()) / scale
        assert grey_levels.max() < 1.001, (case["height"], case["width"], case["channels"])
        other += int((grey_levels > 0.001).sum())
    assert other < 0.05 * sum(one.size for one in found)


def test_a_photograph_of_a_phone_is_scaled_within_one_grey_level_of_python(driver, tmp_path, photograph):
    """12 million pixels, lying as the sensor does: upright, its middle or all of it, and small."""
    image = Image.open(photograph)
    (tmp_path / "pixels").write_bytes(np.asarray(ImageOps.exif_transpose(image)).tobytes())
    cases, expected = [], []
    for height, width, resize in ((224, 224, "crop"), (96, 128, "stretch")):
        shape, mean, std = (1, 3, height, width), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
        spec = ImageInput(name="image", shape=shape, mean=mean, std=std, resize=resize)
        expected.append(normalise(fitted_image(image, height, width, 3, resize)[None], spec).ravel())
        size = {"height": 4000, "width": 3000, "channels": 3}
        cases.append({"spec": _spec(spec), "path": str(tmp_path / "pixels"), **size})
    for case, reference, answer in zip(cases, expected, driver("inputs", cases), strict=True):
        found = np.frombuffer(base64.b64decode(answer), np.float32)
        scale = np.repeat(case["spec"]["scale"], found.size // 3)
        assert (np.abs(found - reference) / scale).max() < 1.001


@pytest.mark.parametrize("axis", ["channel", None])
def test_tensors_are_normalised_to_the_same_bits_as_in_python(driver, axis):
    from msgspec.structs import replace

    spec = MOTION if axis else replace(MOTION, normalized_axis=None, mean=(0.3,), std=(1.7,))
    tensors = np.random.default_rng(1).normal(size=(5, *spec.shape[1:])).astype(np.float32)
    answers = driver("inputs", [{"spec": _spec(spec), "tensor": _base64(tensor)} for tensor in tensors])
    assert [base64.b64decode(answer) for answer in answers] == [
        normalise(tensor[None], spec).tobytes() for tensor in tensors
    ]
