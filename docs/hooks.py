"""mkdocs hook: the examples in --help become code blocks on the page of the command line."""

import inspect
import textwrap

import click

from paraedge.cli.main import paraedge


def _markdown(help_text: str) -> str:
    """``help_text`` with its literal block (click's backspace mark) as a fenced block."""
    text, mark, example = inspect.cleandoc(help_text).partition("\b\n")
    if not mark:
        return text
    title, _, commands = example.partition("\n")
    return f"{text}\n**{title}**\n\n```text\n{textwrap.dedent(commands).strip()}\n```"


def on_startup(**_: object) -> None:
    """Rewrite the help of every command that mkdocs-click is about to show."""
    context = click.Context(paraedge)
    for command in (paraedge, *(paraedge.get_command(context, name) for name in paraedge.list_commands(context))):
        assert command is not None
        command.help = _markdown(command.help or "")
