"""Runs the tests of the Java library (``*.java`` here, JUnit) on bundles, images and outputs that are prepared here."""

import fcntl
import io
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from PIL import Image
from support.bundles import edit_manifest, fake_bundle, write_manifest
from support.keys import PUBLIC, signed, write_keys
from support.photographs import write_phone_photograph
from support.wheels import ROOT

from paraedge_runtime import Bundle, Session
from paraedge_runtime.archive import write_zip
from paraedge_runtime.inputs import fitted_image
from paraedge_runtime.manifest import LabelsOutput

HERE = Path(__file__).parent
JUNIT = [Path("/usr/share/java", name) for name in ("junit4.jar", "hamcrest.jar")]
EXAMPLES = ROOT / "runtime" / "android" / "examples"
ANDROID_LAYER = ROOT / "runtime" / "android" / "library"
STUBS = HERE / "stubs"
TEST_CLASSES = sorted(
    f"ai.paraedge.{path.stem}" if path.read_text().startswith("package ai.paraedge;") else path.stem
    for path in HERE.glob("*Test.java")
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("javac") is None or not all(jar.exists() for jar in JUNIT),
        reason="no JDK or JUnit: the Java library was not tested; apt-get install default-jdk-headless junit4",
    ),
]


@pytest.fixture(scope="module")
def jar():
    """The library with this machine's natives, as 'make java' makes it; the first test process that asks builds it."""
    built = Path(os.environ["PARAEDGE_CACHE"]) / "paraedge.jar"
    with built.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            command = [ROOT / "scripts" / "make_java.sh", sys.executable, built, os.uname().machine]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return built


