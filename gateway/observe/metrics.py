"""Every metric of the gateway, named in one place.

The number of series is bounded: customers, boxes and providers come from the policy, all else from closed lists. No
label ever holds what a client sent.
"""

from __future__ import annotations

from typing import Literal

from gateway.observe.adapter_metrics import AdapterSyncMetrics
from gateway.observe.instruments import CONTENT_TYPE, Counter, Gauge, Histogram, Registry

__all__ = [
    "CONTENT_TYPE",
    "NOT_DEGRADED",
    "Counter",
    "GatewayMetrics",
    "Gauge",
    "Histogram",
    "Registry",
    "ServedByKind",
]

ServedByKind = Literal["box", "base", "provider", "static", "none"]
"""What kind of target answered; ``none`` when the answer is an error."""

NOT_DEGRADED = "none"
"""The ``reason`` label of an answer that is not degraded."""

_FIRST_CONTENT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
_REQUEST_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_PROBE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class GatewayMetrics:
    """The gateway's metrics, registered on ``registry``; attributes without the ``failsoft_`` prefix."""

    def __init__(self, registry: Registry) -> None:
        add = registry.add
        self.before_render = registry.before_render

        # Requests, as clients see them.
        self.requests = add(
            Counter(
                "failsoft_requests_total",
                "Requests answered, by customer, by the kind of target that answered and by why it was degraded.",
                ("customer", "served_by_kind", "reason"),
            )
        )
        self.attempts = add(
            Counter(
                "failsoft_attempts_total",
                "Attempts by target and outcome: committed, retryable or final.",
                ("target", "outcome"),
            )
        )
        self.time_to_first_content_seconds = add(
            Histogram(
                "failsoft_time_to_first_content_seconds",
                "From the end of the request's body to the first content-bearing byte for the client.",
                ("served_by_kind",),
                buckets=_FIRST_CONTENT_BUCKETS_S,
            )
        )
        self.request_seconds = add(
            Histogram(
                "failsoft_request_seconds",
                "From the end of the request's body to the end of the answer.",
                ("served_by_kind",),
                buckets=_REQUEST_BUCKETS_S,
            )
        )
        self.in_flight = add(Gauge("failsoft_in_flight", "Requests being answered now.", summed=True))
        self.races = add(
            Counter(
                "failsoft_races_total",
                "Streams silent for their ttft_budget that had another target asked beside: who answered first.",
                ("winner",),
            )
        )
        self.stream_resumes = add(
            Counter(
                "failsoft_stream_resumes_total",
                "Streams that broke after content had gone out and were to go on elsewhere: resumed; restarted by "
                "the own adapter; degraded, as restarted by the fallback; or failed.",
                ("customer", "outcome"),
            )
        )
        self.streams_broken = add(
            Counter(
                "failsoft_streams_broken_total", "Streams that broke after content had gone to the client.", ("target",)
            )
        )
        self.retries_denied = add(
            Counter("failsoft_retries_denied_total", "Further attempts that the retry budget did not allow.")
        )
        self.attempts_beyond_limits = add(
            Counter(
                "failsoft_attempts_beyond_limits_total",
                "Boxes asked in spite of retry budget and limit on attempts, as nothing else was left.",
            )
        )
        self.waiting = add(
            Gauge("failsoft_waiting", "Requests that wait for room at the boxes of a fleet.", ("fleet",))
        )
        self.wait_seconds = add(
            Histogram(
                "failsoft_wait_seconds",
                "How long requests waited for room at a box, by what became of it: room or none.",
                ("outcome",),
                buckets=_FIRST_CONTENT_BUCKETS_S,
            )
        )
        self.alias_requests = add(
            Counter(
                "failsoft_alias_requests_total",
                "Requests for an alias, by the adapter that it stood for.",
                ("customer", "alias", "adapter"),
            )
        )
        self.alias_stand_ins = add(
            Counter(
                "failsoft_alias_stand_ins_total",
                "Requests for an alias that went on to another of its adapters, as a box lacks the one they were for.",
                ("customer", "alias", "adapter"),
            )
        )
        self.limit_refused = add(
            Counter(
                "failsoft_limit_refused_total",
                "Requests over a limit of their customer's (requests, tokens or concurrency), answered with 429.",
                ("customer", "limit"),
            )
        )
        self.tokens = add(
            Counter(
                "failsoft_tokens_total",
                "Tokens of answers, by customer, by the kind of target that answered, and prompt or completion.",
                ("customer", "served_by", "direction"),
            )
        )
        self.usage_estimated = add(
            Counter(
                "failsoft_usage_estimated_total",
                "Answers that did not say what they took, so that it was estimated.",
                ("customer", "served_by"),
            )
        )
        self.hosted_usd = add(
            Counter("failsoft_hosted_usd_total", "What hosted providers' answers cost.", ("customer", "provider"))
        )
        self.hosted_cap_used = add(
            Gauge("failsoft_hosted_cap_used", "Spent today of hosted.usd_per_day, as a ratio.", ("customer",))
        )
        self.steps_withheld = add(
            Counter(
                "failsoft_provider_steps_withheld_total",
                "Fallback steps not taken, by why: cap_spent, price_unknown or max_concurrency.",
                ("customer", "why"),
            )
        )
        self.accounts_alone = add(
            Gauge(
                "failsoft_accounts_alone",
                "Processes that know nothing new of the others' use of limits, and go on with the share they had.",
                summed=True,
            )
        )
        self.accounts_unheard = add(
            Counter("failsoft_accounts_exchange_failed_total", "Exchanges about limits and usage that failed.")
        )
        self.client_disconnects = add(
            Counter("failsoft_client_disconnects_total", "Clients that left before their answer had ended.")
        )

        # Boxes.
        self.box_in_flight = add(
            Gauge("failsoft_box_in_flight", "Attempts in flight at a box.", ("box",)),
        )
        self.box_state = add(
            Gauge(
                "failsoft_box_state",
                "1 for the state of the box's circuit breaker, 0 for the others.",
                ("box", "state"),
            )
        )
        self.box_drained = add(
            Gauge("failsoft_box_drained", "1 while an operator keeps the box off duty on this gateway.", ("box",))
        )
        self.breaker_transitions = add(
            Counter(
                "failsoft_breaker_transitions_total",
                "Changes of a breaker's state; the target is a box, `box/*` for its adapters, or `provider:NAME`.",
                ("target", "to"),
            )
        )
        self.probes = add(
            Counter(
                "failsoft_probe_total",
                "Active probes by outcome: ok, silent, refused, status, garbage, busy.",
                ("box", "outcome"),
            )
        )
        self.probe_seconds = add(
            Histogram(
                "failsoft_probe_seconds",
                "From sending a probe to its first content, for probes that succeeded.",
                ("box",),
                buckets=_PROBE_BUCKETS_S,
            )
        )
        self.box_limit = add(
            Gauge("failsoft_box_concurrency_limit", "Attempts in flight a box is good for, as learned.", ("box",))
        )
        self.box_ttft_estimate_seconds = add(
            Gauge(
                "failsoft_box_ttft_estimate_seconds",
                "What a request for the base would see now; an adapter may see more. Absent while nothing is known.",
                ("box",),
            )
        )
        self.box_waiting = add(
            Gauge(
                "failsoft_box_waiting",
                "Requests that wait in the box's engine, as it says, for capacity or (deferred) for a LoRA slot.",
                ("box", "reason"),
            )
        )
        self.box_kv_cache_usage = add(
            Gauge("failsoft_box_kv_cache_usage", "Share of the box's KV cache in use, as it says.", ("box",))
        )
        self.box_predicted_swaps = add(
            Counter(
                "failsoft_box_predicted_lora_swaps_total",
                "Adapters that had to be brought into a LoRA slot, by the gateway's model of the box.",
                ("box",),
            )
        )
        self.box_slots_held = add(
            Gauge(
                "failsoft_box_lora_slots_held",
                "LoRA slots of the box that hold an adapter, by the gateway's model of the box.",
                ("box",),
            )
        )
        self.fleet_predicted_swaps = add(
            Gauge(
                "failsoft_fleet_predicted_lora_swaps_per_second",
                "Swaps a second of all boxes that the homes of the adapters let expect; absent until they are placed.",
                ("fleet",),
            )
        )
        self.metrics_reads_failed = add(
            Counter("failsoft_box_metrics_failed_total", "Readings of a box's own metrics that failed.", ("box",))
        )
        self.provider_state = add(
            Gauge(
                "failsoft_provider_state",
                "1 for the state of the provider's circuit breaker (backing_off: it said 429), 0 for the others.",
                ("provider", "state"),
            )
        )
        self.pool_connections = add(
            Gauge(
                "failsoft_pool_connections",
                "Connections to a target, by state: idle or busy.",
                ("target", "state"),
                summed=True,
            )
        )

        # Processes.
        self.workers = add(Gauge("failsoft_workers", "Worker processes that answer clients."))
        self.worker_restarts = add(
            Counter("failsoft_worker_restarts_total", "Worker processes that ended and were started again.")
        )
        self.replicas = add(
            Gauge("failsoft_replicas", "Gateways alive on this gateway's policy store, itself counted.")
        )
        self.replicas_silent = add(
            Gauge("failsoft_replicas_silent", "Gateways that did not end in order and that the store does not hear.")
        )
        self.box_slot_share = add(
            Gauge("failsoft_box_slot_share", "LoRA slots of the box that this gateway counts on.", ("box",))
        )

        # Orders and drills.
        self.order_seconds_left = add(
            Gauge(
                "failsoft_order_seconds_left",
                "How long a degradation by order has to run, by customer (`*`: all); absent where there is none.",
                ("customer",),
            )
        )

        self.drills = add(
            Counter(
                "failsoft_drills_total",
                "Drills of the fallback by step (`provider:NAME`, `base:FLEET`): passed, failed or held_back.",
                ("step", "outcome"),
            )
        )
        self.drill_proof_age_seconds = add(
            Gauge(
                "failsoft_drill_proof_age_seconds",
                "Since a step of the customer's fallback was last seen to work; +Inf: never. At most 2000 series.",
                ("customer", "step"),
            )
        )
        self.drill_oldest_proof_age_seconds = add(
            Gauge(
                "failsoft_drill_oldest_proof_age_seconds",
                "The largest of these ages over all customers, by step.",
                ("step",),
            )
        )

        self.eval_score = add(
            Gauge(
                "failsoft_eval_score",
                "Share of a customer's eval prompts that are answered right, by path: own or degraded.",
                ("customer", "path"),
            )
        )
        self.adapter_sync = AdapterSyncMetrics(registry)

        # Policies and alarms.
        self.audit_waiting = add(
            Gauge("failsoft_audit_waiting", "Entries of the audit log that are not in the store yet.")
        )
        self.audit_dropped = add(
            Counter("failsoft_audit_dropped_total", "Entries of the audit log that only the gateway's own log has.")
        )
        self.policy_version = add(
            Gauge("failsoft_policy_version", "The policy version in force; 0 while there is none.")
        )
        self.policy_applied_timestamp_seconds = add(
            Gauge(
                "failsoft_policy_applied_timestamp_seconds",
                "Unix time at which the version in force was applied; its age is time() less this.",
            )
        )
        self.policy_source = add(
            Gauge("failsoft_policy_source", "1 for where the version in force came from.", ("source",))
        )
        self.alarm = add(Gauge("failsoft_alarm", "1 while an alarm is on.", ("kind", "subject")))
