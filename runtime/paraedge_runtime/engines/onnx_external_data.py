"""Does an ONNX program read weights from other files, or from addresses in memory? Needs no onnx package.

ONNX Runtime would read what such a tensor names relative to the working directory: bytes that no manifest has a hash
of. ``native/engines/onnx_external_data.cpp`` walks the same messages.
"""

from __future__ import annotations

from paraedge_runtime.errors import IntegrityError

__all__ = ["MESSAGES", "refuse_external_data"]

# Message of onnx.proto -> field -> message in it, for all that lead to a TensorProto.
MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # ways to write a field


def refuse_external_data(file: str, program: bytes) -> None:
    """Look at every tensor of a program: of the graph, of attributes, of subgraphs and functions.

    Raises:
        IntegrityError: one is not in the program itself.
        ValueError: the bytes are no protobuf message, so nobody can say.
    """
    pending = [("ModelProto", 0, len(program))]  # no recursion: depth is the sender's choice
    while pending:
        message, at, end = pending.pop()
        while at < end:
            tag, at = _varint(program, at, end)
            field, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7
            value, num_bytes = 0, 0
            if wire in (_VARINT, _BYTES):
                value, at = _varint(program, at, end)
                num_bytes = value if wire == _BYTES else 0
            elif wire in (_FIXED64, _FIXED32):
                num_bytes = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError("it is not an ONNX program")
            if num_bytes > end - at:
                raise ValueError("it is not an ONNX program")
            if message == "TensorProto" and field in (_EXTERNAL_DATA, _DATA_LOCATION) and (wire != _VARINT or value):
                raise IntegrityError(f"{file} reads weights from another file; export the bundle again")
            if wire == _BYTES and (inner := MESSAGES[message].get(field)) is not None:
                pending.append((inner, at, at + num_bytes))
            at += num_bytes


def _varint(program: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = program[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("it is not an ONNX program")
