"""Writes ``runtime/native/programs/schemas.inc``: the flatbuffer schemas of programs, from the installed engines.

``python scripts/program_schemas.py``; a test says when it has to be run again. Names of tables and fields become
constants, and for each field there is what the checker of programs needs to know.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

OUT = Path(__file__).parents[1] / "runtime/native/programs/schemas.inc"
_WIDTHS = {
    "bool": 1, "byte": 1, "ubyte": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4,
    "long": 8, "ulong": 8, "int64": 8, "uint64": 8, "double": 8, "float64": 8,
}  # fmt: skip


@dataclass
class Schema:
    """Tables, enumerations and unions of one kind of program.

    Attributes:
        name: of the namespace in C++.
        root: the table at the beginning.
        tables: name -> fields in order of their ids: (name, type), a type as in a ``.fbs`` file.
        enums: name -> bytes.
        unions: name -> type number -> table.
        operators: their names by their numbers, where the schema has them.
    """

    name: str
    root: str
    tables: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    enums: dict[str, int] = field(default_factory=dict)
    unions: dict[str, dict[int, str]] = field(default_factory=dict)
    operators: list[str] = field(default_factory=list)


def read_fbs(name: str, root: str, texts: list[str]) -> Schema:
    """A schema as its makers write it."""
    schema = Schema(name, root)
    text = re.sub(r"//[^\n]*", "", "\n".join(texts))
    for kind, table, base, body in re.findall(r"\b(table|enum|union)\s+(\w+)\s*(?::\s*(\w+))?\s*\{([^}]*)\}", text):
        if kind == "enum":
            schema.enums[table] = _WIDTHS[base]
        elif kind == "union":
            members = [entry.split(":")[-1].strip() for entry in body.split(",") if entry.strip()]
            schema.unions[table] = dict(enumerate(members, start=1))
        else:
            schema.tables[table] = []
            for entry in filter(str.strip, body.split(";")):
                found = re.match(r"\s*(\w+)\s*:\s*(\[?\w+\]?)[^(]*(\([^)]*\))?", entry)
                assert found, entry
                of = found[2]
                if of in schema.unions:
                    schema.tables[table].append((f"{found[1]}_type", "union_type"))
                schema.tables[table].append((found[1], "deprecated" if "deprecated" in (found[3] or "") else of))
    return schema


def read_generated(name: str, root: str, text: str) -> Schema:
    """A schema as flatc writes it in Python: TensorFlow's is in no wheel in another form."""
    schema = Schema(name, root)
    bodies = dict(re.findall(r"^class (\w+)\(object\):\n(.*?)(?=^class |^def |\Z)", text, re.M | re.S))
    for table, body in bodies.items():
        numbers = re.findall(r"^    (\w+) = (\d+)$", body, re.M)
        if numbers and numbers[0] == ("NONE", "0") and all(member in bodies for member, _ in numbers[1:]):
            schema.unions[table] = {int(number): member for member, number in numbers[1:]}
        if table == "BuiltinOperator":
            assert [int(number) for _, number in numbers] == list(range(len(numbers)))
            schema.operators = [operator for operator, _ in numbers]
        if "_tab" not in body or table.endswith("T"):
            continue
        found: dict[int, tuple[str, str]] = {}
        for method, arguments, code in re.findall(
            r"    def (\w+)\((self[^)]*)\):\n(.*?)(?=\n    #|\n    def |\Z)", body, re.S
        ):
            if method.endswith(("AsNumpy", "Length", "IsNone")) or not (
                at := re.search(r"_tab\.Offset\((\d+)\)", code)
            ):
                continue
            found[(int(at[1]) - 4) // 2] = (_snake(method), _type_of(code, is_vector="j" in arguments))
        schema.tables[table] = [
            found.get(number, ("unused", "deprecated")) for number in range(max(found, default=-1) + 1)
        ]
    for fields in schema.tables.values():
        for number, (method, of) in enumerate(fields):
            if of == "union":
                union = {"builtin_options": "BuiltinOptions", "builtin_options2": "BuiltinOptions2"}.get(
                    method, "SparseIndexVector"
                )
                fields[number] = (method, union)
                fields[number - 1] = (fields[number - 1][0], "union_type")
    return schema


def _type_of(code: str, *, is_vector: bool) -> str:
    if "_tab.Union" in code:
        return "union"
    if "_tab.String" in code:
        return "[string]" if is_vector else "string"
    if "_tab.Indirect" in code:
        table = re.search(r"obj = (\w+)\(\)", code)
        assert table
        return f"[{table[1]}]" if is_vector else table[1]
    number = re.search(r"Get\(flatbuffers\.number_types\.(\w+)Flags", code)
    assert number, code
    scalar = number[1].lower()
    return f"[{scalar}]" if is_vector else scalar


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def as_cpp(schema: Schema) -> str:
    """Constants and tables."""
    tables, unions = list(schema.tables), list(schema.unions)

    def entry(of: str) -> str:
        inner = of.strip("[]")
        vector = of.startswith("[")
        if of == "deprecated":
            return "{Kind::unused, 0, 0}"
        if of == "union_type":
            return "{Kind::scalar, 1, 0}"
        if inner == "string":
            return f"{{Kind::{'strings' if vector else 'string'}, 4, 0}}"
        if inner in schema.unions:
            return f"{{Kind::united, 4, {unions.index(inner)}}}"
        if inner in schema.tables:
            return f"{{Kind::{'tables' if vector else 'table'}, 4, {tables.index(inner)}}}"
        return f"{{Kind::{'scalars' if vector else 'scalar'}, {_WIDTHS.get(inner) or schema.enums[inner]}, 0}}"

    lines = [f"namespace {schema.name} {{", ""]
    for table, fields in schema.tables.items():
        if fields and not (schema.name == "litert" and table.endswith("Options")):
            names = ", ".join(
                f"{name}{'_' if name in ('operator', 'union') else ''}"
                for name, of in fields
                if of != "deprecated" or table
            )
            lines.append(f"namespace {table.lstrip('_')} {{ enum : uint16_t {{ {names} }}; }}")
    lines.append("")
    for number, fields in enumerate(schema.tables.values()):
        if fields:
            lines.append(f"inline constexpr Field kFields{number}[] = {{{', '.join(entry(of) for _, of in fields)}}};")
    lines.append("inline constexpr Table kTables[] = {")
    for number, (table, fields) in enumerate(schema.tables.items()):
        lines.append(f'    {{"{table}", {f"kFields{number}" if fields else "nullptr"}, {len(fields)}}},')
    lines.append("};")
    for number, members in enumerate(schema.unions.values()):
        listed = [str(tables.index(members[at])) if at in members else "-1" for at in range(max(members) + 1)]
        lines.append(f"inline constexpr int16_t kUnion{number}[] = {{{', '.join(listed)}}};")
    lines.append("inline constexpr Union kUnions[] = {")
    for number, members in enumerate(schema.unions.values()):
        lines.append(f"    {{kUnion{number}, {max(members) + 1}}},")
    lines += ["};", f"inline constexpr Schema kSchema = {{kTables, kUnions, {tables.index(schema.root)}}};"]
    if schema.operators:
        listed = [f'"{operator}"' for operator in schema.operators]
        lines.append(f"inline constexpr std::string_view kOperators[] = {{{', '.join(listed)}}};")
    return "\n".join([*lines, "", f"}}  // namespace {schema.name}", ""])


def schemas() -> list[Schema]:
    """Those of the installed packages."""
    folder = Path(_folder("executorch"))
    program = [folder / "schema" / name for name in ("scalar_type.fbs", "program.fbs")]
    return [
        read_fbs("executorch", "Program", [file.read_text() for file in program]),
        read_fbs("xnnpack", "XNNGraph", [(folder / "backends/xnnpack/serialization/schema.fbs").read_text()]),
        read_generated("litert", "Model", Path(_folder("ai_edge_litert"), "schema_py_generated.py").read_text()),
    ]


def _folder(package: str) -> str:
    found = importlib.util.find_spec(package)
    assert found
    assert found.submodule_search_locations
    return next(place for place in found.submodule_search_locations if any(Path(place).iterdir()))


def text() -> str:
    """Of the file."""
    head = "// Written by scripts/program_schemas.py from the schemas of executorch and ai-edge-litert: do not edit.\n"
    return head + "// clang-format off\n" + "\n".join(as_cpp(schema) for schema in schemas()) + "// clang-format on\n"


if __name__ == "__main__":
    OUT.write_text(text())
