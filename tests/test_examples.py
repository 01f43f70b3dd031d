"""What the examples in C, C++ and Java show of a label, which comes from outside."""

import shutil
import subprocess

import pytest
from support.wheels import ROOT

OUTSIDE = ROOT / "runtime" / "native" / "examples" / "outside"
PROGRAM = """
#include "label_text.h"
int main(int count, char** arguments) {
  char text[100];
  puts(count == 2 ? label_text(arguments[1], text, sizeof text) : "");
}
"""
# Label -> what the terminal gets.
LABELS = {
    "T-shirt/top": "T-shirt/top",
    "bü 日本 😀 m²": "bü 日本 😀 m²",
    "\x1b[2Jx\r\n\t\x7f": r"\x1b[2Jx\x0d\x0a\x09\x7f",
    "\x9b2J\x80": r"\xc2\x9b2J\xc2\x80",
    "\u202etoob\u2066\u2028\u061c": r"\xe2\x80\xaetoob\xe2\x81\xa6\xe2\x80\xa8\xd8\x9c",
    "\ufeff\U000e0041": r"\xef\xbb\xbf\xf3\xa0\x81\x81",
    "a" * 200: "a" * 96,
    "\x1b" * 200: r"\x1b" * 24,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is here")
    folder = tmp_path_factory.mktemp("program")
    (folder / "show.c").write_text(PROGRAM)
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{OUTSIDE}", "show.c", "-o", "show"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "show"


@pytest.mark.parametrize(("label", "shown"), LABELS.items(), ids=ascii)
def test_an_example_in_c_shows_a_label_without_what_a_terminal_obeys(program, label, shown):
    assert subprocess.run([program, label], capture_output=True, check=True).stdout.decode() == f"{shown}\n"


def test_every_example_does():
    for example in (*OUTSIDE.glob("in_*"), OUTSIDE.parent / "classify.cpp"):
        assert "label_text(" in example.read_text()
