"""What a bundle is made of, as a software bill of materials: CycloneDX 1.6 in JSON.

For whoever ships a device and must say what is on it: the model with its licence and the hash of its manifest, every
file with its hash, the engine that runs it, the checkpoint it was exported from, and the tools that exported it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from paraedge_runtime import __version__
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import EngineUnavailable

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

__all__ = ["bundle_sbom"]


def bundle_sbom(bundle: Bundle) -> str:
    """The document; it has no date, so the same bundle always has the same one.

    Raises:
        ManifestError: the bundle's card cannot be read.
        EngineUnavailable: the package cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.contrib.license.factories import LicenseFactory
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Pedigree
        from cyclonedx.output.json import JsonV1Dot6
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            "a bill of materials needs the package cyclonedx-python-lib; pip install 'paraedge[sbom]'"
        ) from error
    manifest, card = bundle.manifest, bundle.card
    model = _component(
        "machine-learning-model",
        manifest.name,
        version=str(manifest.version),
        sha256=bundle.sha256,
        target=manifest.target,
        quantization=manifest.quantization,
    )
    model.description = card.description
    model.licenses.add(LicenseFactory().make_from_string(card.license))
    checkpoint = _component("machine-learning-model", f"checkpoint of {manifest.name}", sha256=card.checkpoint_sha256)
    model.pedigree = Pedigree(ancestors=[checkpoint])
    files = [
        _component("file", entry.file, sha256=entry.sha256, field=field, size_bytes=str(entry.size_bytes))
        for field, entry in manifest.entries().items()
    ]
    engines = [
        _component("framework", name, min_version=least) for name, least in sorted(manifest.engine_min_version.items())
    ]
    tested_on = {one.dataset for one in (card.accuracy, card.early_stop) if one is not None}
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"paraedge-bundle:{bundle.sha256}"),
        components=[*files, *engines, *(_component("data", name) for name in sorted(tested_on))],
    )
    bom.metadata.component = model
    bom.metadata.timestamp = None  # type: ignore[assignment]  # left out then
    bom.metadata.tools.components.add(_component("application", "paraedge", version=__version__))
    exporters = [_component("library", name, version=there) for name, there in sorted(card.tool_versions.items())]
    bom.metadata.tools.components.update(exporters)
    bom.register_dependency(model, [*files, *engines])
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _component(kind: str, name: str, *, version: str | None = None, sha256: str = "", **properties: str) -> Component:
    """Of one of CycloneDX's types; ``properties`` are those that it has no field for."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=name,
        type=ComponentType(kind),
        bom_ref=f"{kind}:{name}",
        version=version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        properties=[Property(name=f"paraedge:{key}", value=value) for key, value in properties.items()],
    )
