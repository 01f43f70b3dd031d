"""Names are shown as they are: nothing that shows text to people reads rich's markup in it, or says it to the terminal.

rich reads ``[red]`` in a plain string as a colour, drops ``[final]`` from a file's name, and fails at ``[/b]``. The
console of the commands reads none (paraedge/cli/output.py); this refuses, in every source file, what would. Control
characters and marks of direction go through ``printable`` (paraedge_runtime/_console.py); what goes around is refused.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("sdk", "converters", "runtime", "demos", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
# Calls of rich that read markup unless they are told not to, and what tells them.
TOLD_BY = {
    "Console": ("markup", "emoji"),
    "PrintableConsole": ("markup", "emoji"),
    "_PrintableConsole": ("markup", "emoji"),
    "TextColumn": ("markup",),
}
# Calls of rich that always read markup in a str: the argument that must be a Text (its name, or its place).
NEEDS_TEXT = {
    "Panel": ("title", "subtitle"),
    "status": (0,),
    "Status": (0,),
    "Spinner": (1, "text"),
    "Tree": (0,),
    "Rule": (0, "title"),
    "rule": (0, "title"),
}
FORBIDDEN = ("from_markup", "render_markup")
# What reaches a terminal without a console.
TERMINAL = (
    "click.echo",
    "click.secho",
    "click.prompt",
    "click.confirm",
    "print",
    "sys.stdout.write",
    "sys.stderr.write",
)
# What programs for people are made of. Not the first run's child, whose parent reads it, nor the quickstart, which
# shows the packaged model.
SHOWING = [
    path
    for path in SOURCES
    if path.is_relative_to(ROOT / "sdk") or path.is_relative_to(ROOT / "runtime") or path.is_relative_to(ROOT / "demos")
    if path.name not in ("trial.py", "quickstart.py")
]


def problems(source):
    """Calls in Python source that read markup, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
            names = {alias.name for alias in node.names} & {"print", "print_json", "track", "inspect", "prompt"}
            found += [f"{node.lineno}: rich.{name}" for name in names]
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        for option in TOLD_BY.get(name, ()):
            if not isinstance(value := given.get(option), ast.Constant) or value.value is not False:
                found.append(f"{node.lineno}: {name} without {option}=False")
        for place in NEEDS_TEXT.get(name, ()):
            value = given.get(place) if isinstance(place, str) else dict(enumerate(node.args)).get(place)
            if value is not None and not _is_text(value):
                found.append(f"{node.lineno}: {name} with a str that is read as markup")
        if name == "Progress" and not node.args:
            found.append(f"{node.lineno}: Progress with columns of its own, which read markup")
        if name in FORBIDDEN:
            found.append(f"{node.lineno}: {name}")
        value = given.get("markup")
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            found.append(f"{node.lineno}: markup={ast.unparse(value)}")
    return found


def _is_text(value):
    """A call of Text, or a name: where it comes from is its maker's business."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in ("Text", "assemble")
    return isinstance(value, ast.Name) and value.id.endswith(("title", "text"))


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_no_source_file_reads_markup(path):
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("console = Console()", "Console without markup=False"),
        ("console = Console(markup=False)", "Console without emoji=False"),
        ("console = rich.console.Console(markup=True, emoji=False)", "markup=True"),
        ("console.print(name, markup=True)", "markup=True"),
        ("console.print(name, markup=flag)", "markup=flag"),
        ("TextColumn('{task.description}')", "TextColumn without markup=False"),
        ("Progress()", "Progress with columns of its own"),
        ("Panel(body, title=f'{name}')", "Panel with a str"),
        ("Panel(body, title=labels[0])", "Panel with a str"),
        ("console.status(f'loading {name}')", "status with a str"),
        ("Text.from_markup(name)", "from_markup"),
        ("from rich import print", "rich.print"),
    ],
)
def test_what_reads_markup_is_found(source, problem):
    assert any(problem in found for found in problems(source))


def test_what_reads_none_is_not_refused():
    allowed = "Console(markup=False, emoji=False); console.print(name, style='red'); Panel(body, title=Text(name))"
    assert problems(allowed) == []


def unguarded(source):
    """Calls that show text which may be from outside, without ``printable``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.split(".")[-1] == "Console":
            found.append(f"{node.lineno}: {name}, which is not the printable one")
        if name in TERMINAL and not all(_is_guarded(value) for value in node.args):
            found.append(f"{node.lineno}: {name} of what is not printable")
    return found


def _is_guarded(value):
    if isinstance(value, ast.JoinedStr):
        return all(_is_guarded(part) for part in value.values)
    if isinstance(value, ast.FormattedValue):
        return _is_guarded(value.value)
    if isinstance(value, ast.Call):  # JSON in ASCII
        ascii_json = ast.unparse(value.func) == "json.dumps" and "ensure_ascii" not in {k.arg for k in value.keywords}
        return ast.unparse(value.func) == "printable" or ascii_json
    return isinstance(value, ast.Constant)


@pytest.mark.parametrize("path", SHOWING, ids=[str(path.relative_to(ROOT)) for path in SHOWING])
def test_what_is_shown_is_printable(path):
    assert unguarded(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "click.echo(message)",
        "click.echo(f'Error: {message}', err=True)",
        "click.echo(json.dumps(document, ensure_ascii=False))",
        "print(name)",
        "sys.stderr.write(str(error))",
        "click.prompt(f'Password for {path}')",
        "Console(markup=False, emoji=False)",
        "rich.console.Console(markup=False, emoji=False)",
    ],
)
def test_what_is_shown_as_it_is_is_found(source):
    assert len(unguarded(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "click.echo('ready')",
        "click.echo(printable(text), err=True)",
        "click.echo(f'Error: {printable(message)}')",
        "click.echo(json.dumps(document))",
        "PrintableConsole(markup=False, emoji=False).print(name)",
    ],
)
def test_what_is_printable_is_not_refused(source):
    assert unguarded(source) == []
