"""What a fused model's own file says about it: labels and pre-processing, for tools that know no bundle.

The keys are those of Ultralytics' exports (``names``, ``imgsz``, ``task``, ``stride``, ``batch``, ``channels``, …), and
``mean``, ``std``, ``resize`` or ``axes`` for what those leave out: the model reads ``(x / 255 - mean) / std`` of an
image, ``(x - mean) / std`` of a tensor. Where they lie:

- ``.onnx``: ``metadata_props``, every value as Python writes it;
- ``.tflite``: ``metadata.json`` in a zip behind the program, which ``zipfile`` opens and LiteRT passes over;
- ``.pte``: ``metadata.json`` in the program's named data.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping

from paraedge_converters.description import ModelDescription
from paraedge_runtime import __version__
from paraedge_runtime.manifest import ImageInput, LabelsOutput, TensorInput, VectorOutput

__all__ = ["file_metadata", "with_metadata"]

_NAME = "metadata.json"


def file_metadata(
    spec: ImageInput | TensorInput, output: LabelsOutput | VectorOutput, description: ModelDescription
) -> dict[str, object]:
    """Key -> value. There is no date: the same model gives the same file."""
    found: dict[str, object] = {
        "description": description.description,
        "author": "paraedge",
        "version": __version__,
        "license": description.license,
        "task": "classify" if isinstance(output, LabelsOutput) else output.name,
        "batch": 1,
        "mean": list(spec.mean),
        "std": list(spec.std),
    }
    if isinstance(spec, ImageInput):
        found |= {"stride": 1, "imgsz": list(spec.shape[2:]), "channels": spec.shape[1], "resize": spec.resize}
    else:
        found |= {"shape": list(spec.shape), "axes": list(spec.axes), "normalized_axis": spec.normalized_axis}
    if isinstance(output, LabelsOutput):
        found["names"] = dict(enumerate(output.labels))
    return found


def with_metadata(suffix: str, program: bytes, metadata: Mapping[str, object]) -> bytes:
    """A program of the kind ``.onnx``, ``.tflite`` or ``.pte`` that holds ``metadata`` and computes the same."""
    return _WRITERS[suffix](program, metadata)


def _with_onnx_props(program: bytes, metadata: Mapping[str, object]) -> bytes:
    import onnx

    model = onnx.load_from_string(program)
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    return bytes(model.SerializeToString(deterministic=True))


def _with_zip(program: bytes, metadata: Mapping[str, object]) -> bytes:
    whole = io.BytesIO(program)
    with zipfile.ZipFile(whole, "a") as archive:  # offsets count from the first byte of the program
        archive.writestr(zipfile.ZipInfo(_NAME), _json(metadata))  # 1980: the same bytes every time
    return whole.getvalue()


def _with_named_data(program: bytes, metadata: Mapping[str, object]) -> bytes:
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    file = deserialize_pte_binary(program)
    store = NamedDataStore()
    if file.named_data is not None:
        store.merge_named_data_store(file.named_data)
    store.add_named_data(_NAME, _json(metadata))
    file.named_data = store.get_named_data_store_output()
    return bytes(serialize_pte_binary(file, extract_delegate_segments=True))


def _json(metadata: Mapping[str, object]) -> bytes:
    return json.dumps(metadata, ensure_ascii=False).encode()


_WRITERS: dict[str, Callable[[bytes, Mapping[str, object]], bytes]] = {
    ".onnx": _with_onnx_props,
    ".tflite": _with_zip,
    ".pte": _with_named_data,
}
