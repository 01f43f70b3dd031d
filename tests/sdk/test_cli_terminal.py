"""What bundles, files and their names say is shown to people, never to their terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest
from msgspec.structs import replace
from support.bundles import fake_bundle

from paraedge.cli import main as command_line
from paraedge.cli.main import paraedge
from paraedge_runtime._console import printable
from paraedge_runtime.manifest import LabelsOutput

# A terminal's title, a cleared screen, a hyperlink, text turned around, a line of its own, rich markup.
HOSTILE = "x\x1b]0;PWNED\x07\x1b[2J\x9b2J\u202etoob\u2066\u2028\r\nverified\x7f[/red][blink]\U000e0041"
# Whatever may reach a terminal beside ends of lines.
SAYS_SOMETHING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
MAIN = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]


def hostile_bundle(path):
    """A bundle that says it wherever it may say anything."""
    plain = fake_bundle(path.with_name("plain.paraedge"))
    return fake_bundle(
        path,
        output=LabelsOutput(labels=(HOSTILE, HOSTILE + "2", HOSTILE + "3")),
        description=HOSTILE,
        license=HOSTILE,
        accuracy=replace(plain.card.accuracy, dataset=HOSTILE),
        early_stop=replace(plain.card.early_stop, dataset=HOSTILE),
        parity=replace(plain.card.parity, reference=HOSTILE),
        parts={name: replace(part, operators={HOSTILE: 1}) for name, part in plain.card.parts.items()},
        tool_versions={HOSTILE: HOSTILE},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["run"],
        ["run", "--explain"],
        ["run", "--json"],
        ["compare"],
        ["subset", "--branches", "1", "--out", "{folder}/sub.paraedge"],
    ],
    ids=" ".join,
)
def test_no_text_of_a_bundle_reaches_the_terminal_raw(tmp_path, fake_engine, capsys, arguments):
    bundle = hostile_bundle(tmp_path / "b.paraedge")
    command, *options = (argument.format(folder=tmp_path) for argument in arguments)
    paraedge.main([command, str(bundle.path), *options], standalone_mode=False)
    shown = capsys.readouterr()
    assert SAYS_SOMETHING.findall(shown.out + shown.err) == []
    assert "\nverified" not in shown.out  # no line of its own
    if command != "compare":
        assert "PWNED" in shown.out


@pytest.mark.parametrize("command", ["inspect", "run", "verify", "subset", "pack", "profile", "sign", "apply"])
def test_a_name_in_an_error_is_one_printable_line(tmp_path, capsys, monkeypatch, command):
    path = str(tmp_path / HOSTILE.replace("/", ""))
    more = {"subset": ["--branches", "1", "--out", "x"], "sign": ["--key", path], "apply": [path, "--out", path]}
    monkeypatch.setattr("sys.argv", ["paraedge", command, path, *more.get(command, [])])
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SystemExit):
        command_line.main()
    shown = capsys.readouterr()
    assert SAYS_SOMETHING.findall(shown.out + shown.err) == []
    assert "PWNED" in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_a_traceback_is_printable(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["paraedge", "--debug", "inspect", str(tmp_path / "\x1b[2J")])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert SAYS_SOMETHING.findall(said) == []


def test_a_terminal_gets_its_colours_and_nothing_else(tmp_path):
    """In a real terminal, where rich writes sequences of its own."""
    bundle = hostile_bundle(tmp_path / "b\x1b[2Jx.paraedge")
    ours, theirs = pty.openpty()
    done = subprocess.run([*MAIN, "inspect", str(bundle.path)], stdin=theirs, stdout=theirs, stderr=theirs, check=True)
    assert done.returncode == 0
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        said += piece
        if not piece:
            break
    os.close(ours)
    assert b"\x1b[1m" in said  # bold
    assert b"b\\x1b[2Jx.paraedge" in said
    text = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", said.decode())
    assert SAYS_SOMETHING.findall(text) == []


def test_what_people_write_stays_as_it_is():
    for text in ("naïve Äpfel 猫 🐈‍⬛ कुत्ता", "a [int8] b", "tab and\nlines"):
        assert printable(text, lines=True) == text
    assert printable("a\nb") == "a\\x0ab"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf�"
