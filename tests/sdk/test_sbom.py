"""Bills of materials: valid CycloneDX, of what a bundle and the wheel are made of, the same every time."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.bundles import EMBEDDING, MOTION, fake_bundle

from paraedge.cli.main import paraedge
from paraedge.sbom import bundle_sbom
from paraedge_runtime import EngineUnavailable, __version__

ROOT = Path(__file__).parents[2]


def _problem(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_the_validator_refuses():
    assert _problem('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x"}]}') is not None


@pytest.mark.parametrize(
    "kinds",
    [
        {},
        {"input": MOTION, "output": EMBEDDING},
        {"license": "weights MIT, images CC BY 4.0", "description": "\x1b[2J é 😀"},
        {"tool_versions": {"fake": "1.0", "other": "2"}},
    ],
    ids=["labels", "vectors", "licence-in-words", "two-tools"],
)
def test_a_bundle_says_what_it_is_made_of(tmp_path, kinds):
    bundle = fake_bundle(tmp_path / "b.paraedge", **kinds)
    text = bundle_sbom(bundle)
    assert _problem(text) is None
    assert text == bundle_sbom(bundle)
    found = json.loads(text)
    model = found["metadata"]["component"]
    assert (model["name"], model["version"]) == ("fake", "1")
    assert model["hashes"] == [{"alg": "SHA-256", "content": bundle.sha256}]
    (licence,) = model["licenses"]
    assert bundle.card.license in licence["license"].values()
    hashes = {part["name"]: part["hashes"][0]["content"] for part in found["components"] if part["type"] == "file"}
    assert hashes == {entry.file: entry.sha256 for entry in bundle.manifest.entries().values()}
    tools = {tool["name"]: tool["version"] for tool in found["metadata"]["tools"]["components"]}
    assert {**bundle.card.tool_versions, "paraedge": __version__} == tools


def test_other_bundles_have_other_serial_numbers(tmp_path):
    texts = [bundle_sbom(fake_bundle(tmp_path / name, name=name)) for name in ("one", "two")]
    assert json.loads(texts[0])["serialNumber"] != json.loads(texts[1])["serialNumber"]


def test_inspect_prints_it(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    done = CliRunner().invoke(paraedge, ["inspect", str(bundle.path), "--sbom"])
    assert (done.exit_code, done.output) == (0, bundle_sbom(bundle) + "\n")


def test_two_documents_are_one_too_many(tmp_path):
    done = CliRunner().invoke(paraedge, ["inspect", str(fake_bundle(tmp_path / "b").path), "--sbom", "--json"])
    assert done.exit_code == 2
    assert "use --json or --sbom, not both" in done.output


def test_without_the_library_the_message_names_the_extra(tmp_path, monkeypatch):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    for name in [name for name in sys.modules if name.partition(".")[0] == "cyclonedx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'paraedge\[sbom\]'"):
        bundle_sbom(bundle)


def test_the_wheel_s_is_that_of_this_tree():
    """As ``scripts/make_sbom.py`` writes it: run that after a change of a vendored source or a dependency."""
    spec = importlib.util.spec_from_file_location("make_sbom", ROOT / "scripts/make_sbom.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.TARGET.read_text()
    assert text == script.document()
    assert _problem(text) is None
