"""What a client is told about the application behind a queue: its inputs, its limits, its name. Pure."""

from __future__ import annotations

from typing import Any

from core.settings.models import DifySettings, QueueSettings
from ingress.api.dify.prompt import QUERY, variables

OFF = {"enabled": False}
MB = 1_048_576


def parameters(queue: QueueSettings, dify: DifySettings) -> dict[str, Any]:
    """List what the form of the application asks for, and what may be uploaded."""
    names = variables(queue.prompt) if queue.prompt is not None else [QUERY]
    form = [{"paragraph": {"label": n, "variable": n, "required": True, "default": ""}} for n in names or [QUERY]]
    return {
        "opening_statement": "",
        "suggested_questions": [],
        "suggested_questions_after_answer": OFF,
        "speech_to_text": OFF,
        "text_to_speech": {**OFF, "voice": "", "language": "", "autoPlay": "disabled"},
        "retriever_resource": OFF,
        "annotation_reply": OFF,
        "more_like_this": OFF,
        "sensitive_word_avoidance": OFF,
        "user_input_form": form,
        "file_upload": {
            "image": {
                "enabled": True,
                "number_limits": dify.max_files_per_request,
                "detail": "high",
                "transfer_methods": ["remote_url", "local_file"],
            }
        },
        "system_parameters": {
            "file_size_limit": dify.max_other_bytes // MB,
            "image_file_size_limit": dify.max_image_bytes // MB,
            "audio_file_size_limit": dify.max_audio_bytes // MB,
            "video_file_size_limit": dify.max_video_bytes // MB,
            "workflow_file_upload_limit": dify.max_files_per_request,
        },
    }


def info(queue: str) -> dict[str, Any]:
    """Name the application: it is its queue."""
    return {"name": queue, "description": "", "tags": [], "mode": "completion", "author_name": ""}


def meta() -> dict[str, Any]:
    """List the icons of tools: there are no tools."""
    return {"tool_icons": {}}
