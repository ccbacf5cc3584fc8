"""Parameters, the upload form and answers of the files API."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Header, Path
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from ingress.files.lookup import OUTPUT
from ingress.files.upload import ANCHOR, MAX_EXPIRES_S, MIN_EXPIRES_S, PURPOSES, SECONDS
from ingress.http.routing import left_out
from ingress.http.validation import Digits, FormBody, Parameters, QueryParameters

LIMIT = 10_000
FILE_ID = "file-697d5f40c0ffee00c0ffee00c0ffee00"
LINES = '{"custom_id":"a","body":{"model":"smollm2","messages":[{"role":"user","content":"Why?"}]}}\n'
Bytes = Annotated[str, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})]
Purpose = Annotated[str, Field(json_schema_extra={"enum": [*PURPOSES]})]
AnyPurpose = Annotated[str, Field(json_schema_extra={"enum": [*PURPOSES, OUTPUT]})]


class FileListQuery(Parameters):
    """Which files are listed."""

    after: Annotated[str, Field(json_schema_extra={"maxLength": 128})] | None = Field(
        None, description="The id of the last file of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=LIMIT, description="Files per page at most."), Digits] = LIMIT
    order: Annotated[str, Field(json_schema_extra={"enum": ["desc", "asc"]})] = Field(
        "desc", description="By creation time."
    )
    purpose: AnyPurpose | None = Field(None, description="Only files with this purpose.")


class FileUploadForm(BaseModel):
    """The form of an upload; any other field is refused."""

    model_config = ConfigDict(extra="forbid")

    file: Bytes = Field(description="At most batches.max_bytes. For a batch: one request per line, as JSON.")
    purpose: Purpose
    anchor: Literal["created_at"] = left_out(alias=ANCHOR)
    seconds: int = left_out(
        alias=SECONDS,
        ge=MIN_EXPIRES_S,
        le=MAX_EXPIRES_S,
        description="Lifetime of the file: 30 days for the purpose batch unless given; other files do not expire. "
        "Dots instead of brackets, and JSON or the seconds alone in `expires_after`, are accepted as well.",
    )


FileListParameters = Annotated[FileListQuery, Depends(QueryParameters(FileListQuery))]
UploadForm = Annotated[None, Depends(FormBody(FileUploadForm))]
FileId = Annotated[str, Path(description="The id of an upload, or of the output or error file of a batch.")]
Range = Annotated[
    str | None,
    Header(
        alias="Range",
        description="One range of bytes, such as `bytes=0-1023`.",
        json_schema_extra={"maxLength": 256},
    ),
]


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int = Field(description="Epoch seconds.")
    expires_at: int | None = Field(description="Epoch seconds; null: never.")
    filename: str
    purpose: AnyPurpose
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """A file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


FILE = {
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
PAGE = {"object": "list", "data": [FILE], "first_id": FILE_ID, "last_id": FILE_ID, "has_more": False}
DELETED = {"id": FILE_ID, "object": "file", "deleted": True}
