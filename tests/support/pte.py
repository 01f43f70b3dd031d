"""ExecuTorch programs taken apart and put together again, as JSON and segments, by the wheel's own flatc."""

import importlib.util
import json
import re
import struct
import subprocess
from pathlib import Path

_FOLDER = next(
    Path(place)
    for place in importlib.util.find_spec("executorch").submodule_search_locations
    if Path(place, "data/bin/flatc").is_file()
)
_GRAPH = _FOLDER / "backends/xnnpack/serialization/schema.fbs"
_PROGRAM = _FOLDER / "schema/program.fbs"
_HEADER_BYTES = 32


def _flatc(folder, *arguments):
    subprocess.run([_FOLDER / "data/bin/flatc", "-o", folder, *arguments], check=True)


def _as_json(folder, schema, binary):
    (folder / "x.bin").write_bytes(binary)
    _flatc(folder, "--json", "--strict-json", "--raw-binary", schema, "--", folder / "x.bin")
    text = (folder / "x.json").read_text()
    return json.loads(re.sub(r"(?<=[:\s])-?(inf|nan)\b", "1e30", text))  # nobody runs it


def _as_binary(folder, schema, value):
    (folder / "y.json").write_text(json.dumps(value))
    _flatc(folder, "--binary", schema, folder / "y.json")
    return next(file for file in folder.glob("y.*") if file.suffix != ".json").read_bytes()


class Program:
    """Change ``program``, ``graph`` and ``segments``, then ask for ``bytes``.

    Attributes:
        program: the flatbuffer's content.
        segments: what follows it.
        graph: what the first delegate gets.
    """

    def __init__(self, folder, pte):
        self._folder = folder
        size, base = struct.unpack_from("<QQ", pte, 16)
        self.program = _as_json(folder, _PROGRAM, pte[:size])
        self.segments = [
            pte[base + entry.get("offset", 0) :][: entry.get("size", 0)] for entry in self.program["segments"]
        ]
        processed = self.program["execution_plan"][0]["delegates"][0]["processed"]
        self._at = processed.get("index", 0)
        blob = self.segments[self._at]
        offset, length = struct.unpack_from("<II", blob, 10)
        self.graph = _as_json(folder, _GRAPH, blob[offset : offset + length])

    @property
    def plan(self):
        """The only method."""
        return self.program["execution_plan"][0]

    def bytes(self):
        """The whole file."""
        graph = _as_binary(self._folder, _GRAPH, self.graph)
        header = bytes(4) + b"XH00" + struct.pack("<HIIIQ", 30, 32, len(graph), 32 + len(graph), 0) + bytes(2)
        self.segments[self._at] = header + graph
        at = 0
        for entry, segment in zip(self.program["segments"], self.segments, strict=True):
            entry["offset"], entry["size"] = at, len(segment)
            at += len(segment) + -len(segment) % 16
        made = _as_binary(self._folder, _PROGRAM, self.program)
        root = struct.unpack_from("<I", made)[0] + _HEADER_BYTES
        size = len(made) + _HEADER_BYTES
        base = size + -size % 16
        head = struct.pack("<I4s4sIQQQ", root, b"ET12", b"eh00", 32, size, base, at)
        body = head[:8] + head[8:].ljust(_HEADER_BYTES, b"\0") + made[8:]
        return body.ljust(base, b"\0") + b"".join(part + bytes(-len(part) % 16) for part in self.segments)
