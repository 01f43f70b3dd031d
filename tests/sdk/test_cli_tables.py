"""What commands print on a terminal of 80 columns, in a pipe, and while they work."""

import re
from types import SimpleNamespace

import click
import pytest
from msgspec.structs import replace
from support.bundles import edit_manifest
from support.devices import DEVICE, MEASUREMENT, latency
from support.terminal import forget_consoles, main, on_screen

from paraedge.cli.export import _print_trials
from paraedge.cli.main import COMMANDS as COMMAND_NAMES
from paraedge.cli.main import paraedge
from paraedge.cli.output import indexes_text
from paraedge.cli.profile import _print
from paraedge.cli.training import print_trained
from paraedge.exporting import Trial
from paraedge_measure.device import write_device
from paraedge_runtime import Bundle

COLUMNS = 80


@pytest.fixture(autouse=True)
def new_consoles():
    """They know where they write, which is another place in every test."""
    forget_consoles()
    yield
    forget_consoles()


_NUMBER = re.compile(r"[-+×\d.,:%/–]+")


@pytest.fixture(scope="module")
def folder(bundles, tmp_path_factory):
    """A bundle of all branches, one with the longest name of a recipe, and a device on which the first was measured."""
    folder = tmp_path_factory.mktemp("tables")
    bundle = bundles["litert"]
    bundle.pack(folder / "all.paraedge.zip")
    two = bundle.subset(2, folder / "two-of-them.paraedge").path
    edit_manifest(two, lambda document: document.update(quantization="int8-dynamic+fp32-stem"))
    parts = {"stem": latency(1.0), **{f"branch_{number:02d}": latency(2.0, n=12_690) for number in range(8)}}
    one = replace(
        MEASUREMENT, bundle_name="fashion-mnist", bundle_sha256=bundle.sha256, parts=parts, request=latency(17.0)
    )
    write_device(replace(DEVICE, measurements=(one,)), folder / "device.json")
    return SimpleNamespace(path=folder, device=replace(DEVICE, measurements=(one,)), measured=[one])


