"""The metrics of every role, read from their Prometheus registries.

Apart, because each generated part of the pages has a module of its own.
"""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from core.observability.metrics import DEPRECATED
from headrace.docs.markdown import table

PREFIX = "headrace_"


def metrics_table() -> str:
    """List the metrics of each role with their type and help text."""
    # Imported here, because each role's module registers its counters for the whole process.
    from core.kafka import fetching  # noqa: PLC0415
    from dispatcher import metrics as dispatcher  # noqa: PLC0415
    from ingress.metrics import Metrics  # noqa: PLC0415
    from streams import metrics as streams  # noqa: PLC0415

    ingress = Metrics()
    ingress.watch_waiting(int)
    ingress.watch_polls(int)
    ingress.watch_tail("answers", float)
    found = [("ingress", family) for family in ingress.registry.collect() if _is_current(family)]
    for role, module in (("streams", streams), ("dispatcher", dispatcher), ("streams, dispatcher", fetching)):
        collectors = [one for one in vars(module).values() if isinstance(one, MetricWrapperBase)]
        found += [(role, family) for one in collectors for family in one.collect()]
    rows = (
        [f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, role, family.documentation]
        for role, family in found
    )
    return table(["metric", "type", "role", "meaning"], rows)


def _is_current(family: Metric) -> bool:
    """Tell metrics of Headrace from those of the client library and from deprecated names."""
    return family.name.startswith(PREFIX) and not family.documentation.startswith(DEPRECATED)
