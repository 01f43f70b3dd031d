"""What 'make wheels' makes: devices with no compiler and no torch run every engine from it, in parallel threads."""

import json
import subprocess
import sys
import tarfile
import zipfile

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.wheels import ROOT, DeviceEnvironment, wheel_of_this_machine

# Building and installing are set-up; the limit is for what a test does itself.
pytestmark = [pytest.mark.environment, pytest.mark.timeout(300, func_only=True)]

# Engine -> what is installed for it, each line of arguments by itself; executorch asks for a workstation's packages.
ENGINES = {
    "litert": [["{wheel}[litert]"]],
    "onnxruntime": [["{wheel}[onnxruntime]"]],
    "executorch": [["{wheel}"], ["--no-deps", "executorch==1.5.1"]],
}
ENGINE_PACKAGES = {"ai-edge-litert", "tflite-runtime", "onnxruntime", "executorch", "torch"}
# What paraedge puts into site-packages, and what it brings along beside numpy and an engine.
MAX_OWN_MB, MAX_BESIDE_MB = 6, 15

ON_THE_DEVICE = """
import json, shutil, sys
from paraedge_runtime import Bundle, Session
from paraedge_runtime.verification import verify_bundle

assert not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cc", "gcc"))
bundle = Bundle.open(sys.argv[1])
report = verify_bundle(bundle, threads=2)
with Session.open(bundle, threads=2) as session:
    predictions = [session.run(image) for image in bundle.golden().inputs]
    threads = session.threads
print(json.dumps({
    "engine": report.engine,
    "problems": report.problems,
    "threads": threads,
    "outputs": [prediction.output.tolist() for prediction in predictions],
    "timelines": [prediction.timeline for prediction in predictions],
    "torch": "torch" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def wheel():
    return wheel_of_this_machine()


@pytest.fixture(scope="module", params=ENGINES)
def device(request, wheel, tmp_path_factory):
    environment = DeviceEnvironment(tmp_path_factory.mktemp("device"))
    for arguments in ENGINES[request.param]:
        environment.install(*(argument.format(wheel=wheel) for argument in arguments))
    return request.param, environment


@pytest.fixture(scope="module")
def bundle(device, bundles):
    return bundles[device[0]]


def test_a_wheel_has_the_native_core_and_no_library_of_an_engine(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = [name for name in archive.namelist() if ".so" in name]
    (core,) = [name for name in names if name.startswith("paraedge_runtime/_native.")]
    engine = "paraedge_runtime/lib/libparaedge_executorch.so"
    assert sorted(names) == sorted([core, engine])
    assert "-manylinux_2_34_" in wheel.name

    for name in names:
        sections = subprocess.run(
            ["readelf", "--sections", tmp_path / name], capture_output=True, text=True, check=True
        )
        assert ".dynsym" in sections.stdout
        assert ".symtab" not in sections.stdout, f"{name} is not stripped"
    dynamic = [
        subprocess.run(["readelf", "--dynamic", tmp_path / name], capture_output=True, text=True, check=True).stdout
        for name in (core, engine)
    ]
    assert "libexecutorch" not in dynamic[0]
    assert "libstdc++" not in dynamic[0]
    assert "PATH" not in dynamic[0]
    assert "[$ORIGIN/../../executorch/lib]" in dynamic[1]
    licences = {path.name for path in tmp_path.glob("*.dist-info/licenses/**/*") if path.is_file()}
    assert {"LICENSE", "NOTICE"} <= licences
    assert list(tmp_path.glob("*.dist-info/licenses/runtime/native/third_party/yyjson/LICENSE"))


def test_notice_names_everything_that_is_vendored():
    notice = (ROOT / "NOTICE").read_text()
    for folder in (ROOT / "runtime" / "native" / "third_party").iterdir():
        assert (folder / "LICENSE").is_file()
        assert f"runtime/native/third_party/{folder.name}" in notice
    assert (ROOT / "runtime/web/src/vendor/LICENSE").is_file()
    assert "runtime/web/src/vendor " in notice
    for line in notice.splitlines():
        for word in line.split():
            if word.startswith(("sdk/", "runtime/native/third_party/")):
                assert (ROOT / word).exists(), word


def test_installing_paraedge_downloads_no_engine(wheel, tmp_path):
    environment = DeviceEnvironment(tmp_path / "empty")
    report = json.loads(environment.pip("install", "--dry-run", "--quiet", "--report", "-", wheel))
    names = {package["metadata"]["name"].lower() for package in report["install"]}
    assert names == {"paraedge", "numpy", "msgspec"}


def test_a_device_runs_branches_in_two_threads(device, bundle):
    engine, environment = device
    assert ENGINE_PACKAGES & environment.packages() == {"ai-edge-litert" if engine == "litert" else engine}

    result = json.loads(environment.run(ON_THE_DEVICE, bundle.path))
    assert result["problems"] == []
    assert not result["torch"]
    assert "native core" in result["engine"] or engine != "executorch"
    assert result["threads"] == 2
    golden = bundle.golden()
    right = golden.branch_outputs.sum(axis=1)
    for output, expected in zip(result["outputs"], right, strict=True):
        assert abs(expected - output).max() < 1e-3
    assert any(_overlap(timeline) for timeline in result["timelines"])


def _overlap(timeline):
    """Did branches on two threads run at the same time?"""
    runs = [(thread, start, end) for part, thread, start, end in timeline if part != "stem"]
    return any(
        thread != other and start < other_end and other_start < end
        for thread, start, end in runs
        for other, other_start, other_end in runs
    )


def test_what_a_device_installs_is_its_engine_and_numpy(device):
    _, environment = device
    size_mb = {path.name: _size_mb(path) for path in environment.site_packages().iterdir()}
    own_mb = sum(size for name, size in size_mb.items() if name.startswith("paraedge"))
    assert own_mb <= MAX_OWN_MB, size_mb
    large = ("paraedge", "numpy", "ai_edge_litert", "onnxruntime", "executorch")
    beside = {name: size for name, size in size_mb.items() if not name.startswith(large)}
    assert sum(beside.values()) <= MAX_BESIDE_MB, beside


def _size_mb(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys, scikit_build_core.build as build; build.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("*.tar.gz")
    return path


def test_an_sdist_has_what_a_build_needs_and_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    folders = {name.partition("/")[0] for name in names}
    assert {"LICENSE", "NOTICE", "pyproject.toml", "README.md", "runtime", "sdk", "converters"} <= folders
    assert not folders & {"tests", "benchmarks", "docs", "dist", "build", ".git", ".venv"}
    assert not [name for name in names if name.startswith("sdk/models")], "paraedge-models is a distribution of its own"


BUILD = "import os, sys, scikit_build_core.build as build; os.chdir(sys.argv[1]); build.build_wheel(sys.argv[2])"


def _built_from(sdist, folder, **environment):
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    command = [sys.executable, "-c", BUILD, source, folder / "wheel"]
    subprocess.run(command, check=True, capture_output=True, env=environment or None)
    (path,) = (folder / "wheel").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def plain_wheel(sdist, tmp_path_factory):
    """From the sdist on a machine with CMake (a package that pip gets for the build) and without a compiler."""
    folder = tmp_path_factory.mktemp("plain")
    build = DeviceEnvironment(folder / "tools", programs=("cmake", "ninja"))
    return _built_from(sdist, folder, PATH=str(build.python.parent))


def test_an_sdist_without_a_compiler_runs_one_branch_after_another(plain_wheel, bundles, tmp_path):
    assert plain_wheel.name.endswith("-py3-none-any.whl")
    environment = DeviceEnvironment(tmp_path / "device")
    environment.install(f"{plain_wheel}[litert]")
    code = """
