"""The routes of files as OpenAPI."""

from __future__ import annotations

from typing import Any

from ingress.api.openai.openapi_parts import errors
from ingress.api.openapi_parts import header
from ingress.files.lookup import OUTPUT
from ingress.files.upload import ANCHOR, MAX_EXPIRES_S, MIN_EXPIRES_S, PURPOSES, SECONDS

FILE_ID = "file-697d5f40c0ffee00c0ffee00c0ffee00"
LINES = '{"custom_id":"a","body":{"model":"smollm2","messages":[{"role":"user","content":"Why?"}]}}\n'
RANGE = "One range of bytes, such as `bytes=0-1023`."
_TEXT = {"type": "string"}
_TIME = {"type": "integer", "description": "Epoch seconds."}
_FILE = {
    "id": FILE_ID,
    "object": "file",
    "bytes": len(LINES),
    "created_at": 1_769_860_800,
    "expires_at": 1_772_452_800,
    "filename": "requests.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}


def paths() -> dict[str, Any]:
    """Describe the routes."""
    one = {"parameters": [_file_id()]}
    return {
        "/v1/files": {"post": _upload(), "get": _list()},
        "/v1/files/{file_id}": {
            "get": {
                "operationId": "retrieveFile",
                "summary": "Show a file",
                **one,
                "responses": {"200": _answer("File", "The file.", _FILE), **errors(404)},
            },
            "delete": {
                "operationId": "deleteFile",
                "summary": "Delete a file",
                **one,
                "description": "Not while a batch that has not ended needs it: 400, naming the batch.",
                "security": [{"key": ["submit"]}],
                "responses": {"200": _answer("DeletedFile", "It is gone.", _DELETED), **errors(400, 404)},
            },
        },
        "/v1/files/{file_id}/content": {"get": _content()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies."""
    file = {
        "id": _TEXT,
        "object": {"const": "file"},
        "bytes": {"type": "integer"},
        "created_at": _TIME,
        "expires_at": {"type": ["integer", "null"], "description": "Epoch seconds; null: never."},
        "filename": _TEXT,
        "purpose": {"enum": [*PURPOSES, OUTPUT]},
        "status": {"const": "processed"},
        "status_details": {"type": "null"},
    }
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/File"}}
    maybe = {"type": ["string", "null"]}
    page = {"object": {"const": "list"}, "data": listed, "first_id": maybe, "last_id": maybe}
    form = {
        "file": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "At most batches.max_bytes. For a batch: one request per line, as JSON.",
        },
        "purpose": {"enum": [*PURPOSES]},
        ANCHOR: {"const": "created_at"},
        SECONDS: {
            "type": "integer",
            "minimum": MIN_EXPIRES_S,
            "maximum": MAX_EXPIRES_S,
            "description": "30 days for the purpose batch unless given; other files stay. Dots in place of "
            "brackets, and JSON or the seconds alone in `expires_after`, are read as well. Any other field is "
            "refused.",
        },
    }
    gone = {"id": _TEXT, "object": {"const": "file"}, "deleted": {"const": True}}
    return {
        "File": {"type": "object", "properties": file},
        "FileList": {"type": "object", "properties": {**page, "has_more": {"type": "boolean"}}},
        "FileForm": {"type": "object", "required": ["file", "purpose"], "properties": form},
        "DeletedFile": {"type": "object", "properties": gone},
    }


def ranges(statuses: dict[str, Any]) -> dict[str, Any]:
    """Add the answers to a range."""
    return {"206": {**statuses["200"], "description": "The range that was asked for."}, **statuses}


def range_header() -> dict[str, Any]:
    """Describe the header."""
    return header("Range", RANGE, 256)


def _upload() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/FileForm"}
    return {
        "operationId": "uploadFile",
        "summary": "Upload a file",
        "description": "Kept in the object store while it arrives; never held whole. It is there when this answers.",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": {"200": _answer("File", "The file.", _FILE), **errors(400, 413, 415, 429)},
    }


def _list() -> dict[str, Any]:
    words: dict[str, tuple[str, dict[str, Any]]] = {
        "after": ("The id of the last file of the page before.", {"type": "string", "maxLength": 128}),
        "limit": ("Files of a page.", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 10_000}),
        "order": ("By the time of their making.", {"enum": ["desc", "asc"]}),
        "purpose": ("Only these.", {"enum": [*PURPOSES, OUTPUT]}),
    }
    page = {"object": "list", "data": [_FILE], "first_id": FILE_ID, "last_id": FILE_ID, "has_more": False}
    return {
        "operationId": "listFiles",
        "summary": "List files",
        "description": "The caller's own, with the output and error files of its batches.",
        "parameters": query(words),
        "responses": {"200": _answer("FileList", "A page.", page), **errors(400)},
    }


def _content() -> dict[str, Any]:
    whole = {
        "description": "The bytes as they were uploaded; of a batch's file all lines that are there by now.",
        "content": {"application/octet-stream": {"schema": {"type": "string"}, "example": LINES}},
    }
    return {
        "operationId": "downloadFile",
        "summary": "Fetch the content of a file",
        "parameters": [_file_id(), range_header()],
        "responses": {**ranges({"200": whole}), **errors(404), "416": unsatisfiable()},
    }


def unsatisfiable() -> dict[str, Any]:
    """Describe the answer to a range that holds nothing; its example is made in the dialect of the path."""
    return {"description": "Nothing of the file is in that range."}


def query(words: dict[str, tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Describe optional parameters of a query."""
    return [
        {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
        for name, (text, schema) in words.items()
    ]


def _file_id() -> dict[str, Any]:
    text = "The id of an upload, or of a batch's output or error file."
    return {"name": "file_id", "in": "path", "required": True, "description": text, "schema": _TEXT}


def _answer(schema: str, description: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"description": description, "content": {"application/json": content}}


_DELETED = {"id": FILE_ID, "object": "file", "deleted": True}
