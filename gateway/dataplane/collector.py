"""How seldom the cycle collector of a process that answers requests looks for work."""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 100)
"""Of the cycle collector: 5 % of a request's CPU by the defaults, not measurable by these."""


def collect_rarely() -> None:
    """To be called once all is set up."""
    # What lives as long as the process is not worth looking at in every collection.
    gc.collect()
    gc.freeze()
    # A request makes some hundred objects and no cycles: the default would look for them every seventh one.
    gc.set_threshold(*THRESHOLDS)
