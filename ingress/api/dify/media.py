"""Kinds of uploaded files by their extension: which limit holds, which media type they have. Pure."""

from __future__ import annotations

from typing import Literal

from core.settings.models import DifySettings
from ingress.api.dify.errors import DifyError

Kind = Literal["image", "audio", "video", "document"]

TYPES: dict[Kind, dict[str, str]] = {
    "image": {
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
        "gif": "image/gif",
        "svg": "image/svg+xml",
    },
    "audio": {
        "mp3": "audio/mpeg",
        "m4a": "audio/mp4",
        "wav": "audio/wav",
        "amr": "audio/amr",
        "mpga": "audio/mpeg",
        "ogg": "audio/ogg",
        "oga": "audio/ogg",
        "opus": "audio/opus",
        "flac": "audio/flac",
    },
    "video": {"mp4": "video/mp4", "mov": "video/quicktime", "mpeg": "video/mpeg", "webm": "video/webm"},
    "document": {
        "txt": "text/plain",
        "md": "text/markdown",
        "mdx": "text/markdown",
        "markdown": "text/markdown",
        "pdf": "application/pdf",
        "html": "text/html",
        "htm": "text/html",
        "csv": "text/csv",
        "xml": "text/xml",
        "json": "application/json",
        "yaml": "application/yaml",
        "vtt": "text/vtt",
        "properties": "text/plain",
        "eml": "message/rfc822",
        "msg": "application/vnd.ms-outlook",
        "doc": "application/msword",
        "xls": "application/vnd.ms-excel",
        "ppt": "application/vnd.ms-powerpoint",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "epub": "application/epub+zip",
    },
}
SEEN_BY_MODELS = frozenset(("image/jpeg", "image/png", "image/webp", "image/gif"))
"""Images that vision models read; drawings in SVG are none."""
MAX_NAME = 200


class Media:
    """What a file is by its name; a name without an extension goes by the media type that the client gave."""

    def __init__(self, name: str, content_type: str) -> None:
        """Raise DifyError for a name that is missing or too long, and for types that are not accepted."""
        self.name = name.replace("\\", "/").rpartition("/")[2].strip()
        if not self.name:
            raise DifyError("the file has no name", code="filename_not_exists_error", field="file")
        if len(self.name) > MAX_NAME:
            raise DifyError(f"a file name must be at most {MAX_NAME} characters", code="invalid_param", field="file")
        stem, dot, extension = self.name.rpartition(".")
        given = extension.lower() if dot and stem else _extension_of(content_type.partition(";")[0].strip().lower())
        found = next((kind for kind, types in TYPES.items() if given in types), None)
        if found is None:
            known = ", ".join(sorted(name for types in TYPES.values() for name in types))
            raise DifyError(
                f"files of this type are not taken; known are {known}",
                code="unsupported_file_type",
                status=415,
                field="file",
            )
        self.kind: Kind = found
        self.extension = given
        self.mime_type = TYPES[found][given]

    def limit(self, settings: DifySettings) -> int:
        """Return the largest size, bytes."""
        return {
            "image": settings.max_image_bytes,
            "audio": settings.max_audio_bytes,
            "video": settings.max_video_bytes,
            "document": settings.max_other_bytes,
        }[self.kind]


def _extension_of(content_type: str) -> str:
    for types in TYPES.values():
        for extension, media_type in types.items():
            if media_type == content_type:
                return extension
    return ""
