"""Whether anything is to be said of a customer by itself: it depends on its own file and on what all have in common."""

from __future__ import annotations

import hashlib

from gateway.policy.compile import Common, Frame
from gateway.policy.crosscheck import crosscheck_general, crosscheck_own, crosscheck_rules
from gateway.policy.models import FleetFile, Rules
from gateway.policy.plain_customer import Own
from gateway.policy.policy_set import dumped
from gateway.policy.prices import price_map, price_map_state


class Alone:
    """Under these fleets, providers and defaults. ``digest``: of what answers depend on besides code and customer."""

    def __init__(self, fleet: FleetFile, defaults: Rules) -> None:
        self._fleet, self._defaults = fleet, defaults
        self._frame = Frame(fleet, defaults, None)
        # Where these are wrong themselves nothing can be said of a customer.
        self._usable = all(found.severity == "warning" for found in crosscheck_general(fleet, defaults, {}))
        written = b"\n".join((dumped(fleet), dumped(defaults), price_map_state()))
        self.digest = hashlib.sha256(written).hexdigest().encode()

    def get_ready(self) -> None:
        """Read what is needed for the first answer. Processes that are forked then have it."""
        price_map()

    def common(self, rules: Rules) -> Common | None:
        """What becomes of rules; None where anything is to be said of them."""
        if not self._usable or any(crosscheck_rules(self._fleet, self._defaults, rules)):
            return None
        return self._frame.common(rules)

    def in_order(self, customer: Own, common: Common | None) -> bool:
        """Whether ``customer``, whose rules come to ``common``, compiles, and there is not even a warning about it."""
        if common is None or any(crosscheck_own(self._fleet, customer)):
            return False
        self._frame.with_rules(customer, common)
        return True
