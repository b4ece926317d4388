"""Leaving out candidates that cannot win, before they are compiled and before they are timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WORSE = 2.0  # times the best prediction: not tried
SPILLED = 256  # bytes of local memory that a thread may have more than the candidate with the least


def by_model(predicted: Sequence[float | None]) -> dict[int, str]:
    """Which candidates are left out for their predicted microseconds, and why.

    Those without a prediction stay, and so does the best, so that there is always one left.
    """
    best = min((time for time in predicted if time is not None), default=math.inf)
    return {
        number: f"left out: the model says {time / best:.1f}x the best"
        for number, time in enumerate(predicted)
        if time is not None and time > WORSE * best
    }


def by_resources(resources: Mapping[int, Mapping[str, int]]) -> dict[int, str]:
    """Which compiled candidates are left out because registers do not hold their values, where others' do, and why."""
    local = {number: found.get("local_memory", 0) for number, found in resources.items()}
    least = min(local.values(), default=0)
    return {
        number: f"left out: {bytes_} bytes a thread do not fit into registers"
        for number, bytes_ in local.items()
        if bytes_ > least + SPILLED
    }