import sys
from paraedge_runtime import Bundle, Session
bundle = Bundle.open(sys.argv[1])
with Session.open(bundle, threads=2) as session:
    assert session.threads == 1
    prediction = session.run(bundle.golden().inputs[0])
assert prediction.branches_used == bundle.manifest.branch_indexes
print(prediction.explain())
"""
    assert "native core was not built" in environment.run(code, bundles["litert"].path)


@pytest.fixture(scope="module")
def compiled_wheel(sdist, tmp_path_factory):
    return _built_from(sdist, tmp_path_factory.mktemp("compiled"))


def test_a_wheel_says_what_it_is_made_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/sboms/paraedge.cdx.json")]
        text = archive.read(name).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert f"paraedge-{found['metadata']['component']['version']}-" in wheel.name
    parts = {(part["name"], part.get("version", "")) for part in found["components"]}
    names = {part[0] for part in parts}
    assert {"monocypher", "yyjson", "nanobind", "robin-map", "executorch", "libstdc++", "numpy", "msgspec"} <= names
    assert ("executorch", "1.5.1") in parts  # what is compiled in; the declared dependency is a part of its own
    assert not [text for part in parts for text in (*part, name) if "@" in text]


def test_an_sdist_with_a_compiler_builds_the_native_core(compiled_wheel):
    with zipfile.ZipFile(compiled_wheel) as archive:
        assert any(name.startswith("paraedge_runtime/_native.") for name in archive.namelist())


def test_both_packages_tell_the_version_of_the_distribution(wheel):
    import paraedge
    import paraedge_runtime

    assert paraedge.__version__ == paraedge_runtime.__version__
    assert f"paraedge-{paraedge.__version__}-" in wheel.name
