"""Linear regression of few unknowns that cannot be below zero, which single wild points do not lead astray. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

ROUNDS = 12
HUBER = 1.345
"""Residuals beyond so many standard deviations count by their size and not by its square (P. Huber, 1964)."""


def fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float] | None:
    """The x ≥ 0 for which ``rows`` · x is nearest to ``values``, by least squares weighted anew by Huber's rule until
    they settle; None where the rows do not tell the unknowns apart."""
    scale = [max(map(abs, column)) or 1.0 for column in zip(*rows, strict=True)]
    alike = [[one / size for one, size in zip(row, scale, strict=True)] for row in rows]
    weights = [1.0] * len(rows)
    found: list[float] | None = None
    for _ in range(ROUNDS):
        found = _not_negative(_normal_equations(alike, values, weights))
        if found is None:
            return None
        off = [abs(value - _dot(row, found)) for row, value in zip(alike, values, strict=True)]
        spread = median(off) / 0.6745
        if spread <= 0.0:
            break
        weights = [min(1.0, HUBER * spread / one) if one > 0.0 else 1.0 for one in off]
    return None if found is None else [value / size for value, size in zip(found, scale, strict=True)]


def _normal_equations(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]
) -> list[list[float]]:
    """A row an unknown, with the right side at its end."""
    count = len(rows[0])
    table = [[0.0] * (count + 1) for _ in range(count)]
    for row, value, weight in zip(rows, values, weights, strict=True):
        for n in range(count):
            part = weight * row[n]
            for m in range(n, count):
                table[n][m] += part * row[m]
            table[n][count] += part * value
    for n in range(count):
        for m in range(n):
            table[n][m] = table[m][n]
    return table


def _not_negative(table: Sequence[Sequence[float]]) -> list[float] | None:
    """Unknowns that come out below zero are zero, the worst one first."""
    found = [0.0] * len(table)
    kept = list(range(len(table)))
    while kept:
        some = _solved([[table[n][m] for m in (*kept, -1)] for n in kept])
        if some is None:
            return None
        worst = min(range(len(kept)), key=lambda n: some[n])
        if some[worst] >= 0.0:
            for place, value in zip(kept, some, strict=True):
                found[place] = value
            break
        del kept[worst]
    return found


def _solved(table: list[list[float]]) -> list[float] | None:
    """By Gaussian elimination with pivots; None where they do not tell."""
    count = len(table)
    biggest = max(table[n][n] for n in range(count))
    for n in range(count):
        pivot = max(range(n, count), key=lambda m: abs(table[m][n]))
        if abs(table[pivot][n]) <= 1e-9 * biggest:
            return None
        table[n], table[pivot] = table[pivot], table[n]
        for m in range(count):
            if m != n and (factor := table[m][n] / table[n][n]):
                table[m] = [a - factor * b for a, b in zip(table[m], table[n], strict=True)]
    return [table[n][count] / table[n][n] for n in range(count)]


def _dot(row: Sequence[float], x: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(row, x, strict=True))
