"""Files as their clients see them: OpenAI's object, whatever dialect batches speak. Pure."""

from __future__ import annotations

from typing import Any

from ingress.files.lookup import FileEntry


def file_object(entry: FileEntry) -> dict[str, Any]:
    """Build the file object."""
    return {
        "id": entry.id,
        "object": "file",
        "bytes": entry.content.size,
        "created_at": entry.created_ms // 1000,
        "expires_at": None if entry.expires_ms is None else entry.expires_ms // 1000,
        "filename": entry.filename,
        "purpose": entry.purpose,
        "status": "processed",
        "status_details": None,
    }


def deleted_object(file_id: str) -> dict[str, Any]:
    """Build the answer to a delete."""
    return {"id": file_id, "object": "file", "deleted": True}