@pytest.fixture(scope="module")
def classes(jar, tmp_path_factory):
    """The class path of the tests."""
    folder = tmp_path_factory.mktemp("classes")
    path = os.pathsep.join(map(str, [folder, jar, *JUNIT]))
    sources = [*HERE.glob("*.java"), *EXAMPLES.glob("*.java"), *ANDROID_LAYER.rglob("*.java")]
    command = ["javac", "--release", "8", "-Xlint:-options", "-sourcepath", STUBS, "-cp", path, "-d", folder, *sources]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def prepared(bundles, tmp_path_factory):
    """What ``Prepared.java`` reads."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare_real_bundles(bundles["executorch"], folder)
    prepare_fake_bundles(folder)
    prepare_signed_bundles(bundles["executorch"], folder)
    prepare_scaled_images(folder / "scaled-images")
    prepare_photograph(folder)
    source, library = HERE / "fake_engine.c", folder / "libfake_engine.so"
    include = ROOT / "runtime" / "native" / "include"
    subprocess.run(["cc", "-std=gnu11", "-Wall", "-shared", "-fPIC", f"-I{include}", source, "-o", library], check=True)
    return folder


def prepare_real_bundles(bundle, folder):
    """The packaged model on 1,024 images, and its programs as a bundle of tensors and vectors."""
    shutil.copytree(bundle.path, folder / "images.paraedge")
    write_zip(bundle.files(), folder / "images.zip")
    images = np.load(ROOT / "sdk/models/paraedge_models/fashion_mnist/samples.npz")["images"]  # (256, 28, 28, 1)
    images = np.concatenate([images, images[:, :, ::-1], images[:, ::-1], images.transpose(0, 2, 1, 3)])
    save(folder / "images.u8", images)
    with Session.open(bundle, threads=2) as session:
        predictions = [session.run(np.ascontiguousarray(image)) for image in images]
    save(folder / "outputs.f32", np.stack([prediction.output for prediction in predictions]))
    save(folder / "confidences.f32", np.float32([prediction.confidence for prediction in predictions]))

    tensors = shutil.copytree(bundle.path, folder / "tensors.paraedge")
    edit_manifest(tensors, make_tensors)
    values = np.random.default_rng(0).normal(size=(32, 1, 28, 28)).astype(np.float32)
    save(folder / "tensors.f32", values)
    with Session.open(Bundle.open(tensors), threads=2) as session:
        save(folder / "vectors.f32", np.stack([session.run(value).output for value in values]))

    damaged = shutil.copytree(bundle.path, folder / "damaged.paraedge")
    program = bytearray((damaged / bundle.manifest.branches[0].file).read_bytes())
    program[100] ^= 1
    (damaged / bundle.manifest.branches[0].file).write_bytes(program)
    malformed = shutil.copytree(bundle.path, folder / "malformed.paraedge")
    write_manifest(malformed, b"{")
    other = shutil.copytree(bundle.path, folder / "other-engine.paraedge")
    edit_manifest(
        other, lambda manifest: manifest.update(engine="litert", engine_min_version={"ai-edge-litert": "1.2"})
    )


def make_tensors(manifest):
    """The same programs read a tensor and make a vector."""
    manifest["input"] |= {"kind": "tensor", "axes": ["channel", "row", "column"], "normalized_axis": "channel"}
    manifest["output"] = {"kind": "vector", "name": "embedding", "size": len(manifest["output"]["labels"])}
    manifest["stop_rules"] = None


def prepare_fake_bundles(folder):
    """Bundles for ``fake_engine.c``."""
    fake_bundle(folder / "held.paraedge", [{"add": 1.0}, {"add": 2.0}, {"hold": 1}])
    fake_bundle(folder / "failing.paraedge", [{"add": 1.0}, {"fail": 1}, {"nan": 1}])
    fake_bundle(folder / "refused.paraedge", [{"add": 1.0}, {"refuse": 1}])
    fake_bundle(folder / "sure.paraedge", [{"add": 10.0}, {"hold": 1}, {"hold": 1}])
    keys = write_keys(folder / "keys")
    (keys / "stranger.pub").rename(folder / "stranger.pub")
    for name in ("signed", "changed"):
        signed(fake_bundle(folder / f"{name}.paraedge"), keys)
    (keys / "stranger.pub").unlink()  # the helpers write it anew
    edit_manifest(folder / "changed.paraedge", lambda manifest: manifest.update(version=2))
    fake_bundle(folder / "mödel 😀.paraedge", output=LabelsOutput(labels=("ant", "bü😀", "cat")))


def prepare_signed_bundles(bundle, folder):
    """Zips of versions 1 and 2 by the key of PUBLIC_KEY, and of version 3 by another one."""
    for version, key in ((1, "release"), (2, "release"), (3, "stranger")):
        path = shutil.copytree(bundle.path, folder / f"version-{version}.paraedge")
        edit_manifest(path, lambda manifest, version=version: manifest.update(version=version))
        write_zip(signed(path, folder / "keys", key).files(), folder / f"version-{version}.zip")
    (folder / "public-key").write_text(PUBLIC["release"])


def prepare_scaled_images(path):
    """Images, and what Python makes of them; each as PixelsTest.java reads it."""
    rng = np.random.default_rng(3)
    sizes = [(28, 28), (12, 8), (480, 640), (100, 33), (7, 9), (1, 1), (33, 500), (8, 20)]
    cases = itertools.product(sizes, (1, 3, 4), (1, 3), ("stretch", "crop"))
    with path.open("wb") as file:
        for (height, width), has, wanted, resize in cases:
            pixels = rng.integers(0, 256, (height, width, has), dtype=np.uint8)
            expected = fitted_image(Image.fromarray(pixels[:, :, 0] if has == 1 else pixels), 12, 8, wanted, resize)
            argb = np.full((height, width, 4), 255, np.uint8)
            argb[:, :, 1:] = pixels[:, :, :3]
            if has == 4:
                argb[:, :, 0] = pixels[:, :, 3]
            file.write(struct.pack(">6i", height, width, 12, 8, wanted, resize == "crop"))
            file.write(argb.tobytes() + expected.tobytes())


def prepare_photograph(folder):
    """A photograph as a decoder or a camera gives it, lying on its side, and what Python makes of its file."""
    with Image.open(write_phone_photograph(folder / "photo.jpg")) as image:
        (folder / "photograph.rgba").write_bytes(image.convert("RGBA").tobytes())
        save(folder / "photograph.u8", fitted_image(image, 224, 224, 3, "crop"))


def save(path, array):
    path.write_bytes(np.ascontiguousarray(array).tobytes())


@pytest.mark.parametrize("name", TEST_CLASSES)
def test_java(name, classes, prepared, tmp_path):
    gate = tmp_path / "gate"
    done = subprocess.run(
        [
            *("java", "-Xcheck:jni", "-ea", f"-Dparaedge.test={prepared}", f"-Djava.io.tmpdir={tmp_path}"),
            *("-cp", classes, "org.junit.runner.JUnitCore", name),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PARAEDGE_TEST_GATE": str(gate), "LC_ALL": "C.UTF-8"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert re.search(r"OK \(\d+ tests?\)", said), said
    assert "in native method" not in said  # what -Xcheck:jni warns of
    assert [path.name for path in tmp_path.iterdir() if path != gate and "hsperfdata" not in path.name] == []


def test_the_example_classifies(classes, prepared, tmp_path):
    images = np.load(ROOT / "sdk/models/paraedge_models/fashion_mnist/samples.npz")["images"]
    with Session.open(Bundle.open(prepared / "images.paraedge")) as session:
        label = session.run(images[0]).label
    save(tmp_path / "image.u8", images[0])
    command = ["java", "-cp", classes, "Classify", prepared / "images.zip", tmp_path / "image.u8", "60000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{re.escape(label)}, \d+ %$", done.stdout, re.MULTILINE)
    assert "\nbranch 0: USED, " in done.stdout


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (
            "os.arch=i386",
            "no native library for 'linux-i386': its jar has those of Linux on x86-64 and 64-bit Arm, for a 64",
        ),
        (
            "os.name=Windows 10",
            "no native library for 'windows 10-x86_64': its jar has those of Linux on x86-64 and 64-bit",
        ),
        ("java.io.tmpdir=/nowhere", "cannot be unpacked: java.nio.file.NoSuchFileException: /nowhere/paraedge-"),
    ],
)
def test_where_the_jar_has_no_library_one_line_says_so(classes, prepared, option, problem):
    command = ["java", f"-D{option}", "-cp", classes, "Classify", prepared / "images.zip", prepared / "images.zip", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert problem in done.stderr.splitlines()[0]


def test_the_native_library_exports_its_entry_and_loads_on_pages_of_16_kib(jar):
    with zipfile.ZipFile(jar) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/libparaedge_jni.so"))
        library = ELFFile(io.BytesIO(archive.read(name)))
    symbols = library.get_section_by_name(".dynsym").iter_symbols()
    assert {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"} == {"JNI_OnLoad"}
    loaded = [segment for segment in library.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert all(segment["p_align"] % 16384 == 0 for segment in loaded)


@pytest.fixture(scope="module")
def kotlin_classes(classes, tmp_path_factory):
    """The class path with the Kotlin extensions and their checks, compiled."""
    with (Path(os.environ["PARAEDGE_CACHE"]) / "kotlin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [ROOT / "scripts" / "kotlin_compiler.sh", sys.executable]
        jars = Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    # The compiler's jar has coroutines; Kotlin's library comes beside it.
    path = os.pathsep.join(
        [classes, *map(str, jars.glob("kotlin-jupyter-kernel-*.jar")), *map(str, jars.glob("kotlin-stdlib-*.jar"))]
    )
    folder = tmp_path_factory.mktemp("kotlin")
    sources = [*(ROOT / "runtime/android/kotlin/src/main/kotlin").rglob("*.kt"), *HERE.glob("*.kt")]
    compiler = ["java", "-Xmx1500m", "-cp", f"{jars}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    options = ["-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "1.8", "-cp", path, "-d", folder]
    subprocess.run([*compiler, *options, *sources], check=True)
    return os.pathsep.join([str(folder), path])


def test_kotlin(kotlin_classes, prepared, tmp_path):
    done = subprocess.run(
        ["java", "-Xcheck:jni", f"-Dparaedge.test={prepared}", "-cp", kotlin_classes, "KotlinKt"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PARAEDGE_TEST_GATE": str(tmp_path / "gate"), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    assert "all checks passed" in done.stdout
    assert "in native method" not in done.stdout + done.stderr
