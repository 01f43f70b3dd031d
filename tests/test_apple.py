"""iOS and macOS, as far as a machine without Apple's tools and a Swift compiler can tell: nothing is run."""

import os
import re
import subprocess
import sys

import pytest
from support.wheels import ROOT

NATIVE = ROOT / "runtime" / "native"
PACKAGE = (ROOT / "Package.swift").read_text()
SWIFT = sorted((ROOT / "runtime" / "ios" / "Paraedge").glob("*.swift"))
HEADERS = [NATIVE / "include" / "paraedge" / name for name in ("paraedge.h", "executorch.h")]
SOURCES = re.findall(r'"([\w/-]+\.c(?:pp)?)"', PACKAGE)


def test_the_swift_package_has_the_sources_and_folders_that_cmake_builds():
    cmake = (NATIVE / "CMakeLists.txt").read_text()
    core = re.search(r"add_library\(paraedge_core STATIC(.*?)\)", cmake, re.DOTALL)
    assert sorted(SOURCES) == sorted([*core[1].split(), "core/capi.cpp", "engines/executorch.cpp"])
    folders = re.findall(r'headerSearchPath\("([\w/]+)"\)', PACKAGE)
    assert folders
    assert all((NATIVE / folder).is_dir() for folder in folders)
    wanted = re.search(r"WANTED ([\d.]+)\)", (NATIVE / "cmake" / "executorch.cmake").read_text())[1]
    assert f"swiftpm-{wanted}" in PACKAGE
    assert f'"\\"{wanted}\\""' in PACKAGE


def test_swift_uses_names_that_the_c_interface_has():
    declared = set(re.findall(r"\b(?:pe|PE)_\w+", "".join(path.read_text() for path in HEADERS)))
    used = {name for path in SWIFT for name in re.findall(r"\b(?:pe|PE)_\w+", path.read_text())}
    assert {"pe_session_run_image", "pe_engine_entry", "pe_prediction_free"} <= used
    assert used <= declared


def test_the_c_interface_is_a_module(tmp_path):
    """As Swift's importer reads it: by its module map, with clang."""
    ziglang = pytest.importorskip("ziglang", reason="no ziglang: the module map was not read")
    source = tmp_path / "application.m"
    source.write_text(
        "@import CParaedge;\n"
        "int begin(void) { return pe_engine_register(pe_engine_entry(PE_API_VERSION), 0) + PE_RESIZE_CROP; }\n"
    )
    include = NATIVE / "include"
    options = ["-fmodules", f"-fmodules-cache-path={tmp_path}", f"-fmodule-map-file={include / 'module.modulemap'}"]
    headers = ["-ffreestanding", "-isystem", f"{ziglang.__path__[0]}/lib/include", f"-I{include}"]
    command = [sys.executable, "-m", "ziglang", "clang", "-target", "arm64-apple-ios17", "-Wall", "-Werror"]
    done = subprocess.run([*command, "-fsyntax-only", *options, *headers, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def macos_executorch():
    """The macOS wheel of ExecuTorch: headers and dylibs."""
    command = [ROOT / "scripts" / "executorch_wheel.sh", sys.executable, "macos"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip() + "/executorch"


@pytest.fixture(scope="module")
def linked(tmp_path_factory, macos_executorch):
    """What compiler and linker said of the core, the engine and an application for arm64 macOS, and what they made."""
    pytest.importorskip("ziglang", reason="no ziglang: nothing was linked for macOS")
    folder = tmp_path_factory.mktemp("macos")
    application, program = folder / "application.cpp", folder / "application"
    application.write_text(
        '#include "paraedge/executorch.h"\n'
        "int main(int, char** arguments) {\n"
        "  pe_engine_register(pe_engine_entry(PE_API_VERSION), nullptr);\n"
        "  return pe_session_open(pe_bundle_open(arguments[1], nullptr), nullptr, nullptr) == nullptr;\n"
        "}\n"
    )
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}

    def zig(*arguments):
        command = [sys.executable, "-m", "ziglang", *arguments, "-target", "aarch64-macos.14.0", "-O0"]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **caches})

    objects = []
    for source in (NATIVE / name for name in SOURCES if name.endswith(".c")):
        objects.append(folder / f"{source.stem}.o")
        done = zig("cc", "-c", source, "-o", objects[-1])
        assert done.returncode == 0, done.stderr
    includes = [f"-I{NATIVE}/{name}" for name in ("include", "core", "engines", "programs")]
    for place in (
        f"{NATIVE}/third_party/yyjson",
        f"{NATIVE}/third_party/monocypher",
        f"{macos_executorch}/include",
        f"{macos_executorch}/include/executorch/runtime/core/portable_type/c10",
    ):
        includes += ["-isystem", place]
    defines = ["C10_USING_CUSTOM_GENERATED_MACROS", "ET_USE_THREADPOOL"]
    defines += ['PARAEDGE_EXECUTORCH_VERSION="1.5.1"', 'PARAEDGE_VERSION="0"']
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
    names = ("", "_kernels_optimized", "_backend_xnnpack", "_threadpool")
    libraries = [f"{macos_executorch}/lib/libexecutorch{name}.dylib" for name in names]
    sources = [NATIVE / name for name in SOURCES if name.endswith(".cpp")]
    done = zig(
        "c++", *flags, *(f"-D{define}" for define in defines), *includes,
        *sources, application, *objects, *libraries, "-o", program,
    )  # fmt: skip
    return done, program


@pytest.mark.cross
@pytest.mark.timeout(1200)  # of which the fixture has nearly all: it builds a C++ library as well
def test_it_links_for_macos_against_the_libraries_of_executorch(linked):
    """With compiler, linker and headers of PyPI's ziglang, and the dylibs of ExecuTorch's macOS wheel."""
    done, program = linked
    assert done.returncode == 0, done.stderr
    assert program.read_bytes()[:8] == bytes.fromhex("cffaedfe0c000001")  # Mach-O, 64 bits, arm64
