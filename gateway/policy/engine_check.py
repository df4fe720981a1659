"""What the settings of a box's engine say against each other, before vLLM does, in its way."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.policy.diagnostics import Finding, Location
from gateway.policy.engine_options import merged
from gateway.policy.models import Box, Fleet


def engine_findings(fleet_name: str, fleet: Fleet, box_name: str, box: Box) -> Iterator[Finding]:
    """Contradictions, each at the key that is to be changed: the box's own, or else the fleet's."""
    options = merged(fleet.engine, box.engine)

    def wrong(key: str, message: str, hint: str) -> Finding:
        own = box.engine is not None and key in box.engine.model_fields_set
        place: Location = ("fleets", fleet_name, "boxes", box_name) if own else ("fleets", fleet_name)
        return Finding("fleet", (*place, "engine", key), message, hint)

    seqs, queued = options.max_num_seqs, options.max_queued_requests
    if seqs is not None and seqs < box.max_loras:
        yield wrong(
            "max_num_seqs",
            f"is less than max_loras of {box_name} ({box.max_loras}), so that slots could never all be used",
            f"make it {box.max_loras} or more, or max_loras {seqs} or less",
        )
    if seqs is not None and queued is not None and queued < seqs:
        yield wrong(
            "max_queued_requests",
            f"is less than max_num_seqs ({seqs}), so that no batch would ever be full: running requests count too",
            f"{4 * seqs} lets three batches wait behind one that runs",
        )
