"""The native sources are right for Android as far as a machine without its NDK can tell.

PyPI's ziglang 0.13 has compiler and C++ library of NDK r27, clang 18 and libc++ 18. With musl's headers in place of
bionic's it checks the language, the library and every ``#ifdef __ANDROID__``; nothing is linked, nothing is run.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.wheels import ROOT

pytestmark = pytest.mark.cross

NATIVE = ROOT / "runtime" / "native"
STUBS = ROOT / "tests" / "support" / "android"
SOURCES = sorted(
    path.relative_to(NATIVE).as_posix()
    for folder in ("core", "engines", "programs", "tools", "java")
    for path in (NATIVE / folder).glob("*.cpp")
)
COMPILE = [
    *("-target", "aarch64-linux-musl", "-D__ANDROID__", "-D__ANDROID_API__=26", "-include", f"{STUBS}/bionic.h"),
    *("-std=c++20", "-O0", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"),
    *("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL", '-DPARAEDGE_EXECUTORCH_VERSION="1.5.1"'),
    *(
        '-DPARAEDGE_VERSION="0"',
        f"-I{STUBS}",
        f"-I{NATIVE}/include",
        f"-I{NATIVE}/core",
        f"-I{NATIVE}/engines",
        f"-I{NATIVE}/programs",
    ),
    *("-isystem", f"{NATIVE}/third_party/yyjson", "-isystem", f"{NATIVE}/third_party/monocypher"),
]


def executorch_headers() -> list[str]:
    found = importlib.util.find_spec("executorch")
    assert found is not None
    assert found.submodule_search_locations is not None
    include = Path(found.submodule_search_locations[0], "include")
    return ["-isystem", str(include), "-isystem", str(include / "executorch/runtime/core/portable_type/c10")]


def java_headers() -> list[str]:
    """``jni.h``; the NDK has one of its own with the same functions."""
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("no JDK: paraedge_jni.cpp was not checked; Debian has one in default-jdk-headless")
    include = Path(compiler).resolve().parents[1] / "include"
    return ["-isystem", str(include), "-isystem", str(include / "linux")]


@pytest.fixture
def compile_for_android(tmp_path):
    pytest.importorskip("ziglang", reason="no ziglang: nothing was checked for Android; it is part of the extra 'dev'")
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(tmp_path / "zig"), "ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")}

    def compile_it(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ziglang", "c++", *COMPILE, *arguments, "-c", "-o", tmp_path / "out.o", source]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **caches})

    return compile_it


@pytest.mark.parametrize("source", SOURCES)
def test_it_compiles(source, compile_for_android):
    headers = executorch_headers() if source.startswith(("engines/", "tools/")) else []
    done = compile_for_android(NATIVE / source, *headers, *(java_headers() if source.startswith("java/") else []))
    assert done.returncode == 0, done.stderr


def test_what_the_ndk_lacks_is_found(tmp_path, compile_for_android):
    source = tmp_path / "budget.cpp"
    source.write_text(
        "#include <charconv>\n"
        "double budget(const char* b, const char* e) { double x = 0; std::from_chars(b, e, x); return x; }\n"
    )
    done = compile_for_android(source)
    assert done.returncode != 0
    assert "from_chars" in done.stderr
