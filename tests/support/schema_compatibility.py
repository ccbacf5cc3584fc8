"""BACKWARD compatibility of Avro schemas: can a reader with the new schema read records of the old one?

The schema resolution rules of the Avro specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""Written type → the other types it may be read as."""
NAMED = ("record", "error", "enum", "fixed")


def incompatibilities(reader: Schema, writer: Schema) -> list[str]:
    """Return a sentence for each incompatibility; an empty list means compatible."""
    return _Check(_names(reader), _names(writer)).compare(reader, writer, str(reader.get("name", "schema")))


def incompatible_versions(folder: Path) -> list[str]:
    """Check every registered version of every record in a folder against the one before."""
    registered = json.loads((folder / "ids.json").read_text())
    by_name: dict[str, list[tuple[int, str]]] = {}
    for entry in registered.values():
        by_name.setdefault(entry["name"], []).append((entry["version"], entry["file"]))
    problems = []
    for name, versions in sorted(by_name.items()):
        versions.sort()
        for position, (new, file) in enumerate(versions):
            for old, earlier in versions[:position]:
                found = incompatibilities(
                    json.loads((folder / file).read_text()), json.loads((folder / earlier).read_text())
                )
                problems += [f"{name} version {new} cannot read version {old}: {problem}" for problem in found]
    return problems


class _Check:
    """One comparison: the named types of both sides, and the pairs that are being compared (types may recur)."""

    def __init__(self, reader_names: Mapping[str, Any], writer_names: Mapping[str, Any]) -> None:
        self._reader_names = reader_names
        self._writer_names = writer_names
        self._open: set[tuple[str, str]] = set()

    def compare(self, reader: Any, writer: Any, where: str) -> list[str]:
        reader, writer = _resolve(reader, self._reader_names), _resolve(writer, self._writer_names)
        if isinstance(writer, list):
            return [problem for branch in writer for problem in self.compare(reader, branch, where)]
        if isinstance(reader, list):
            if any(not self.compare(branch, writer, where) for branch in reader):
                return []
            return self._no_branch(reader, writer, where)
        written, read = _kind(writer), _kind(reader)
        if written != read:
            if read in PROMOTIONS.get(written, ()):
                return []
            return [f"{where} was {_label(writer)} and is now {_label(reader)}"]
        return self._same_kind(read, reader, writer, where)

    def _no_branch(self, reader: list[Any], writer: Any, where: str) -> list[str]:
        """Return why no branch of a union matches, by its branch of the same kind if there is only one."""
        branches = [_resolve(branch, self._reader_names) for branch in reader]
        same = [branch for branch in branches if _label(branch) == _label(writer)]
        if len(same) == 1 and _kind(writer) in NAMED:
            return self.compare(same[0], writer, where)
        return [f"{where} may hold {_label(writer)}, which the new union does not list"]

    def _same_kind(self, kind: str, reader: Any, writer: Any, where: str) -> list[str]:
        if kind == "array":
            return self.compare(reader["items"], writer["items"], f"{where}[]")
        if kind == "map":
            return self.compare(reader["values"], writer["values"], f"{where}{{}}")
        if kind not in NAMED:
            return _logical(reader, writer, where)
        if not _same_name(reader, writer):
            return [f"{where} was named {writer['name']} and is now named {reader['name']}"]
        return {"enum": _enum, "fixed": _fixed}.get(kind, self._record)(reader, writer, where)

    def _record(self, reader: Schema, writer: Schema, where: str) -> list[str]:
        pair = (_full_name(reader), _full_name(writer))
        if pair in self._open:
            return []
        self._open.add(pair)
        try:
            written = {field["name"]: field for field in writer["fields"]}
            problems = []
            for field in reader["fields"]:
                path = f"{where}.{field['name']}"
                found = next(
                    (written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None
                )
                if found is not None:
                    problems += self.compare(field["type"], found["type"], path)
                elif "default" not in field:
                    problems.append(f"{path} is new and has no default")
            return problems
        finally:
            self._open.discard(pair)


def _enum(reader: Schema, writer: Schema, where: str) -> list[str]:
    if "default" in reader:
        return []
    gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    return [f"{where} no longer knows the symbol {symbol} and has no default" for symbol in gone]


def _fixed(reader: Schema, writer: Schema, where: str) -> list[str]:
    was, now = writer["size"], reader["size"]
    return [] if was == now else [f"{where} had {was} bytes and now has {now}"]


def _logical(reader: Any, writer: Any, where: str) -> list[str]:
    """A logical type changes what the same bytes mean."""
    was, now = (side.get("logicalType") if isinstance(side, dict) else None for side in (writer, reader))
    return [] if was == now else [f"{where} was {was or 'plain'} and is now {now or 'plain'} in its logical type"]


def _kind(schema: Any) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _label(schema: Any) -> str:
    return f"{schema['type']} {schema['name']}" if _kind(schema) in NAMED else _kind(schema)


def _full_name(schema: Schema) -> str:
    name = str(schema["name"])
    return name if "." in name or not schema.get("namespace") else f"{schema['namespace']}.{name}"


def _same_name(reader: Schema, writer: Schema) -> bool:
    """Compare without the namespace, as the specification asks; aliases of the reader count."""
    names = [reader["name"], *reader.get("aliases", ())]
    return str(writer["name"]).rpartition(".")[2] in {str(name).rpartition(".")[2] for name in names}


def _resolve(schema: Any, names: Mapping[str, Any]) -> Any:
    """Follow a name to its declaration, and {"type": …} wrappers to what they wrap."""
    while True:
        if isinstance(schema, str) and schema.rpartition(".")[2] in names:
            schema = names[schema.rpartition(".")[2]]
        elif isinstance(schema, dict) and (isinstance(schema["type"], dict | list) or schema["type"] in names):
            schema = schema["type"]
        else:
            return schema


def _names(schema: Any) -> dict[str, Any]:
    """Collect the named types that a schema declares."""
    found: dict[str, Any] = {}
    if isinstance(schema, list):
        for branch in schema:
            found |= _names(branch)
    elif isinstance(schema, dict):
        if schema["type"] in NAMED:
            found[str(schema["name"]).rpartition(".")[2]] = schema
        for part in (schema["type"], schema.get("items"), schema.get("values")):
            found |= _names(part)
        for field in schema.get("fields", ()):
            found |= _names(field["type"])
    return found