TRIALS = [
    Trial("int8-dynamic", 1_930_000, None, "98.83 % of 256 labels agree with torch, and the recipe needs 99 %"),
    Trial("int8-dynamic+fp32-stem", 1_990_000, 0.0012, ""),
]
COMMANDS = {
    "targets": ("targets",),
    "models": ("models",),
    "doctor": ("doctor",),
    "inspect": ("inspect", "all.paraedge.zip"),
    "verify": ("verify", "all.paraedge.zip"),
    "run": ("run", "all.paraedge.zip"),
    "run --early-stop": ("run", "all.paraedge.zip", "--early-stop"),
    "run --budget-ms": ("run", "all.paraedge.zip", "--budget-ms", "0.05"),
    "evaluate": ("evaluate", "fashion-mnist"),
    "compare": ("compare", "all.paraedge.zip", "two-of-them.paraedge", "--limit", "10", "--rounds", "1"),
    "bench": ("bench", "all.paraedge.zip", "--requests", "16", "--limit", "10", "--out", "b.jsonl"),
    "plan": ("plan", "all.paraedge.zip", "--profile", "device.json", "--budget-ms", "100"),
    "profile": lambda folder, trained: _print(folder.device, folder.measured),
    "export --quantize auto": lambda folder, trained: _print_trials(TRIALS),
    "train": lambda folder, trained: print_trained(trained.checkpoint, trained.folder, False),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_table_fits_80_columns_and_breaks_no_word(name, folder, trained, monkeypatch, capfd):
    monkeypatch.chdir(folder.path)
    command = COMMANDS[name]

    def call():
        (folder.path / "b.jsonl").unlink(missing_ok=True)
        if callable(command):
            command(folder, trained)
        else:
            assert main(*command) == 0

    narrow = on_screen(call, COLUMNS)
    capfd.readouterr()
    call()
    whole = set("".join(capfd.readouterr()).split())
    paths_may_be_folded = {trained.folder.as_posix()}
    tables = [line for line in narrow if not any(path.startswith(line[:9]) for path in paths_may_be_folded)]
    assert len(tables) > 3
    assert [line for line in tables if len(line) > COLUMNS and not line.startswith("Next:")] == []
    broken = [word for line in tables for word in line.split() if word not in whole and not _NUMBER.fullmatch(word)]
    if name == "bench":  # which policy is best, and how sure that is, is another thing in another run
        cells = {word for line in tables if "  " in line.strip() for word in line.split()}  # and not in sentences
        broken = [
            word
            for word in broken
            if word in cells and not re.match("static|oracle|alert|any|all|too|few|block|point|[(]", word)
        ]
    assert broken == []


def test_help_fits_80_columns():
    top = click.Context(paraedge, info_name="paraedge")
    for name in COMMAND_NAMES:
        context = click.Context(paraedge.get_command(top, name), info_name=name, parent=top, max_content_width=COLUMNS)
        assert [line for line in context.command.get_help(context).splitlines() if len(line) > COLUMNS] == []


def test_a_pipe_gets_whole_lines_and_no_bar(folder, tmp_path, monkeypatch, capfd):
    """Whatever FORCE_COLOR says, which services that keep logs set."""
    monkeypatch.chdir(folder.path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    training = "train --dataset digits --epochs 2 --set num_branches=2 --set branch_depth=1"
    for command in (
        [*training.split(), "--set", "embed_dim=8", "--set", "num_heads=2", "--out", tmp_path / "model"],
        ["compare", "all.paraedge.zip", "--limit", "10", "--rounds", "1"],
        ["bench", "all.paraedge.zip", "--requests", "8", "--limit", "10", "--out", tmp_path / "b.jsonl"],
        ["run", "all.paraedge.zip"],
        ["export", "--target", "linux", "--branches", "1", "--dataset", "cifar10", "--data-dir", tmp_path],
    ):
        main(*command)
        done = capfd.readouterr()
        for text in (done.out, done.err):
            assert not re.search("[\r\x1b━⠋]", text)
            assert not text or text.endswith("\n")
        if command[0] == "train":
            first, *lines = done.err.splitlines()
            assert first.startswith("torch on "), done.err
            assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"], done.err
            assert all(re.search(r"  prefix accuracy \d+\.\d \d+\.\d %$", line) for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--target", "linux", "--branches", "1", "--dataset", "cifar10", "--data-dir", "nowhere"],
        ["evaluate", "fashion-mnist", "--dataset", "cifar10", "--data-dir", "nowhere"],
        ["evaluate", "nobody"],
        ["compare", "all.paraedge.zip", "--threads", "0", "--rounds", "1"],
        ["bench", "all.paraedge.zip", "--threads", "0"],
        ["verify", "all.paraedge.zip", "--threads", "0"],
        ["run", "all.paraedge.zip", "--threads", "0"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_nothing_but_the_error_stays_on_the_terminal(arguments, folder, monkeypatch):
    monkeypatch.chdir(folder.path)
    codes = []
    left = [line for line in on_screen(lambda: codes.append(main(*arguments)), 300) if line]
    assert codes == [2]
    assert len(left) == 1, left
    assert left[0].startswith("Error: ")


def test_a_bar_is_there_while_a_terminal_waits(folder, tmp_path, monkeypatch):
    from support.terminal import written_in_terminal

    monkeypatch.chdir(folder.path)
    bundle = Bundle.open("all.paraedge.zip").subset(1, tmp_path / "one.paraedge").path
    written = written_in_terminal(lambda: main("compare", bundle, "--limit", "50", "--rounds", "1"))
    assert "━" in written
    assert "loading and running" in written


@pytest.mark.parametrize(
    ("indexes", "text"), [((), ""), ((3,), "3"), (range(8), "0-7"), ((0, 1, 2, 5, 7, 8), "0-2,5,7-8"), ((0, 2), "0,2")]
)
def test_runs_of_indexes_are_shown_in_short(indexes, text):
    assert indexes_text(indexes) == text
