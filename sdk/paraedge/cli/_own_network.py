"""``--model my_net.py:make``: a network of the user's own, made by a function in a file. It runs that file."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paraedge_runtime.errors import InputError

if TYPE_CHECKING:
    from paraedge_converters import BranchModel, ModelDescription

__all__ = ["is_own_network", "own_network"]

_NAMED = re.compile(r"(.+\.py):([^\W\d]\w*)")
_NUM_SAMPLES = 256  # as many as a checkpoint keeps


def is_own_network(model: str) -> bool:
    """Whether ``--model`` is a file of Python and a function in it."""
    return _NAMED.fullmatch(model) is not None


def own_network(
    model: str, dataset: str | None, data_dir: Path | None, max_accuracy_drop: float
) -> tuple[BranchModel, ModelDescription]:
    """Run the file and call the function, which returns a model and its description: what ``convert`` takes.

    A model alone is described by the data set: its test images are the samples, its classes the labels. With a data
    set, accuracy and early stop are measured on the exported parts.

    Raises:
        InputError: the file or the function is not there, raises something, or returns something else.
    """
    found = _NAMED.fullmatch(model)
    assert found is not None
    made = _made(Path(found[1]), found[2])
    from paraedge_converters import ModelDescription
    from paraedge_converters.split import check_contract

    network, description = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    check_contract(network)
    if description is not None and not isinstance(description, ModelDescription):
        raise InputError(f"{model} must return (model, ModelDescription), got (model, {type(description).__name__})")
    return network, _described(model, network, description, dataset, data_dir, max_accuracy_drop)


def _made(file: Path, name: str) -> Any:
    """What the function returns. Whatever the code prints goes to standard error, so that ``--json`` stays JSON."""
    if not file.is_file():
        raise InputError(f"{file} does not exist; name a Python file and a function in it, such as my_net.py:make")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent.resolve()))  # as 'python my_net.py' does: files beside it can be imported
    sys.modules[file.stem] = module  # classes defined in it find their module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
            function = getattr(module, name, None)
            if callable(function):
                return function()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        text = " ".join(str(error).split())[:300]
        raise InputError(f"{file}:{line or 1} raised {type(error).__name__}: {text}; fix it there") from error
    functions = [key for key, value in vars(module).items() if callable(value) and not isinstance(value, type)]
    there = ", ".join(key for key in functions if getattr(module, key).__module__ == file.stem) or "none"
    raise InputError(f"{file} has no function {name!r}; its functions are: {there}")


def _described(
    model: str,
    network: BranchModel,
    description: ModelDescription | None,
    dataset: str | None,
    data_dir: Path | None,
    max_accuracy_drop: float,
) -> ModelDescription:
    from paraedge.data.bundles import load_for_labels
    from paraedge.data.datasets import DATASETS, load_dataset, options_for
    from paraedge_converters import EvaluationSet, ModelDescription
    from paraedge_converters.request import fitting_name
    from paraedge_runtime.manifest import ImageInput

    if dataset is None and data_dir is None:
        if description is None:
            raise InputError(
                f"{model} returned only a model; return (model, ModelDescription(…)), or name its data set with "
                "--dataset and --data-dir"
            )
        return description
    if dataset is None:
        raise InputError(f"--data-dir needs --dataset, one of {', '.join(DATASETS)}")
    spec = network.input_spec
    if not isinstance(spec, ImageInput) and spec.rate_hz is None:
        raise InputError(
            f"{model} reads {spec.name}, neither an image nor a signal with rate_hz; leave out --dataset and --data-dir"
        )
    if description is None:
        data = load_dataset(dataset, data_dir, options_for(spec, None))
        samples = data.test.balanced_sample(_NUM_SAMPLES, seed=0)
        description = ModelDescription(
            name=fitting_name(model.rpartition(":")[0].rpartition("/")[2].removesuffix(".py")),
            description=f"{model.rpartition('/')[2]} for {data.name}",
            license=f"not stated; {data.kind}: {data.license}",
            samples=samples.inputs,
            labels=data.class_names,
            sample_labels=samples.labels,
        )
    elif description.labels is None:
        raise InputError(f"the output of {model} is a vector; leave out --dataset and --data-dir")
    else:
        data = load_for_labels(dataset, data_dir, spec=spec, labels=tuple(description.labels), owner="the model")
    test_set = EvaluationSet(
        samples=data.test.inputs,
        labels=data.test.labels,
        dataset=f"{data.name} test split",
        max_accuracy_drop=max_accuracy_drop,
    )
    return replace(description, test_set=test_set)
