"""The Android modules as far as a machine without Android's SDK and Gradle can tell: sources, and files that agree."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from support.wheels import ROOT

ANDROID = ROOT / "runtime" / "android"
STUBS = ROOT / "tests" / "java" / "stubs"
WORKFLOW = ROOT / ".github" / "workflows" / "android.yml"
KNOWS_ANDROID = re.compile(r"^import (?:static )?(?:android|androidx)\.", re.MULTILINE)


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK: the Android layer was not compiled")
def test_library_and_application_compile_without_a_warning(tmp_path):
    """Against tests/java/stubs, with the Java that Android's tools are told to expect."""
    sources = [*ANDROID.glob("*/src/main/java/**/*.java")]
    command = ["javac", "--release", "8", "-Xlint:all,-options", "-Werror", "-implicit:none", "-sourcepath", STUBS]
    done = subprocess.run([*command, "-d", tmp_path, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("MainActivity.class"))
    assert list(tmp_path.rglob("FrameAnalyzer.class"))


def test_android_s_types_stay_in_a_thin_layer():
    layer = list((ANDROID / "library/src/main/java").rglob("*.java"))
    assert sum(len(path.read_text().splitlines()) for path in layer) < 300
    for folder in ("paraedge", "kotlin"):
        below = [path for path in (ANDROID / folder).rglob("*") if path.suffix in (".java", ".kt")]
        assert below
        assert [path for path in below if KNOWS_ANDROID.search(path.read_text())] == []


def test_the_native_library_finds_by_name_what_shrinking_keeps():
    rules = (ANDROID / "library/consumer-rules.pro").read_text()
    looked_up = re.findall(r'"(ai/paraedge/[\w$]+)"', (ROOT / "runtime/native/java/paraedge_jni.cpp").read_text())
    assert len(set(looked_up)) == 5
    assert {name.replace("/", ".") for name in looked_up} == set(re.findall(r"(ai\.paraedge\.[\w$]+) \{", rules))


def test_versions_and_names_agree():
    library, application = ((ANDROID / module / "build.gradle.kts").read_text() for module in ("library", "app"))
    settings, workflow = (ANDROID / "settings.gradle.kts").read_text(), WORKFLOW.read_text()
    for module in re.findall(r'":(\w+)"', settings):
        assert (ANDROID / module / "build.gradle.kts").is_file()
    (ndk,) = set(re.findall(r'ndkVersion = "([\d.]+)"', library + application))
    assert ndk.startswith("27.")
    assert f"ndk;{ndk}" in workflow
    (cmake,) = re.findall(r'version = "([\d.]+)"', library)
    assert f"cmake;{cmake}" in workflow
    wanted = re.search(r"WANTED ([\d.]+)\)", (ROOT / "runtime/native/cmake/executorch.cmake").read_text())
    assert f"EXECUTORCH: v{wanted[1]}" in workflow
    activity = (ANDROID / "app/src/main/java/ai/paraedge/sample/MainActivity.java").read_text()
    (asset,) = re.findall(r'"([\w.]+\.zip)"', activity)
    assert f"assets/{asset}" in workflow
    manifest = ElementTree.parse(ANDROID / "app/src/main/AndroidManifest.xml").getroot()
    name = "{http://schemas.android.com/apk/res/android}name"
    assert [entry.get(name) for entry in manifest.iter("uses-permission")] == ["android.permission.CAMERA"]
    assert [entry.get(name) for entry in manifest.iter("activity")] == [".MainActivity"]


def test_cmake_is_asked_for_what_it_knows():
    library = (ANDROID / "library/build.gradle.kts").read_text()
    cmake = (ROOT / "runtime/native/CMakeLists.txt").read_text()
    options = re.findall(r'"-D(PARAEDGE_\w+)=', library)
    assert options
    assert all(f"({option} " in cmake for option in options)
    target = re.search(r'targets \+= "(\w+)"', library)
    assert f"add_library({target[1]} " in (ROOT / "runtime/native/cmake/java.cmake").read_text()
