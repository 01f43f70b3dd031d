"""Engines that end the processes which children of this one are: as a damaged program does, whenever it is loaded."""

_SITE = """
import os, signal, time
from paraedge_runtime.engines import ENGINES, EngineInfo

class Engine:
    name, distribution = {engine!r}, {distribution!r}
    version, description, parallel, native = "99.0", "deadly", True, None

    def load(self, name, program, entry):
        {deed}

ENGINES[{engine!r}] = EngineInfo("sitecustomize:Engine", {suffix!r}, ({distribution!r},), "fake")
"""


def in_children(folder, monkeypatch, deed, engine="fake", suffix=".fake", distribution="fake"):
    """From now on, Python processes that are started load parts of ``engine`` by the statement ``deed``."""
    folder.mkdir()
    source = _SITE.format(engine=engine, suffix=suffix, distribution=distribution, deed=deed)
    (folder / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
