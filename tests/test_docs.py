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
from support import console
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
LANGUAGES = {"console", "sh", "python", "c", "cpp", "cmake", "java", "js", "json", "swift", "text"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_name(page):
    return str(page.relative_to(ROOT)).removeprefix("docs/")


def blocks(page, *languages):
    return [(match[1], match[2]) for match in FENCE.finditer(page.read_text(encoding="utf-8")) if match[1] in languages]


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
    for number, (image, label) in enumerate(zip(samples.images, samples.labels, strict=True)):
        if label in (5, 7, 9):
            folder = tmp_path / "shoes" / checkpoint.config.labels[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, :, 0]).save(folder / f"{number}.png")
    photographs = load_checkpoint(resolve_checkpoint("waste"))
    labels = photographs.config.labels
    Image.fromarray(photographs.samples.images[0]).save(tmp_path / "photo.jpg")
    for number, place in enumerate(photographs.samples.balanced_order(0)[:60]):
        folder = tmp_path / "photographs" / labels[photographs.samples.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photographs.samples.images[place]).save(folder / f"{number}.jpg")
    write_tones(tmp_path / "recordings", count=12, yes=400, no=900, other=1600)
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
    writing = bool(os.environ.get("PARAEDGE_DOCS_OUTPUTS"))
    figures = False
    for language, text in blocks(page, "console", "python"):
        if language == "python":
            figures = figures or bool(console.TRAINS.search(text))
            exec(compile(text, str(page), "exec"), namespace)
            continue
        block = ""
        for command, shown in console.commands(text):
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=280)
            assert done.returncode == 0, f"{page.name}: {command}\n{done.stdout}\n{done.stderr}"
            figures = figures or bool(console.TRAINS.search(command))
            lines = done.stdout.replace(os.environ["PARAEDGE_CACHE"], "~/.cache/paraedge").splitlines()
            printed = console.cut([line.rstrip() for line in lines], shown)
            block += "".join(f"{line}\n" for line in (f"$ {command}", *printed))
            if not writing:
                loose = figures or bool(console.MEASURES.search(command))
                assert console.masked(printed, figures=loose) == console.masked(shown, figures=loose), (
                    f"{page.name} shows another output of '{command}'; run 'make docs-outputs'"
                )
        if writing:
            page.write_text(
                page.read_text(encoding="utf-8").replace(f"```console\n{text}```", f"```console\n{block}```")
            )


def test_evaluate_drew_a_curve(workplace):
    subprocess.run(["paraedge", "evaluate", "fashion-mnist", "--plot", "curve.png"], check=True, capture_output=True)
    with Image.open("curve.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_what_is_masked_and_what_is_not():
    def masked(text, **options):
        return console.masked(text.splitlines(), **options)

    assert masked("0.86 ms, 6.98 MB, 131 dB, 3.0e-06, torch 2.13.0+cpu") == masked(
        "9.1 ms, 7.0 MB, 99 dB, 4.1e-07, torch 3.0.1+cu128"
    )
    for one, other in (("94.22 %", "94.23 %"), ("verified", "NOT verified"), ("8 branches", "7 branches")):
        assert masked(one) != masked(other)
    row = "image.png  T-shirt/top      98.4 %  0-7          1.53"
    late = "image.png  T-shirt/top      97.4 %  0            4.64  would miss the deadline: 1; late: 2-7"
    assert masked(row) != masked(late)
    assert masked(row, figures=True) == masked(late, figures=True)
    assert masked(row, figures=True) != masked(row.replace("image.png", "photo.jpg"), figures=True)
    ran = "  branch 1 ran from 0.11 to 1.02 ms on thread 1: 0.12 ms predicted, 4.48 ms left"
    dropped = "  branch 1 was dropped: predicted to miss the deadline: 0.12 ms predicted, -2.69 ms left"
    assert masked(ran, figures=True) == masked(dropped, figures=True)
    assert masked(ran, figures=True) != masked(ran.replace("predicted", "expected"), figures=True)


def test_what_is_left_out_stays_left_out():
    printed = ["one", "two", "three", "four"]
    assert console.cut(printed, ["1", "…", "4"]) == ["one", "…", "four"]
    assert console.cut(printed, ["…"]) == printed
    assert console.cut(printed, ["1", "2"]) == printed
    assert console.cut(printed, ["1", "2", "…", "3", "4"]) == printed  # nothing is left that could be left out


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_console_block_is_run_and_shows_its_output(page):
    """``console`` is run and shows what was printed; ``sh`` is not run: it needs hardware, a network, a person."""
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        assert language in LANGUAGES, f"{page.name}: ```{language}\n{text}"
        if language == "console":
            assert text.startswith("$ ")
            assert any(shown for _, shown in console.commands(text)), f"{page.name} shows nothing below:\n{text}"
        else:
            assert language == "python" or not re.search(r"^\$ ", text, re.MULTILINE), f"{page.name}:\n{text}"


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
            elif match := re.fullmatch(
                r"(?:node|java -cp dist/paraedge.jar) (runtime/\S+\.(?:js|java)) .*", command
            ):  # node comes with 'make test-web', the jar with 'make java'
                assert (ROOT / match[1]).is_file(), command
            elif command.startswith("minisign "):  # another program, which asks for a password
                pass
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
