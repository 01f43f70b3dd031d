"""Writes runtime/native/sbom.cdx.json.in, the bill of materials of the wheel: ``python scripts/make_sbom.py``.

CMake fills in the versions that a build chooses and installs it as ``sboms/paraedge.cdx.json`` of the wheel's dist-info
(PEP 770). It lists what the wheel holds of others, file by file where the source is in this tree, and what pip installs
beside it. ``tests/test_wheels.py`` compares it with the tree.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import uuid
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "runtime/native/sbom.cdx.json.in"
# What lies in runtime/native/third_party: folder -> licence, file that says the version, how.
_SOURCES = {
    "monocypher": ("BSD-2-Clause OR CC0-1.0", "monocypher.h", r"Monocypher version ([0-9.]+)"),
    "yyjson": ("MIT", "yyjson.h", r'YYJSON_VERSION_STRING "([0-9.]+)"'),
}
# What a build compiles or links into the wheel: name -> version, licence, how.
_BUILT_IN = {
    "nanobind": ("@nanobind_VERSION@", "BSD-3-Clause", "linked into paraedge_runtime/_native"),
    "robin-map": (None, "MIT", "a part of nanobind; linked into paraedge_runtime/_native"),
    "executorch": (
        "@PARAEDGE_EXECUTORCH_WANTED@",
        "BSD-3-Clause",
        "inline code of its headers is compiled into paraedge_runtime/lib/libparaedge_executorch.so",
    ),
    "libstdc++": (
        "@CMAKE_CXX_COMPILER_VERSION@",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "linked into paraedge_runtime/_native of the wheels that 'make wheels' makes",
    ),
}


def document() -> str:
    """The template's text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    licences = LicenseFactory()
    paraedge = Component(
        name="paraedge",
        version="@PROJECT_VERSION@",
        bom_ref="paraedge",
        description=project["description"],
        licenses=[licences.make_from_string(project["license"])],
        purl=PackageURL("pypi", name="paraedge", version="@PROJECT_VERSION@"),
    )
    inside = [_source(name) for name in _SOURCES]
    for name, (version, licence, how) in _BUILT_IN.items():
        component = Component(name=name, version=version, bom_ref=name, description=how)
        component.licenses.add(licences.make_from_string(licence))
        inside.append(component)
    beside = [_package(text, ComponentScope.REQUIRED, "") for text in project["dependencies"]]
    beside += [
        _package(text, ComponentScope.OPTIONAL, extra)
        for extra, texts in project["optional-dependencies"].items()
        for text in texts
        if extra not in ("all", "dev") and not text.startswith("paraedge")
    ]
    bom = Bom(serial_number=uuid.UUID(int=0), components=[*inside, *beside])
    bom.metadata.component = paraedge
    bom.metadata.timestamp = None  # left out then
    bom.register_dependency(paraedge, [*inside, *(one for one in beside if one.scope is ComponentScope.REQUIRED)])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    # One file for every build of a version; a serial number would name one of them.
    return re.sub(r'  "serialNumber": "[^"]*",\n', "", text).replace("%40", "@") + "\n"


def _source(name: str) -> Component:
    licence, file, pattern = _SOURCES[name]
    folder = ROOT / "runtime/native/third_party" / name
    found = re.search(pattern, (folder / file).read_text())
    assert found, f"{folder / file} does not say its version"
    return Component(
        name=name,
        version=found[1],
        bom_ref=name,
        description="linked into paraedge_runtime/_native",
        licenses=[LicenseFactory().make_from_string(licence)],
        components=[
            Component(
                name=path.relative_to(ROOT).as_posix(),
                type=ComponentType.FILE,
                bom_ref=path.relative_to(ROOT).as_posix(),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(path.read_bytes()).hexdigest())],
            )
            for path in sorted(folder.iterdir())
        ],
    )


def _package(requirement: str, scope: ComponentScope, extra: str) -> Component:
    name, wanted = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(.*)", requirement).groups()
    properties = {"requires": wanted.strip(), "extra": extra}
    return Component(
        name=name,
        bom_ref=f"{extra}:{name}",
        scope=scope,
        purl=PackageURL("pypi", name=name),
        properties=[Property(name=f"paraedge:{key}", value=value) for key, value in properties.items() if value],
    )


if __name__ == "__main__":
    TARGET.write_text(document())
