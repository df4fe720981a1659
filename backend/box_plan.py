"""From policies to what one box is to serve."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from backend.adapter_folders import adapter_paths, folder_objections
from backend.flag_check import objections, pool_objections, queue_limit
from backend.objections import Objection
from backend.pool_size import pool_size, room_for_reloads
from backend.serve_plan import ServePlan
from backend.vllm_flags import Release, canonical
from gateway.policy.diagnostics import meant
from gateway.policy.engine_options import EngineOptions, merged
from gateway.policy.models import Box, Fleet
from gateway.policy.policy_set import PolicySet

EVERYWHERE = "0.0.0.0"  # noqa: S104 - asked for by name, where the url's host is a name that need not be ours


class UnknownBox(Exception):
    """No fleet has a box of that name. The message names those that there are."""


@dataclass(frozen=True, slots=True)
class BoxToServe:
    """One box. ``plan`` is None where an objection stands against making one; ``objections`` may hold warnings."""

    name: str
    fleet: str
    url: str
    plan: ServePlan | None
    objections: tuple[Objection, ...]


def box_to_serve(policies: PolicySet, name: str, release: Release, *, here: bool = False) -> BoxToServe:
    """What the box ``name`` of ``policies`` is to serve under ``release``, and everything that speaks against it.

    Looks into ``adapter_root``, if that can be read; ``here``: this machine is the box, so that it has to be. Raises
    UnknownBox.
    """
    fleet_name, fleet, box = _find(policies, name)
    names = _adapters(policies, fleet_name)
    options = merged(fleet.engine, box.engine)
    found: list[Objection] = []
    if fleet.model_path is None:
        found.append(Objection(f"fleets.{fleet_name}", "has no model_path", "write where the base lies on its boxes"))
    adapters: dict[str, str] = {}
    if options.register_adapters and names:
        if fleet.adapter_root is None:
            hint = "write which folder holds the adapters on its boxes, or engine.register_adapters: false"
            found.append(Objection(f"fleets.{fleet_name}", "has no adapter_root", hint))
        else:
            adapters = adapter_paths(fleet.adapter_root, names, fleet.adapter_paths)
            found += folder_objections(fleet.adapter_root, adapters, fleet.max_lora_rank, here=here)
    listening = _listening(box, options, found)
    if fleet.model_path is None or listening is None:
        return BoxToServe(name, fleet_name, box.url, None, tuple(found))
    room = room_for_reloads(len(names), options.reload_room)
    plan = ServePlan(
        model=fleet.model_path,
        served_name=fleet.base_model,
        host=listening[0],
        port=listening[1],
        adapters=adapters,
        max_loras=box.max_loras,
        max_cpu_loras=pool_size(len(names), max_loras=box.max_loras, room=room, given=box.max_cpu_loras),
        max_lora_rank=fleet.max_lora_rank,
        api_key=box.api_key,
        options=options,
        max_queued_requests=queue_limit(options),
        drain_s=options.drain,
    )
    found += [*objections(plan, release), *pool_objections(len(names), plan)]
    return BoxToServe(name, fleet_name, box.url, plan, tuple(found))


def _find(policies: PolicySet, name: str) -> tuple[str, Fleet, Box]:
    fleets = policies.fleet.fleets
    for fleet_name, fleet in fleets.items():
        if name in fleet.boxes:
            return fleet_name, fleet, fleet.boxes[name]
    known = [box for fleet in fleets.values() for box in fleet.boxes]
    raise UnknownBox(f"there is no box {name} in fleet.yaml ({meant(name, known, noun='box')})")


def _adapters(policies: PolicySet, fleet: str) -> list[str]:
    """Every adapter that policies name for ``fleet``; a customer that names no fleet is of the only one."""
    only = next(iter(policies.fleet.fleets))
    return [name for customer in policies.customers if (customer.fleet or only) == fleet for name in customer.adapters]


def _listening(box: Box, options: EngineOptions, found: list[Objection]) -> tuple[str, int] | None:
    """Host and port for vLLM; what is wrong with them goes to ``found``."""
    url = urlsplit(box.url)
    if options.listen is not None:
        host, port = _host_and_port(options.listen)
        if host is None:
            found.append(Objection("engine.listen", "is no IP address", "write 0.0.0.0 or 10.0.0.11:8000, for example"))
            return None
        return host, port or url.port or 8000
    has_certificate = any(canonical(argument) == "--ssl-certfile" for argument in options.extra)
    if url.scheme == "https" and not has_certificate:
        hint = "add --ssl-certfile and --ssl-keyfile to engine.extra, or set engine.listen where a proxy does TLS"
        found.append(Objection("the box's url", "is https, and vLLM would serve http", hint))
        return None
    if url.path.strip("/"):
        hint = "set engine.listen to where vLLM is to listen behind the proxy that serves it"
        found.append(Objection("the box's url", "has a path, which vLLM does not serve", hint))
        return None
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    if host == "localhost":
        return "127.0.0.1", port
    return (host if _is_address(host) else EVERYWHERE), port


def _host_and_port(text: str) -> tuple[str | None, int | None]:
    if _is_address(text.strip("[]")):
        return text.strip("[]"), None
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not _is_address(host) or not port.isdigit() or not 0 < int(port) < 65536:
        return None, None
    return host, int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
