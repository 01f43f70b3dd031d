"""The version of paraedge that is installed; both packages come in one distribution."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("paraedge")
