"""The ``paraedge`` command: a table of commands, imported one by one when they are used.

Exit codes: 0 done, 1 it was tried and failed, 2 the caller must change something.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from paraedge_runtime._console import open_missing_streams, replace_unprintable
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
    "train": "Train a ParaFormer by progressive approximation.",
    "extend": "Add branches to a trained model; the old ones stay as they are.",
    "evaluate": "Accuracy of every prefix of branches, on a test set.",
    "export": "Make a bundle for a device from some branches of a model.",
    "subset": "Make a smaller bundle from a bundle, without torch.",
    "inspect": "Show what a bundle holds.",
    "verify": "Check a bundle's files, then its predictions on this device.",
    "run": "Run a bundle on images, or on tensors in .npy files.",
    "compare": "Compare bundles: size, accuracy of every prefix, latency here.",
    "profile": "Measure a device: parts, requests, contention, cold start.",
    "plan": "Choose branches, engine and threads for a budget.",
    "pack": "Make one file of a bundle.",
    "update": "Make a file of what changed from one bundle to another.",
    "apply": "Make the other bundle from the old one and that file.",
    "keygen": "Make a pair of keys that sign bundles and check them.",
    "sign": "Sign a bundle: devices that trust the key open it.",
    "bench": "Measure how policies keep deadlines, against oracles.",
    "web": "Make a folder with a page that runs bundles in a browser.",
    "targets": "List what can be exported to.",
    "models": "List the models that ship with paraedge.",
    "doctor": "Show what is installed and what works here.",
}

_MISTAKES = (BundleError, EngineUnavailable, InputError, PlanError, ProfileError, UnsupportedModel)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"paraedge.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"no command {args[0]!r}; choose one of {', '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paraedge")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def paraedge(ctx: click.Context, debug: bool) -> None:
    """Put parallel-branch Transformers on phones, Raspberry Pis and other small machines.

    \b
    Example:
      paraedge export --target android --branches 2
      paraedge run fashion-mnist-android-2.paraedge shirt.png
    """
    ctx.obj = debug


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or str(error)).split(".")[0]
    extra = "cli" if package in ("rich", "PIL") else "export"
    return f"this command needs {package}, which is not installed here; pip install 'paraedge[{extra}]'"


def main() -> NoReturn:
    """Entry point: run the command, print one line for an error, and exit with its code."""
    open_missing_streams()
    replace_unprintable()
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
            raise
        _fail(str(error), 2 if isinstance(error, _MISTAKES) else 1)
    except ModuleNotFoundError as error:
        if debug:
            raise
        _fail(_missing(error), 2)
    except OSError as error:
        if debug:
            raise
        if error.filename is None:
            _fail(f"a file or the output cannot be written: {error.strerror} (paraedge --debug … shows where)", 1)
        from paraedge_runtime.inputs import display_name

        _fail(f"{display_name(str(error.filename))}: {error.strerror}; name another path", 2)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (paraedge --debug … shows where)", 1)
