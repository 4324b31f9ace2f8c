"""The trainer's curves as Ray application metrics: gauges at Ray's Prometheus endpoint.

`reward_raw/visual/mean` of the other trackers is `ray_avar_reward_raw{curve="visual/mean"}` there. Ray 2.60 drops a
gauge two export intervals (20 s) after it was last set, and a step may take minutes: a thread sets the last step's
values again and again. What a step did not measure is not set, and goes.
"""

from __future__ import annotations

import numbers
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

REFRESH_SECONDS = 5.0  # Ray exports every 10 s


def gauge_of(metric: str) -> tuple[str, str]:
    """Name and `curve` of a metric: `reward_raw/visual/mean` → (`avar_reward_raw`, `visual/mean`)."""
    family, _, curve = metric.partition("/")
    return f"avar_{re.sub('[^a-zA-Z0-9]+', '_', family)}", curve


class MetricsExporter:
    """A gauge for every family of curves, with the tags `run` and `curve`. Needs a process that Ray started."""

    def __init__(self, run: str):
        self._run = run
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[tuple[str, str], float] = {}
        threading.Thread(target=self._refresh, name="avar-ray-metrics", daemon=True).start()

    def set(self, metrics: Mapping[str, object]) -> None:
        """Replaces what is shown by the numbers among `metrics`, {name in the trackers: value}."""
        from ray.util.metrics import Gauge

        values = {gauge_of(name): float(value) for name, value in metrics.items() if isinstance(value, numbers.Real)}
        for gauge, _ in values:
            if gauge not in self._gauges:
                text = f"curves {gauge.removeprefix('avar_')}/* of the last step"  # Ray takes ASCII only
                self._gauges[gauge] = Gauge(gauge, description=text, tag_keys=("run", "curve"))
        self._values = values
        self._write()

    def _refresh(self) -> None:
        tick = threading.Event()
        while not tick.wait(REFRESH_SECONDS):
            self._write()

    def _write(self) -> None:
        for (gauge, curve), value in self._values.items():
            self._gauges[gauge].set(value, tags={"run": self._run, "curve": curve})
