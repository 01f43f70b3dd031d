"""The error tree: what the docstring draws is what the classes are."""

import inspect
import re

import pytest

import paraedge_runtime
from paraedge_runtime import errors

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def _drawn_tree(text: str) -> dict[str, str | None]:
    """Class -> parent, as the box characters of the docstring say."""
    parents: dict[str, str | None] = {}
    open_branches: list[str] = []  # the class drawn last at each depth
    for line in text.splitlines():
        drawn = re.fullmatch(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)(?: {2,}\S.*)?", line)
        if drawn is None:
            continue
        depth = len(drawn[1]) // 4
        del open_branches[depth:]
        parents[drawn[2]] = open_branches[-1] if open_branches else None
        open_branches.append(drawn[2])
    return parents


def test_docstring_draws_the_real_tree():
    real = {name: kind.__base__.__name__ for name, kind in CLASSES.items()}
    real["ParaEdgeError"] = None
    assert _drawn_tree(errors.__doc__) == real


def test_root_is_an_exception_and_nothing_narrower():
    assert errors.ParaEdgeError.__bases__ == (Exception,)


def test_all_lists_every_class_and_the_package_exports_them():
    assert errors.__all__ == sorted(CLASSES)
    assert set(errors.__all__) <= set(paraedge_runtime.__all__)
    assert all(getattr(paraedge_runtime, name) is kind for name, kind in CLASSES.items())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_says_what_it_is_for_and_keeps_its_message(name):
    kind = CLASSES[name]
    assert kind.__doc__
    assert len(kind.__bases__) == 1
    assert str(kind("what went wrong")) == "what went wrong"
