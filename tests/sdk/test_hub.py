"""Tests of paraedge.hub against a stand-in hub on this machine: what is pushed comes back, and nothing else does."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from fuzz.seeds import tiny_checkpoint
from support.bundles import fake_bundle, tree
from support.fake_hub import COMMIT, TOKEN, fake_hub
from support.keys import PUBLIC, private_key

from paraedge import hub as hub_module
from paraedge.cli.main import paraedge
from paraedge.hub import pull, push
from paraedge.signing import sign_bundle
from paraedge_runtime import Bundle, InputError, ParaEdgeError
from paraedge_runtime.bundle import manifest_files
from paraedge_runtime.errors import BundleError, IntegrityError
from paraedge_runtime.manifest import SIGNATURE_NAME

huggingface_hub = pytest.importorskip("huggingface_hub")
PARTS = [{"add": 1.0}, {"add": 2.0}]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.chdir(tmp_path)
    with fake_hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server


@pytest.fixture
def bundle(tmp_path):
    return fake_bundle(tmp_path / "made.paraedge", PARTS)


@pytest.fixture
def unpatient(monkeypatch):
    monkeypatch.setattr(hub_module, "_PATIENCE_S", 0.0)


def _front_matter(readme):
    return yaml.safe_load(readme.split("---\n")[1])


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_bundle_comes_back_byte_by_byte(hub, bundle, packed, tmp_path):
    source = bundle.pack(tmp_path / "made.paraedge.zip") if packed else bundle.path
    assert push(source, "ada/ants") == f"{hub.address}/ada/ants"
    assert pull("ada/ants", "back.paraedge") == Path("back.paraedge")
    assert Bundle.open("back.paraedge").files() == bundle.files()
    assert set(hub.repositories["ada/ants"]) == {*bundle.files(), "README.md", ".gitattributes"}


def test_a_checkpoint_comes_back_byte_by_byte_with_a_name_of_its_own(hub, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    push(folder, "ada/tiny")
    assert str(pull("ada/tiny")) == "tiny"
    assert tree(tmp_path / "tiny") == tree(folder)


def test_a_push_replaces_what_was_there(hub, bundle, tmp_path):
    push(tiny_checkpoint(tmp_path / "model"), "ada/ants")
    push(bundle.path, "ada/ants")
    assert set(hub.repositories["ada/ants"]) == {*bundle.files(), "README.md", ".gitattributes"}


def test_the_card_of_a_bundle_says_what_its_records_say(hub, bundle):
    push(bundle.path, "ada/ants")
    readme = hub.repositories["ada/ants"]["README.md"].decode()
    front = _front_matter(readme)
    card = bundle.card
    assert front["library_name"] == "paraedge"
    assert front["pipeline_tag"] == "image-classification"
    assert {"paraedge", f"paraedge-{bundle.manifest.engine}"} <= set(front["tags"])
    (model,) = front["model-index"]
    assert model["name"] == bundle.manifest.name
    found = [metric["value"] for result in model["results"] for metric in result["metrics"]]
    assert found == pytest.approx(card.accuracy.prefix_accuracy)
    assert front.get("license_name", card.license) == card.license
    for text in (card.description, *bundle.manifest.output.labels, "paraedge pull ada/ants"):
        assert text in readme


def test_the_card_of_a_checkpoint_has_its_accuracy_and_licence(hub, tmp_path):
    push(tiny_checkpoint(tmp_path / "model"), "ada/tiny")
    front = _front_matter(hub.repositories["ada/tiny"]["README.md"].decode())
    assert front["license"] == "apache-2.0"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_only_what_a_trusted_key_signed_is_pulled(hub, bundle, tmp_path):
    sign_bundle(bundle.path, [private_key(tmp_path / "keys", "release")])
    push(bundle.path, "ada/ants")
    assert Bundle.open(pull("ada/ants", "mine.paraedge", trusted_keys=[PUBLIC["release"]])).signature_bytes
    before = len(hub.seen)
    with pytest.raises(IntegrityError, match="sign"):
        pull("ada/ants", "other.paraedge", trusted_keys=[PUBLIC["stranger"]])
    assert not (tmp_path / "other.paraedge").exists()
    read = [path.rpartition("/")[2] for _, path, _ in hub.seen[before:] if "/resolve/" in path]
    assert read == ["manifest.json", SIGNATURE_NAME], "no more is read of a stranger's bundle"


def test_keys_are_for_bundles(hub, tmp_path):
    push(tiny_checkpoint(tmp_path / "model"), "ada/tiny")
    with pytest.raises(InputError, match="ada/tiny holds a checkpoint, which has no signature; leave out --key"):
        pull("ada/tiny", trusted_keys=[PUBLIC["release"]])


def _endless():
    return itertools.repeat(b"x" * 65536)


@pytest.mark.parametrize(
    ("name", "answer", "error", "message"),
    [
        ("stem.bin", lambda: (200, iter([b"[]"])), BundleError, "stem.bin has "),
        ("stem.bin", lambda: (200, _endless()), ParaEdgeError, "stem.bin of ada/ants has more than the "),
        (
            "manifest.json",
            lambda: (200, _endless()),
            ParaEdgeError,
            "manifest.json of ada/ants has more than the 1048576",
        ),
        ("manifest.json", lambda: (200, iter([b"{}"])), BundleError, "manifest.json"),
        (
            "card.json",
            lambda: (503, iter([])),
            ParaEdgeError,
            "card.json of ada/ants cannot be read: the hub returned 503",
        ),
    ],
    ids=["other-bytes", "endless", "endless-manifest", "no-manifest", "status"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(hub, bundle, tmp_path, name, answer, error, message):
    push(bundle.path, "ada/ants")
    stem = bundle.manifest.stem.file
    hub.answers[name.replace("stem.bin", stem)] = answer()
    with pytest.raises(error, match=re.escape(message.replace("stem.bin", stem))):
        pull("ada/ants", "back.paraedge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.paraedge"]


def test_a_manifest_that_claims_too_much_is_refused_before_anything_else_is_read(hub, bundle, monkeypatch):
    push(bundle.path, "ada/ants")
    monkeypatch.setattr(hub_module, "_MAX_BYTES", 10)
    with pytest.raises(InputError, match=r"ada/ants has \d+ bytes, more than the 10 allowed"):
        pull("ada/ants", "back.paraedge")


def test_a_path_that_leaves_the_folder_is_refused(hub, bundle, tmp_path):
    push(bundle.path, "ada/ants")
    files = hub.repositories["ada/ants"]
    files["manifest.json"] = files["manifest.json"].replace(b'"card.json"', b'"../card.json"')
    files["../card.json"] = files["card.json"]
    files.update(manifest_files(files["manifest.json"]))
    with pytest.raises(BundleError, match=re.escape("../card.json")):
        pull("ada/ants", "back.paraedge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.paraedge"]


def test_a_slow_hub_is_given_up(hub, bundle, unpatient, monkeypatch):
    push(bundle.path, "ada/ants")
    hub.answers["manifest.json"] = 200, iter([b"{", b" "])
    ticks = itertools.count(step=1000.0)
    monkeypatch.setattr(hub_module.time, "monotonic", lambda: next(ticks))
    with pytest.raises(ParaEdgeError, match=r"manifest\.json of ada/ants downloads too slowly; try again later"):
        pull("ada/ants", "back.paraedge")


def test_what_stands_there_stays(hub, bundle, tmp_path):
    push(bundle.path, "ada/ants")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "thesis.txt").write_text("42")
    with pytest.raises(BundleError, match="back exists and is not a bundle folder"):
        pull("ada/ants", "back")
    assert (tmp_path / "back" / "thesis.txt").read_text() == "42"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "ada/none"], "ada/none is not on the hub, or you may not read it; check the name, or log in with"),
        (["pull", "ada//none"], "'ada//none' is not the name of a repository; give user/name"),
        (["pull", "ada/empty"], "ada/empty holds neither a bundle nor a checkpoint of paraedge"),
        (["pull", "ada/empty", "--revision", "v9"], "ada/empty has no such revision; name a branch, a tag or a commit"),
        (["push", "nowhere", "ada/x"], "nowhere is neither a packaged model"),
        (["push", "made.paraedge", "ada//x"], "'ada//x' is not the name of a repository"),
    ],
)
def test_a_mistake_is_one_line(hub, bundle, arguments, message):
    hub.repositories["ada/empty"] = {".gitattributes": b""}
    done = CliRunner().invoke(paraedge, arguments)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize("token", [None, "hf_" + "wrong" * 7])
def test_a_token_that_is_missing_or_may_not_is_named_and_never_shown(hub, bundle, token, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    done = CliRunner().invoke(paraedge, ["push", str(bundle.path), "ada/ants"])
    assert isinstance(done.exception, InputError)
    assert "hf auth login" in str(done.exception)
    assert done.exception.__suppress_context__, "--debug prints no context, whose requests have the token"
    assert (token or TOKEN) not in done.output + str(done.exception)
    assert hub.repositories == {}


def test_a_hub_that_is_not_there_is_a_failure(hub, bundle, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ParaEdgeError, match="the hub cannot be reached") as caught:
        pull("ada/ants")
    assert not isinstance(caught.value, InputError)


def test_the_commands_print_where_it_is(hub, bundle, tmp_path):
    pushed = CliRunner().invoke(paraedge, ["push", str(bundle.path), "ada/ants", "--private", "--json"])
    assert json.loads(pushed.stdout) == {"address": f"{hub.address}/ada/ants"}
    assert hub.private == {"ada/ants"}
    pulled = CliRunner().invoke(paraedge, ["pull", "ada/ants", "--revision", COMMIT])
    assert (pulled.exit_code, pulled.stdout) == (0, "ants.paraedge\n"), pulled.output
    assert all(token in (None, f"Bearer {TOKEN}") for _, _, token in hub.seen)
    assert TOKEN not in pushed.output + pulled.output


_CHECKPOINT = ("config.json", "training.json", "model.safetensors", "samples.npz", "evaluation.npz")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (dict.fromkeys(_CHECKPOINT, b"{}"), "^ada/x/config.json: "),
        ({"manifest.sha256": b""}, r"^mine: manifest\.sha256 is not the line"),
        ({"stem.fake": b""}, r"^mine: stem\.fake has 0 bytes"),
    ],
    ids=["checkpoint", "hash", "part"],
)
def test_what_is_wrong_is_said_of_a_path_that_somebody_knows(hub, bundle, tmp_path, files, message):
    """And not of the hidden folder that it was built in, which is gone by then."""
    hub.repositories["ada/x"] = files if "config.json" in files else {**bundle.files(), **files}
    with pytest.raises(ParaEdgeError, match=message) as refused:
        pull("ada/x", "mine")
    assert ".new." not in str(refused.value)
    assert not (tmp_path / "mine").exists()
