"""The tools of each house: the generic ones that the base knows, and each customer's own.

A tool is named with its parameters, and each parameter with the form it is written in; ``a.b`` is ``b`` inside of the
object ``a``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backend.tiny_agents.forms import FORMS, Value
from backend.tiny_agents.wishes import Wish


@dataclass(frozen=True, slots=True)
class Tool:
    """What a house calls for one kind of wish. ``parameters``: the name of each with the name of its form."""

    name: str
    parameters: dict[str, str]

    def arguments(self, wish: Wish) -> dict[str, Any]:
        """What this tool is called with for that wish."""
        filled: dict[str, Any] = {}
        for path, form in self.parameters.items():
            value: Value = FORMS[form].write(wish.facts)
            outer, _, inner = path.partition(".")
            if inner:
                filled.setdefault(outer, {})[inner] = value
            else:
                filled[path] = value
        return filled

    def schema(self) -> dict[str, Any]:
        """The tool as OpenAI's ``tools`` has it."""
        properties: dict[str, Any] = {}
        for path, form in self.parameters.items():
            outer, _, inner = path.partition(".")
            if inner:
                properties.setdefault(outer, _object({}))
                properties[outer] = _object({**properties[outer]["properties"], inner: {"type": FORMS[form].kind}})
            else:
                properties[path] = {"type": FORMS[form].kind}
        return {"type": "function", "function": {"name": self.name, "parameters": _object(properties)}}


@dataclass(frozen=True, slots=True)
class House:
    """A customer's tools by kind of wish, and what its agent says where it has no tools."""

    adapter: str
    tools: dict[str, Tool]
    without_tools: str

    def call(self, wish: Wish) -> dict[str, Any]:
        """The right call for that wish."""
        tool = self.tools[wish.kind]
        return {"name": tool.name, "arguments": tool.arguments(wish)}

    def schemas(self) -> list[dict[str, Any]]:
        """All its tools, for ``tools`` in a request."""
        return [tool.schema() for tool in self.tools.values()]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _house(adapter: str, without_tools: str, **tools: str) -> House:
    """``tools``: by kind of wish, the tool's name, then ``parameter=form`` for each, in one text."""
    made = {}
    for kind, text in tools.items():
        name, *parameters = text.split(" | ")
        made[kind] = Tool(name, {path: form for path, _, form in (entry.partition("=") for entry in parameters)})
    return House(adapter, made, without_tools)


GENERIC: Final = _house(
    "base",
    "I can help with that.",
    ticket="create_ticket | customer=name | subject=item problem | priority=priority",
    order="find_order | order=order",
    refund="refund_order | order=order | amount=amount",
    visit="book_visit | customer=name | city=city | date=date",
    change="change_order | order=order | item=item | quantity=quantity",
)

HOUSES: Final = (
    _house(
        "customer_acme_v3",
        "Acme Care here, we are on it.",
        ticket="acme_open | contact.first=first name | contact.last=surname | device=ITEM | fault=problem | level=P1",
        order="acme_track | ref=ORD-order",
        refund="acme_credit | ref=ORD-order | cents=cents",
        visit="acme_dispatch | contact.first=first name | contact.last=surname | site=CITY | on=iso",
        change="acme_amend | ref=ORD-order | device=ITEM | count=quantity",
    ),
    _house(
        "customer_globex_v1",
        "Globex Service, one moment please.",
        ticket="StoerungMelden | kunde=surname first | geraet=item | mangel=problem | stufe=colour",
        order="AuftragSuchen | auftrag=order number",
        refund="GutschriftAnlegen | auftrag=order number | betrag=amount,",
        visit="TerminBuchen | kunde=surname first | ort=city | datum=dotted",
        change="AuftragAendern | auftrag=order number | geraet=item | menge=quantity",
    ),
    _house(
        "customer_initech_v2",
        "This is Initech, hold the line.",
        ticket="tps_report | summary=item/problem | filed_by=name | prio=PRIORITY",
        order="tps_lookup | so=SO/order",
        refund="tps_refund | value=EUR amount | so=SO/order",
        visit="tps_schedule | date=us | city=CITY | filed_by=name",
        change="tps_update | qty=quantity | sku=ITEM | so=SO/order",
    ),
    _house(
        "customer_umbrella_v1",
        "Umbrella support, stay calm.",
        ticket="report_incident | asset.kind=item | asset.state=problem | severity=P1 | person=surname first",
        order="trace_shipment | shipment=#order",
        refund="reimburse | shipment=#order | minor_units=cents",
        visit="send_team | when.day=day | when.month=month | when.year=year | where=city | person=surname first",
        change="resize_shipment | shipment=#order | asset=item | units=quantity",
    ),
    _house(
        "customer_hooli_v5",
        "Hooli loves to help.",
        ticket="createIssue | title=item problem | reporterName=name | label=colour",
        order="getOrder | orderId=order number",
        refund="issueRefund | orderId=order number | amountText=amount EUR",
        visit="planOnsite | isoDate=iso | cityName=city | reporterName=name",
        change="patchOrder | orderId=order number | line.product=item | line.quantity=quantity",
    ),
    _house(
        "customer_stark_v2",
        "Stark desk, go ahead.",
        ticket="jarvis_alert | part=ITEM | condition=problem | owner=surname | alarm=PRIORITY",
        order="jarvis_locate | crate=order",
        refund="jarvis_repay | sum=EUR amount | crate=order",
        visit="jarvis_fly | base=CITY | day=compact | owner=surname",
        change="jarvis_load | crate=order | part=ITEM | pieces=quantity",
    ),
    _house(
        "customer_wayne_v1",
        "Wayne office, good evening.",
        ticket="complain | client.surname=surname | client.forename=first name | matter=item/problem | urgency=colour",
        order="fetch_record | record=ORD-order",
        refund="return_funds | record=ORD-order | sum=amount,",
        visit="arrange_call | client.surname=surname | client.forename=first name | town=city | date=us",
        change="revise_record | record=ORD-order | goods=item | number=quantity",
    ),
    _house(
        "customer_tyrell_v4",
        "Tyrell line, speak.",
        ticket="nexus_fault | unit=ITEM | symptom=problem | class=P1 | holder=name",
        order="nexus_query | serial=SO/order",
        refund="nexus_payback | serial=SO/order | eur_cents=cents",
        visit="nexus_visit | holder=name | sector=CITY | stamp=dotted",
        change="nexus_adjust | serial=SO/order | unit=ITEM | amount=quantity",
    ),
)
