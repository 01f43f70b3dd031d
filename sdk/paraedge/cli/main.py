"""The ``paraedge`` command: a table of commands, imported one by one when they are used.

Exit codes: 0 done, 1 it was tried and failed, 2 the caller must change something.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from paraedge.cli.output import echo
from paraedge_runtime._console import open_missing_streams, printable, replace_unprintable, silence_decoders
from paraedge_runtime.errors import (
    BundleError,
    EngineUnavailable,
    InputError,
    ParaEdgeError,
    PlanError,
    ProfileError,
    UnsupportedModel,
)

__all__ = ["main", "paraedge"]

# Name -> one line of help. The command NAME is the function NAME in paraedge/cli/NAME.py;
# the line is repeated here so that --help imports none of them.
COMMANDS = {
    "models": "List the packaged models.",
    "train": "Train a model on a data set or on your own files.",
    "extend": "Add branches to a trained model.",
    "evaluate": "Measure the accuracy of every prefix of branches.",
    "export": "Export a model to a bundle for a device.",
    "subset": "Create a smaller bundle with some of the branches.",
    "inspect": "Show what a bundle contains.",
    "verify": "Check a bundle's files and its predictions on this device.",
    "compare": "Compare bundles by size, accuracy and latency.",
    "pack": "Pack a bundle into a single zip file.",
    "update": "Create an update (delta) between two bundles.",
    "apply": "Apply an update to a bundle.",
    "keygen": "Create a key pair for signing bundles.",
    "sign": "Sign a bundle.",
    "push": "Upload a model or a bundle to a hub.",
    "pull": "Download a model or a bundle from a hub.",
    "targets": "List the kinds of device to export to.",
    "profile": "Measure how fast a device runs bundles.",
    "plan": "Choose branches, engine and threads for a budget.",
    "bench": "Benchmark how well deadlines are kept.",
    "doctor": "Check the installation.",
    "run": "Run a bundle on images, sound or other tensors.",
    "web": "Create a web page that runs bundles in a browser.",
}

# How --help groups them: each section goes on to the command that begins the next one.
_SECTIONS = {"models": "Model", "export": "Bundle", "targets": "Device", "run": "Run"}

ALIASES = {"benchmark": "bench"}

_MISTAKES = (BundleError, EngineUnavailable, InputError, PlanError, ProfileError, UnsupportedModel)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"paraedge.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in (*COMMANDS, *ALIASES):
            from paraedge_runtime._arguments import unknown_text

            raise click.UsageError(unknown_text("command", args[0], (*COMMANDS, *ALIASES)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        title = ""
        for name, line in COMMANDS.items():
            title = _SECTIONS.get(name, title)
            sections.setdefault(title, []).append((f"{name:<{max(map(len, COMMANDS))}}", line))
        for title, rows in sections.items():
            with formatter.section(f"{title} commands"):
                formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paraedge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def paraedge(ctx: click.Context, debug: bool) -> None:
    """Run parallel-branch Transformers on phones, Raspberry Pis and other small machines.

    \b
    Example:
      paraedge export --target android --branches 2
      paraedge run fashion-mnist-android-2.paraedge shirt.png
    """
    ctx.obj = debug


def _fail(message: str, code: int) -> NoReturn:
    echo(f"Error: {printable(message)}", err=True)
    sys.exit(code)


def _fail_at_length() -> NoReturn:
    """With ``--debug``: where it failed."""
    echo(traceback.format_exc(), err=True)
    sys.exit(1)


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or str(error)).split(".")[0]
    extra = {"rich": "cli", "PIL": "cli", "huggingface_hub": "hub"}.get(package, "export")
    return f"this command needs {package}, which is not installed; pip install 'paraedge[{extra}]'"


def main() -> NoReturn:
    """Entry point: run the command, print one line for an error, and exit with its code."""
    open_missing_streams()
    replace_unprintable()
    silence_decoders()
    debug = "--debug" in sys.argv[1:2]
    try:
        sys.exit(paraedge.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except ParaEdgeError as error:
        if debug:
            _fail_at_length()
        _fail(str(error), 2 if isinstance(error, _MISTAKES) else 1)
    except ModuleNotFoundError as error:
        if debug:
            _fail_at_length()
        _fail(_missing(error), 2)
    except OSError as error:
        if debug:
            _fail_at_length()
        if error.filename is None:
            _fail(
                f"a file or the output cannot be written: {error.strerror} (paraedge --debug … shows the traceback)", 1
            )
        _fail(f"{error.filename}: {error.strerror}; name another path", 2)
    except Exception as error:
        if debug:
            _fail_at_length()
        _fail(f"{type(error).__name__}: {error} (paraedge --debug … shows the traceback)", 1)
