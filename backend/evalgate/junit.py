"""A run's result as JUnit XML: one test case a customer, for CI to show."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from backend.evalgate.difference import differences
from backend.evalgate.result import Result

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def junit(result: Result) -> str:
    """The document."""
    count = len(result.customers)
    why = {one.customer: one.why for one in result.tripped}
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites tests="{count}" failures="{len(why)}">',
        f'  <testsuite name="failsoft eval" tests="{count}" failures="{len(why)}" errors="0" skipped="0">',
    ]
    for one in result.customers:
        lines.append(f"    <testcase classname={_attribute('failsoft eval')} name={_attribute(one.customer)}>")
        if (message := why.get(one.customer)) is not None:
            changed = [
                f"{change.case.id}: {'; '.join(differences(change.case, change.candidate))}"
                for change in result.changes
                if change.case.customer == one.customer and change.worse
            ]
            lines.append(f"      <failure message={_attribute(message)}>{_text(chr(10).join(changed))}</failure>")
        scored = (
            f"{100 * one.baseline.right:.2f} % -> {100 * one.candidate.right:.2f} % of {one.baseline.prompts} prompts"
        )
        lines += [f"      <system-out>{_text(scored)}</system-out>", "    </testcase>"]
    if result.warnings:
        lines.append(f"    <system-err>{_text(chr(10).join(result.warnings))}</system-err>")
    return "\n".join([*lines, "  </testsuite>", "</testsuites>", ""])


def _text(text: str) -> str:
    return escape(_UNFIT.sub("�", text))


def _attribute(text: str) -> str:
    return quoteattr(_UNFIT.sub("�", text))
