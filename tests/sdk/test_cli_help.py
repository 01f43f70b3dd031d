"""What people read of the command line: help within 80 columns, choices as the registries have them, near names."""

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from paraedge.cli import options
from paraedge.cli.main import ALIASES, COMMANDS, paraedge
from paraedge.data import DATASETS
from paraedge.model.stages import STAGES
from paraedge_converters import RECIPES, TARGETS
from paraedge_converters.recipes import recipe_for
from paraedge_runtime.engines import ENGINES


def command(name):
    return paraedge.get_command(click.Context(paraedge), name)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns(name):
    text = CliRunner().invoke(paraedge, [*([name] if name else []), "--help"], terminal_width=80).output
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "docs/" not in text, "an installed package has no such folder"


def test_choices_are_those_of_the_registries():
    assert options.ENGINE.choices == tuple(name for name in ENGINES if name != "fake")
    assert options.TARGET.choices == tuple(sorted(TARGETS))
    assert options.DATASET.choices == tuple(DATASETS)
    assert options.RECIPE.choices[:6] == tuple(RECIPES)
    for name in options.RECIPE.choices[:-2]:
        recipe_for(name, "litert")
    (backbone,) = (option for option in command("train").params if option.name == "backbone")
    assert backbone.type.choices == tuple(STAGES)


def test_every_option_that_takes_one_of_some_names_is_a_choice():
    wanted = {"engine", "engines", "target", "dataset", "quantize", "backbone", "parallel"}
    for name in COMMANDS:
        for option in command(name).params:
            if option.name in wanted and isinstance(option, click.Option):
                assert isinstance(option.type, click.Choice), f"{name} --{option.name}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "unknown command 'evalute'; did you mean 'evaluate'? choose one of models, train"),
        (["export", "--target", "rasberry-pi"], "unknown target 'rasberry-pi'; did you mean 'raspberry-pi'? choose"),
        (["export", "--quantize", "int8-dinamic"], "did you mean 'int8-dynamic'?"),
        (["run", "--engine", "onnx-runtime"], "did you mean 'onnxruntime'?"),
        (["evaluate", "--dataset", "cifar-10"], "did you mean 'cifar10'?"),
        (["evaluate", "--data-dr", "x"], "Did you mean one of: '--data-dir'"),
        (["compare", "a", "b", "--fail-on", "p95:10"], "'p95:10' is not a limit; give accuracy:POINTS or p95:PERCENT%"),
        (["compare", "a", "b", "--fail-on", "recall:1"], "'recall:1' is not a limit"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(arguments, message):
    done = CliRunner().invoke(paraedge, arguments)
    assert done.exit_code == 2
    assert message.lower() in " ".join(done.output.split()).lower()


def test_the_field_s_name_for_bench_is_an_alias():
    assert {ALIASES[name] for name in ALIASES} <= set(COMMANDS)
    assert "Benchmark how well" in CliRunner().invoke(paraedge, ["benchmark", "--help"]).output


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        ([], "ev", ["evaluate"]),
        (["export"], "--qu", ["--quantize"]),
        (["export", "--target"], "rasp", ["raspberry-pi"]),
        (["run", "--engine"], "l", ["litert"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, incomplete, found):
    completion = ShellComplete(paraedge, {}, "paraedge", "_PARAEDGE_COMPLETE")
    assert [item.value for item in completion.get_completions(words, incomplete)] == found
