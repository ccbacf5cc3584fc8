"""The settings of every role: defaults < headrace.toml < HEADRACE_* environment < flags.

Each field names its unit, its range and its effect. `headrace config print` shows the effective values, and the tables
of docs/reference/settings.md are generated from here. Sections are one level deep, so `webhooks.allow_private` is
HEADRACE_WEBHOOKS_ALLOW_PRIVATE.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from core.apikeys import digest_of
from core.settings.batches import BatchSettings
from core.settings.direct import DirectSettings
from core.settings.section import Section, http_url, split_commas
from core.settings.webhooks import WebhookSettings

LEVELS = ("online", "offline")


class KafkaSettings(Section):
    bootstrap: str = Field("127.0.0.1:9092", description="Brokers, HOST:PORT, comma separated.")
    topic_prefix: str = Field(
        "headrace.", pattern=r"^[a-zA-Z0-9._-]*$", description="Prefix of every topic and group name."
    )
    partitions: int = Field(6, ge=1, le=9999, description="P: partitions of every partitioned topic; 48 for a cluster.")
    replication_factor: int = Field(1, ge=1, description="Copies of every partition; 3 for a cluster.")
    min_insync_replicas: int = Field(
        1, ge=1, description="In-sync copies required to acknowledge a write; 2 for a cluster."
    )
    work_partitions: int = Field(
        4, ge=1, description="Partitions of each work topic: the maximum of dispatchers that share a queue."
    )
    max_queues: int = Field(500, ge=1, description="Maximum registered queues; each has two work topics.")
    request_timeout_s: float = Field(
        10, gt=0, description="Request timeout of the broker, seconds; then a write is refused."
    )
    max_message_bytes: int = Field(1_048_576, ge=65_536, description="Largest record, bytes.")
    registry_url: str | None = Field(
        None, description="External schema registry to register schemas in on `topics apply`; unset: none."
    )
    registry_user: str = Field("", pattern=r"^[^:]*$", description="User, or name of the key, for that registry.")
    registry_password: SecretStr | None = Field(None, description="Password for that registry.")

    _registry = field_validator("registry_url")(http_url)


class IngressSettings(Section):
    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback requires an API key.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    max_body_bytes: int = Field(16_777_216, ge=1024, description="Largest request body, bytes; beyond it 413.")
    max_upload_bytes: int = Field(
        26_214_400, ge=1024, description="Files of one form (audio, images) together, bytes; beyond it 413."
    )
    max_connections: int = Field(30_000, ge=1, description="Maximum client connections; beyond it 503.")
    max_blocking_requests: int = Field(
        20_000, ge=1, description="Maximum open blocking and streaming requests; beyond it 503."
    )
    default_max_depth: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Maximum queued tasks per level in a queue that sets no max_depth; beyond it 429. 0: no limit.",
    )
    keep_alive_s: float = Field(10, gt=0, description="Seconds between comment lines on a silent stream.")
    auto_register: bool = Field(True, description="Register a queue on its first use; false rejects unknown queues.")
    max_timeout_s: int = Field(600, ge=1, description="Maximum timeout of a blocking or streaming request, seconds.")
    blocking_timeout_s: float = Field(
        590, gt=0, description="Seconds a call waits for its result; then 504, and the task continues."
    )
    default_queue: str = Field(
        "default", pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="Queue of requests that name none."
    )
    check_models: bool = Field(
        True, description="Reject a model that no upstream lists with 404; false leaves that to the upstream."
    )
    require_user: bool = Field(
        False, description="Reject completion-messages and files without a user; false uses DEFAULT-USER."
    )


class AuthSettings(Section):
    api_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Bearer keys, each a tenant of its own; a key or its sha256:HEX. One alone has the scope admin. "
        "Empty on loopback means hr-local.",
    )
    keys_file: Path | None = Field(
        None,
        description="More keys, TOML or .json: tenants with several keys, scopes and limits. Reloaded when changed.",
    )
    requests_per_minute: int = Field(
        0, ge=0, description="Submissions per minute and ingress of a key without its own limit; 0: no limit."
    )
    concurrency: int = Field(
        0, ge=0, description="Open requests per ingress of a key without its own limit; 0: no limit."
    )

    _split = field_validator("api_keys", mode="before")(split_commas)

    @field_validator("api_keys")
    @classmethod
    def _keys(cls, keys: list[SecretStr]) -> list[SecretStr]:
        for number, key in enumerate(keys, 1):
            try:
                digest_of(key.get_secret_value())
            except ValueError as error:
                raise ValueError(f"entry {number} {error}") from None
        return keys


class StreamsSettings(Section):
    lease_s: float = Field(10, gt=0, description="Seconds without a heartbeat after which a worker counts as lost.")
    max_attempts: int = Field(5, ge=1, description="Maximum attempts per task, the first included.")
    max_lost_workers: int = Field(3, ge=1, description="Lost workers after which a task fails with worker_lost.")
    retry_base_s: float = Field(1, gt=0, description="Wait before the second attempt, seconds; doubles from there.")
    retry_max_s: float = Field(60, gt=0, description="Longest wait between two attempts, seconds.")
    batch_records: int = Field(500, ge=1, le=5000, description="Maximum records processed in one durable batch.")
    online_linger_s: float = Field(0.001, ge=0, le=1, description="Seconds the online scheduler waits to fill a batch.")
    offline_linger_s: float = Field(
        0.05, ge=0, le=1, description="Seconds the offline scheduler waits to fill a batch."
    )
    store: Literal["rocksdb", "memory"] = Field(
        "rocksdb", description="Storage of the state table; memory is for tests."
    )
    session_timeout_s: float = Field(
        8, ge=6, description="Seconds after which Kafka considers a silent scheduler dead."
    )
    start_timeout_s: int = Field(
        0, ge=0, description="Seconds until a task that names no start_timeout must have started; 0: no limit."
    )
    run_timeout_s: int = Field(
        0, ge=0, description="Seconds one call may take for a task that names no run_timeout; 0: until its deadline."
    )
    result_retention_s: int = Field(
        86_400, ge=1, le=604_800, description="Seconds a result can be fetched before its task expires."
    )
    idempotency_window_s: int = Field(
        86_400, ge=1, le=604_800, description="Seconds an Idempotency-Key identifies the first task submitted with it."
    )


class DispatcherSettings(Section):
    component: Literal["all", "inference", "webhooks", "batches"] = Field(
        "all", description="Run only this component of the dispatcher."
    )
    concurrency: int = Field(64, ge=1, description="Concurrent calls per upstream.")
    offline_share: float = Field(
        0.1, ge=0, le=0.9, description="Share of the slots reserved for offline tasks (and the same for online ones)."
    )
    commit_interval_s: float = Field(
        0.5, gt=0, le=5, description="Seconds between offset commits; a kill -9 can repeat this much work."
    )
    heartbeat_s: float = Field(2, gt=0, description="Seconds between a worker's heartbeats.")
    shutdown_grace_s: float = Field(6, ge=0, description="Seconds that running calls get to finish at shutdown.")
    connect_timeout_s: float = Field(5, gt=0, description="Connect timeout of upstreams, seconds.")
    max_answer_bytes: int = Field(
        67_108_864, ge=1024, description="Largest upstream response, bytes; beyond it the task fails."
    )
    chunk_window_s: float = Field(
        0.02, ge=0, le=1, description="Seconds of tokens collected into one chunk after the first."
    )


class UpstreamSettings(Section):
    urls: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["http://127.0.0.1:8200/v1"],
        description="OpenAI-compatible servers, base URLs ending in /v1, comma separated.",
    )
    api_key: SecretStr | None = Field(None, description="Bearer key sent to the upstreams.")

    _split = field_validator("urls", mode="before")(split_commas)

    @field_validator("urls")
    @classmethod
    def _http(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no http:// or https:// URL")
            if "@" in url.partition("://")[2].partition("/")[0]:
                raise ValueError("a URL must not hold credentials; give the key as upstream.api_key")
        return [url.rstrip("/") for url in urls]


class StorageSettings(Section):
    url: str | None = Field(
        None, description="Object store for big bodies, such as s3://bucket/prefix; unset: DATA_DIR/objects."
    )
    inline_bytes: int = Field(
        262_144, ge=1024, le=900_000, description="Bodies above this go to the object store, bytes."
    )
    sweep_s: float = Field(600, gt=0, description="Seconds between two deletions of expired bodies.")

    @field_validator("url")
    @classmethod
    def _no_credentials(cls, url: str | None) -> str | None:
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "the URL must not hold credentials; give them by the variables of the store, such as AWS_*"
            )
        return url


class DifySettings(Section):
    max_image_bytes: int = Field(10_485_760, ge=1, description="Largest image of files/upload, bytes; beyond it 413.")
    max_audio_bytes: int = Field(52_428_800, ge=1, description="Largest audio file of files/upload, bytes.")
    max_video_bytes: int = Field(104_857_600, ge=1, description="Largest video of files/upload, bytes.")
    max_other_bytes: int = Field(15_728_640, ge=1, description="Largest other file of files/upload, bytes.")
    max_files_per_request: int = Field(10, ge=1, description="Maximum files in one completion-messages request.")
    upload_retention_s: int = Field(
        604_800, ge=60, description="Seconds a file of files/upload can be referenced; then it is deleted."
    )


class LocalSettings(Section):
    broker_port: int = Field(
        0, ge=0, le=65535, description="Port of the embedded broker; 0 reuses the port chosen at the first start."
    )
    model_port: int = Field(0, ge=0, le=65535, description="Port of the local model; 0 picks a free one.")
    broker_heap_mb: int = Field(512, ge=128, description="Heap of the embedded broker, MB.")


class ModelSettings(Section):
    """One model, as [models.NAME] in headrace.toml."""

    sync: bool = Field(True, description="Wait for the result by default; false makes async the default.")
    prompt_price: Decimal = Field(Decimal(0), ge=0, description="Price of one unit of prompt tokens.")
    completion_price: Decimal = Field(Decimal(0), ge=0, description="Price of one unit of completion tokens.")
    price_unit: Decimal = Field(
        Decimal("0.001"), gt=0, description="One token in units of the prices: 0.001 per 1,000."
    )
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="Currency of the prices.")


class QueueSettings(Section):
    """One queue's defaults, as [queues.NAME] in headrace.toml."""

    level: Literal[0, 1] = Field(0, description="Level of async tasks that name none: 0 online, 1 offline.")
    timeout_s: int | None = Field(None, ge=1, description="Time-out of tasks that name none, seconds.")
    model: str | None = Field(None, description="Model of requests that cannot name one, such as completion-messages.")
    max_depth: int | None = Field(
        None,
        ge=0,
        le=1_000_000_000,
        description="Maximum queued tasks per level; beyond it 429. 0: no limit; unset: ingress.default_max_depth.",
    )
    prompt: str | None = Field(
        None, description="Template of the prompt for completion-messages; {name} is filled from inputs."
    )


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    format: Literal["text", "json"] = Field(
        "text", description="json: one object per line; text: human-readable lines."
    )


