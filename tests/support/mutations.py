"""Changes of files, small and nasty, from a seed: of bytes, and of JSON documents as an attacker would write them."""

import copy
import json
from random import Random
from typing import Any

_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**31 - 1, 2**32, 2**53 + 1, 2**63, 2**64,
    10**100, "", "x", "\0", "\x1b[2J\x1b]0;title\x07", "../../etc/passwd", "/etc/passwd", "a" * 201, "a" * 4097,
    "\u202e", "é" * 100, "😀", "stem.fake", "manifest.json", "MANIFEST.JSON", "golden", "stem.fake/x", "C:evil", "con",
    ".", "..", "a//b", "a/", "[/red]", [], {}, [[]], [None], {"": 0}, [1] * 7, [1, 1, 28, 28], [2**20] * 6, ["x"] * 3,
    "0" * 64, "f" * 64, "manifest.sha256", "executorch", "float16", "1.5", "paraedge-bundle/3", 0.5, 1.0000001,
]  # fmt: skip
# Texts that no encoder writes.
_TEXTS = [
    "NaN", "Infinity", "-Infinity", "1e400", "000", "1" + "0" * 5000, '"\\ud800"', '"\\udfff\\ud800"', "0x1", "'x'",
    "[" * 2000 + "]" * 2000, '{"a":' * 500 + "1" + "}" * 500, ".5", "1.", "-", "", '"', "1e", "tru", '"\t"', '"\x7f"',
    "1e-400", "28.0", "1e0", "-0",
]  # fmt: skip
_NAMES = ["other", ".hidden", "golden/x", "a/b/c/d", "Stem.fake", "manifest.json~", "x" * 200, "a b", "ä", "x\ny"]
_LETTERS = [0, 9, 10, 27, 32, 46, 47, 65, 92, 127, 128, 233, 0x202E]


def changed_bytes(numbers: Random, data: bytes) -> bytes:
    """One change: of a bit or byte, or a piece that is cut off, added, removed, inserted, cleared."""
    raw, place = bytearray(data), numbers.randrange(len(data) + 1)
    match numbers.randrange(8):
        case 0 if place < len(raw):
            raw[place] ^= 1 << numbers.randrange(8)
        case 1 if place < len(raw):
            raw[place] = numbers.choice([0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)])
        case 2:
            del raw[place:]
        case 3:
            raw += numbers.randbytes(numbers.randint(1, 64))
        case 4:
            del raw[place : place + numbers.randint(1, 64)]
        case 5:
            raw[place:place] = numbers.randbytes(numbers.randint(1, 64))
        case 6:
            start = numbers.randrange(len(raw) + 1)
            raw[place:place] = raw[start : start + numbers.randint(1, 64)]
        case _:
            size = min(numbers.randint(1, 5000), len(raw) - place)
            raw[place : place + size] = bytes(size)
    return bytes(raw)


def changed_json(numbers: Random, data: bytes) -> bytes:
    """One to three changes of the document; ``data`` must be JSON, an object or array.

    Raises:
        ValueError, RecursionError: it is not.
    """
    document = json.loads(data)
    if not isinstance(document, dict | list):
        raise ValueError("no object, no array")
    text = None
    for _ in range(numbers.choice([1, 1, 1, 1, 2, 3])):
        parents = [node for node in _nodes(document) if isinstance(node, dict | list) and node]
        if not parents:
            break
        parent = numbers.choice(parents)
        key = numbers.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        if numbers.random() < 0.15:
            text, parent[key] = numbers.choice(_TEXTS), "@text@"
            break
        _change(numbers, document, parent, key)
    raw = json.dumps(document, ensure_ascii=numbers.random() < 0.5)
    if text is not None:
        raw = raw.replace('"@text@"', text)
    if numbers.random() < 0.08:  # a key twice
        place = numbers.choice([at for at, letter in enumerate(raw) if letter in "{["]) + 1
        raw = raw[:place] + '"file":"x",' + raw[place:]
    return raw.encode("utf-8", "surrogatepass")


def _nodes(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [node, *(below for value in inner for below in _nodes(value))]


def _change(numbers: Random, document: Any, parent: Any, key: Any) -> None:
    value = parent[key]
    match numbers.randrange(7):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent["unknown"] = 1
        case 1:
            parent.append(copy.deepcopy(value))
        case 2:
            parent[key] = copy.deepcopy(numbers.choice(_nodes(document)))
        case 3 if isinstance(value, int | float) and not isinstance(value, bool):
            parent[key] = value + numbers.choice([-1, 1, 0.5, 1e-9, 1 << 20])
        case 4 if isinstance(value, str) and value:
            letters = list(value)
            letters[numbers.randrange(len(letters))] = chr(numbers.choice(_LETTERS))
            parent[key] = "".join(letters)
        case _:
            parent[key] = copy.deepcopy(numbers.choice(_VALUES))


def changed_files(numbers: Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle with one change, or several in one document."""
    files = dict(files)
    names = sorted(files)
    name = numbers.choice([*names, "manifest.json", "manifest.json", "manifest.json"])
    match numbers.randrange(10):
        case 0 | 1 | 2:
            files[name] = changed_bytes(numbers, files[name])
        case 3 | 4 | 5:
            files["manifest.json"] = changed_json(numbers, files["manifest.json"])
        case 6:
            del files[name]
        case 7:
            other = numbers.choice(names)
            files[name], files[other] = files[other], files[name]
        case 8:
            files[numbers.choice(_NAMES)] = b"x"
        case _:
            renamed = numbers.choice([name.upper(), name + ".", f"sub/{name}", name.replace("/", "_") + "_"])
            files[renamed] = files.pop(name)
    return files
