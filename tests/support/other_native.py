"""Another build of the native core, such as one with a sanitizer, in place of the installed one.

PARAEDGE_TEST_NATIVE=build/native-thread/_native….so python -m pytest -p support.other_native …
"""

import importlib
import importlib.util
import os
import sys

NAME = "paraedge_runtime._native"


def load(path: str) -> None:
    spec = importlib.util.spec_from_file_location(NAME, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    sys.modules["paraedge_runtime"]._native = module


def pytest_report_header() -> str:
    return f"native core: {sys.modules[NAME].__file__}"


if path := os.environ.get("PARAEDGE_TEST_NATIVE"):
    importlib.import_module("paraedge_runtime")
    load(path)