class Settings(Section):
    data_dir: Path = Field(
        Path(".headrace"), description="Folder of local state; may be deleted while Headrace is stopped."
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of /metrics and /livez of streams and dispatcher; 0 is off."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of that port.")
    kafka: KafkaSettings = KafkaSettings()
    ingress: IngressSettings = IngressSettings()
    auth: AuthSettings = AuthSettings()
    streams: StreamsSettings = StreamsSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    webhooks: WebhookSettings = WebhookSettings()
    direct: DirectSettings = DirectSettings()
    storage: StorageSettings = StorageSettings()
    dify: DifySettings = DifySettings()
    batches: BatchSettings = BatchSettings()
    local: LocalSettings = LocalSettings()
    log: LogSettings = LogSettings()
    models: dict[str, ModelSettings] = Field(default_factory=dict, description="Prices and defaults by model.")
    queues: dict[str, QueueSettings] = Field(default_factory=dict, description="Defaults by queue.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        """Refuse settings that do not go together."""
        copies, needed = self.kafka.replication_factor, self.kafka.min_insync_replicas
        if needed > copies:
            raise ValueError(
                f"kafka.min_insync_replicas ({needed}) must not be above kafka.replication_factor ({copies}): no write "
                "could ever count"
            )
        if self.streams.lease_s < self.dispatcher.heartbeat_s:
            raise ValueError(
                f"streams.lease_s ({self.streams.lease_s:g}) must not be below dispatcher.heartbeat_s "
                f"({self.dispatcher.heartbeat_s:g}): every worker would count as lost between two heartbeats"
            )
        return self

    _renamed: tuple[tuple[str, str], ...] = PrivateAttr(())

    @property
    def renamed(self) -> tuple[tuple[str, str], ...]:
        """Return the old names that these settings were given under, each with its new name."""
        return self._renamed

    def topic(self, name: str) -> str:
        """Return the full name of a topic or group."""
        return self.kafka.topic_prefix + name
