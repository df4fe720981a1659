"""What the settings of a box's engine say against each other, before vLLM does, in its way."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.policy.diagnostics import Finding, Location
from gateway.policy.engine_options import merged
from gateway.policy.models import Box, Fleet


def engine_findings(fleet_name: str, fleet: Fleet, box_name: str, box: Box) -> Iterator[Finding]:
    """Contradictions, each at the key that is to be changed: the box's own, or else the fleet's."""
    options = merged(fleet.engine, box.engine)

    of_fleet: Location = ("fleets", fleet_name)
    of_box: Location = (*of_fleet, "boxes", box_name)

    def wrong(key: str, message: str, hint: str, *others: Location) -> Finding:
        own = box.engine is not None and key in box.engine.model_fields_set
        place = of_box if own else of_fleet
        given = ((*of_box, "engine", key), *others)
        return Finding("fleet", (*place, "engine", key), message, hint, given=tuple(("fleet", at) for at in given))

    seqs, queued = options.max_num_seqs, options.max_queued_requests
    if seqs is not None and seqs < box.max_loras:
        yield wrong(
            "max_num_seqs",
            f"is less than max_loras of {box_name} ({box.max_loras}), so that slots could never all be used",
            f"make it {box.max_loras} or more, or max_loras {seqs} or less",
            (*of_box, "max_loras"),
        )
    if seqs is not None and queued is not None and queued < seqs:
        yield wrong(
            "max_queued_requests",
            f"is less than max_num_seqs ({seqs}), so that no batch would ever be full: running requests count too",
            f"{4 * seqs} lets three batches wait behind one that runs",
            (*of_fleet, "engine", "max_num_seqs"),
            (*of_box, "engine", "max_num_seqs"),
        )
