"""Documentation is run: every console command and every Python block of README and docs, in order."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.motion import write_folder
from support.recordings import write_tones

from paraedge.cli.bench import bench
from paraedge.cli.export import export
from paraedge.cli.plan import plan
from paraedge.cli.profile import profile
from paraedge.cli.pull import pull
from paraedge.cli.push import push
from paraedge.cli.train import train
from paraedge.cli.web import web
from paraedge.model import load_checkpoint
from paraedge.packaged import resolve_checkpoint
from paraedge_demo.main import demo

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "runtime" / "native"
OUTSIDE = NATIVE / "examples" / "outside"  # built and run by 'make test-native'
JAVA_EXAMPLES = ROOT / "runtime" / "android" / "examples"  # run by tests/java
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PARSED = {
    "train": train,
    "bench": bench,
    "export": export,
    "plan": plan,
    "profile": profile,
    "web": web,
    "push": push,
    "pull": pull,
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_name(page):
    return str(page.relative_to(ROOT)).removeprefix("docs/")


def blocks(page, *languages):
    return [(match[1], match[2]) for match in FENCE.finditer(page.read_text(encoding="utf-8")) if match[1] in languages]


def masked(text):
    """An output without what another machine may print: times, sizes, hashes, versions, SNR, and the room they take."""
    text = re.sub(r"\b\d+\.\d+(\.\d+|e-\d+)?\b(?! ?%)|\b\d+(?= dB)", "N", text)
    return re.sub(r"[ ─]+", " ", re.sub(r"\b[0-9a-f]{12,}\b", "HASH", text))


@pytest.fixture
def workplace(tmp_path, checkpoint, bundles, monkeypatch):
    """A folder as the reader has it: an image, folders of images and of motion, and ``paraedge`` on the path."""
    assert bundles["litert"]  # the packaged model's parts are in the cache
    samples = checkpoint.samples
    Image.fromarray(samples.images[0, :, :, 0]).save(tmp_path / "image.png")
    for number, (image, label) in enumerate(zip(samples.images[:60], samples.labels[:60], strict=True)):
        folder = tmp_path / "photos" / ("shoes" if label in (5, 7, 9) else "clothes")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(folder / f"{number}.png")
    photographs = load_checkpoint(resolve_checkpoint("waste"))
    labels = photographs.config.labels
    Image.fromarray(photographs.samples.images[0]).save(tmp_path / "photo.jpg")
    for number, place in enumerate(photographs.samples.balanced_order(0)[:60]):
        folder = tmp_path / "photographs" / labels[photographs.samples.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photographs.samples.images[place]).save(folder / f"{number}.jpg")
    write_tones(tmp_path / "recordings", count=6, yes=400, no=900, other=1600)
    write_folder(tmp_path / "motion", 90)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(1200)  # a page is many commands, on a machine that may be busy; each has a limit of its own
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_and_python_run(page, workplace, checkpoint):
    from support.conv_branches import ConvBranches

    namespace = {
        "image": checkpoint.samples.images[0, :, :, 0],
        "my_model": ConvBranches(),
        "labels": checkpoint.config.labels,
        "real_uint8_images": checkpoint.samples.images,
        "classes": checkpoint.samples.labels,
    }
    for language, text in blocks(page, "console", "python"):
        if language == "python":
            exec(compile(text, str(page), "exec"), namespace)
            continue
        printed = ""
        for line in (line for line in text.splitlines() if line.startswith("$ ")):
            done = subprocess.run(line[2:], shell=True, capture_output=True, text=True, timeout=280)
            assert done.returncode == 0, f"{page.name}: {line}\n{done.stdout}\n{done.stderr}"
            printed += f"{line}\n" + "".join(f"{one.rstrip()}\n" for one in done.stdout.splitlines())
        if all(line.startswith("$ ") for line in text.splitlines()):
            continue  # a block of commands alone
        if os.environ.get("PARAEDGE_DOCS_OUTPUTS"):
            page.write_text(
                page.read_text(encoding="utf-8").replace(f"```console\n{text}```", f"```console\n{printed}```")
            )
        else:
            assert masked(printed) == masked(text), f"{page.name} shows another output; run 'make docs-outputs'"


def test_evaluate_drew_a_curve(workplace):
    subprocess.run(["paraedge", "evaluate", "fashion-mnist", "--plot", "curve.png"], check=True, capture_output=True)
    with Image.open("curve.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_what_is_masked_and_what_is_not():
    assert masked("0.86 ms, 6.98 MB, 131 dB, 3.0e-06, torch 2.13.0") == masked(
        "9.1 ms, 7.0 MB, 99 dB, 4.1e-07, torch 3.0.1"
    )
    for one, other in (("94.22 %", "94.23 %"), ("verified", "NOT verified"), ("8 branches", "7 branches")):
        assert masked(one) != masked(other)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_and_extras_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for _, text in blocks(page, "sh"):
        for line in text.splitlines():
            command = line.split("#")[0].strip()
            if match := re.fullmatch(r"make (\S+)", command):
                assert re.search(rf"^{match[1]}:", makefile, re.MULTILINE), command
            elif match := re.fullmatch(
                r"pip install (?:--find-links dist |\./sdk/models )?'?(?:paraedge|\.)(?:\[([\w,-]+)\])?'?", command
            ):
                assert set((match[1] or "all").split(",")) <= set(extras), command
            elif match := re.fullmatch(
                r"(?:torchrun .* -- )?paraedge (train|bench|export|plan|profile|web|push|pull) (.*)", command
            ):
                # parsed, not run: some take an hour
                PARSED[match[1]].make_context(match[1], shlex.split(match[2]))
            elif match := re.fullmatch(r"~/paraedge-demo/bin/paraedge-demo (.*)", command):
                demo.make_context("paraedge-demo", shlex.split(match[1]))  # it runs until Ctrl-C
            elif match := re.fullmatch(
                r"(?:\.venv/bin/(?:python|torchrun --nproc-per-node \d) |sh paraedge/)([\w/.]+\.(?:py|sh)).*", command
            ):
                assert (ROOT / match[1]).is_file(), command
            elif match := re.fullmatch(r"pip install --no-deps executorch==(\S+)", command):
                assert f"PARAEDGE_EXECUTORCH_WANTED {match[1]})" in (NATIVE / "cmake/executorch.cmake").read_text()
            elif match := re.fullmatch(
                r"cmake (?:-S (\S+) )?(?:-B|--build|--install) .*", command
            ):  # run by 'make test-native'
                assert not match[1] or ROOT / match[1] in (NATIVE, OUTSIDE), command
            elif match := re.fullmatch(r"build/(native|outside)/(\S+) .*", command):
                project = {"native": NATIVE, "outside": OUTSIDE}[match[1]]
                assert f"add_executable({match[2]} " in (project / "CMakeLists.txt").read_text(), command
            elif command == "python3 -m http.server --directory site --bind 127.0.0.1":
                pass  # it runs until Ctrl-C
            elif match := re.fullmatch(r"node (runtime/web/\S+\.js) .*", command):  # node comes with 'make test-web'
                assert (ROOT / match[1]).is_file(), command
            elif command == "pip install fairscale":  # what a benchmark compares with, no part of paraedge
                assert "from fairscale.nn import Pipe" in (ROOT / "benchmarks/several_gpus.py").read_text()
            else:
                assert command == "", f"{page.name}: nothing checks the command {command!r}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_c_cpp_and_java_are_parts_of_an_example(page):
    examples = [path.read_text() for folder in (OUTSIDE, JAVA_EXAMPLES) for path in folder.iterdir()]
    for language, text in blocks(page, "c", "cpp", "cmake", "java"):
        if text.startswith("--8<--"):  # a whole file, which the site includes
            continue
        assert any(text in example for example in examples), f"{page.name}: no example has this {language}:\n{text}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_nothing_is_left_to_be_filled_in(page):
    assert not re.search(r"^[A-Z][A-Z_]{3,}$|TODO|FIXME|XXX", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_the_demo_runs(workplace):
    done = subprocess.run(
        [sys.executable, ROOT / "demos" / "quickstart.py"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "of 32 real images right" in done.stdout
    with Image.open("build/quickstart.png") as image:
        assert image.size[0] > 1000


def test_no_file_names_a_machine_of_ours():
    """Paths and hosts of a developer's machine do not belong into what is shipped."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(rb"/work/|/root/|/opt/(?:wheels|pypi)|\.library|127\.0\.0\.1:\d{4}")
    for name in listed:
        if name.endswith((".py", ".md", ".toml", ".json", "Makefile", "run")) and name != "tests/test_docs.py":
            assert not pattern.search((ROOT / name).read_bytes()), name
