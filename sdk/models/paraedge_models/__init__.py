"""The models that ship with paraedge: a checkpoint folder each, found by name with ``paraedge.packaged``."""

__all__: list[str] = []
