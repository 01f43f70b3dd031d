"""Reads what a fused model's file says about it, as other tools do: ``onnx``, ``zipfile``, ExecuTorch."""

import ast
import json
import zipfile
from pathlib import Path


def read_metadata(path: Path) -> dict[str, object]:
    """The metadata of ``.onnx``, ``.tflite`` or ``.pte``, values as they were."""
    if path.suffix == ".onnx":
        import onnx

        texts = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
        parsed = ("batch", "mean", "std", "stride", "imgsz", "channels", "names", "shape", "axes")
        return {key: ast.literal_eval(text) if key in parsed else text for key, text in texts.items()}
    if path.suffix == ".tflite":
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("metadata.json"))
    else:
        from executorch.exir._serialize._program import deserialize_pte_binary

        named = deserialize_pte_binary(path.read_bytes()).named_data
        found = json.loads(bytes(named.buffers[named.pte_data["metadata.json"].buffer_index]))
    if "names" in found:
        found["names"] = {int(index): name for index, name in found["names"].items()}
    return found
