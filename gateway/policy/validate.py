"""From a folder of YAML to a :class:`PolicySet`, or to every reason why not.

A folder holds ``fleet.yaml``, ``defaults.yaml`` (may be left out) and ``customers/*.yaml``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from gateway.clock import today_utc
from gateway.errors import PolicyError
from gateway.policy.alone import Alone
from gateway.policy.crosscheck import crosscheck, crosscheck_general, in_fleets
from gateway.policy.diagnostics import Diagnostic, Finding, Location, Part, Severity, key_path
from gateway.policy.model_errors import findings
from gateway.policy.models import CustomerFile, DefaultsFile, FleetFile, Keys, Rules
from gateway.policy.policy_set import PolicySet, Unread
from gateway.policy.quick_source import read_quickly
from gateway.policy.read_ahead import Ahead
from gateway.policy.salvage import Gaps, salvage
from gateway.policy.source import Document, Node, Problem, SourceError, decode, read_bounded, read_yaml
from gateway.policy.strays import CUSTOMERS, DEFAULTS, FLEET, strays
from gateway.policy.together import distinct, facts

ReadAhead = Callable[[Sequence[Path], Alone], Mapping[Path, Ahead]]

_Model = TypeVar("_Model", bound=Keys)


class _File:
    """One file as read. ``relative``: its path in the folder; ``values``: what it says."""

    def __init__(self, path: Path, relative: str, text: str) -> None:
        self.path = path
        self.relative = relative
        self.text = text
        self.values: object = None

    def read(self) -> None:
        """Have its values. Raises SourceError where it has no usable shape."""
        self.values = read_quickly(self.text)
        if self.values is None:
            root = self.document.root
            self.values = root.plain() if root is not None else None

    def take_values(self) -> object:
        """What it says, once: it is not kept."""
        values, self.values = self.values, None
        return values

    @cached_property
    def document(self) -> Document:
        """With the places, where somebody asks for them. Raises SourceError where it has no usable shape."""
        return read_yaml(self.text)

    @property
    def problems(self) -> list[Problem]:
        """What its reader has found; nothing where it could be read quickly."""
        return self.document.problems if "document" in self.__dict__ else []


def policy_files(folder: Path) -> Iterator[Path]:
    """The files that make up the policies of ``folder``, those that exist, in order. Raises OSError."""
    for name in (FLEET, DEFAULTS):
        if (folder / name).exists():
            yield folder / name
    if (folder / CUSTOMERS).is_dir():
        customers = folder / CUSTOMERS
        # By name and not by path: paths compare slowly, and there may be thousands.
        names = sorted(name for name in _names(customers) if name.endswith(".yaml") and name[0] != ".")
        yield from (customers / name for name in names)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def read_folder(folder: Path, *, ahead: ReadAhead = lambda paths, alone: {}) -> PolicySet:
    """The policies in ``folder``. Raises PolicyError, which carries every diagnostic and not only the first.

    ``ahead``: may read customers' files beforehand (:func:`gateway.policy.read_ahead.read_ahead`).
    """
    return _Folder(folder, ahead).read()


def read_to_write(folder: Path) -> PolicySet:
    """The same, with what the store keeps of it at hand: of thousands of customers that takes a tenth of a second."""
    policy_set = read_folder(folder)
    _ = policy_set.deflated
    return policy_set


class _Folder:
    def __init__(self, folder: Path, ahead: ReadAhead) -> None:
        self._folder = folder
        self._read_ahead = ahead
        self._diagnostics: list[Diagnostic] = []
        self._files: dict[Part, _File] = {}
        self._gaps = Gaps()

    def read(self) -> PolicySet:
        try:
            present = list(policy_files(self._folder))
            self._diagnostics += strays(self._folder)
        except OSError as error:
            present = []
            self._report(self._folder, f"cannot be read: {error.strerror or error}")
        else:
            self._missing(present)
        # There may be thousands of customers, to compare whose paths takes long.
        general = sum(path.parent == self._folder for path in present[:2])
        fleet, defaults = self._general(present[:general])
        of_customers = present[general:]
        # What a slip has made of the rest is nothing to measure customers by.
        ahead = {} if self._gaps else self._read_ahead(of_customers, Alone(fleet, defaults.defaults))
        if of_customers and len(ahead) == len(of_customers) and all(one.in_order for one in ahead.values()):
            in_order = {path.name: ahead[path] for path in of_customers}
            if (found := self._together(fleet, defaults.defaults, in_order)) is not None:
                return found
        customers: list[CustomerFile] = []
        documents: dict[str, bytes] = {}
        for path in of_customers:
            relative = f"{CUSTOMERS}/{path.name}"
            if (known := ahead.get(path)) is not None:
                self._files[len(customers)] = _File(path, relative, known.text)
                customer = known.customer
                documents[customer.customer] = known.document
                self._named_after(len(customers), customer)
                customers.append(customer)
                continue
            if (opened := self._open(path, relative)) is None:
                continue
            if (loaded := self._load(opened, CustomerFile, len(customers))) is not None:
                self._named_after(len(customers), loaded)
                customers.append(loaded)
        self._take(crosscheck(fleet, defaults.defaults, customers, self._locate, today=today_utc()))
        self._settle()
        sources = {file.relative: file.text for file in self._files.values()}
        everybody = tuple(customers)
        warnings = tuple(self._diagnostics)
        return PolicySet(fleet, defaults.defaults, everybody, sources, warnings).found_good(documents)

    def _general(self, paths: Sequence[Path]) -> tuple[FleetFile, DefaultsFile]:
        """What all have in common, as far as it is readable."""
        fleet: FleetFile | None = None
        defaults: DefaultsFile | None = None
        for path in paths:
            if (file := self._open(path, path.name)) is None:
                continue
            if path.name == FLEET:
                fleet = self._load(file, FleetFile, "fleet")
            else:
                defaults = self._load(file, DefaultsFile, "defaults")
        if fleet is None:
            fleet = salvage(None, FleetFile, FLEET).model
            self._gaps.add("fleet", [()])
        if defaults is None and any(path.name == DEFAULTS for path in paths):
            self._gaps.add("defaults", [()])
        return fleet, defaults or DefaultsFile()

    def _together(self, fleet: FleetFile, defaults: Rules, files: Mapping[str, Ahead]) -> PolicySet | None:
        """The set, of ``files`` by their names whose customers are in order each by itself, and are together too.

        None where a closer look is needed. Raises PolicyError.
        """
        read = [facts(one.document) for one in files.values()]
        names = [one.customer for one in read]
        keys = [digest for one in read for digest in one.digests]
        keys += [token.sha256 for token in fleet.admin_tokens]
        adapters = [adapter for one in read for adapter in one.adapters]
        aliases = (alias for one in read for alias in one.aliases)
        if [*files] != [f"{name}.yaml" for name in names]:
            return None
        today = today_utc()
        if not distinct(names, keys, adapters, aliases) or any(one.is_over(today) for one in read):
            return None
        self._take(crosscheck_general(fleet, defaults, Counter(in_fleets(read, fleet)), today))
        self._settle()
        sources = {file.relative: file.text for file in self._files.values()}
        sources |= {f"{CUSTOMERS}/{name}": one.text for name, one in files.items()}
        documents = {name: one.document for name, one in zip(names, files.values(), strict=True)}
        customers = Unread(documents.values(), len(adapters))
        found = PolicySet(fleet, defaults, customers, sources, tuple(self._diagnostics))
        return found.found_good(documents, proven=True)

    def _take(self, found: Iterable[Finding]) -> None:
        self._diagnostics += dict.fromkeys(self._place(one) for one in found if not self._gaps.explain(one))

    def _settle(self) -> None:
        """All has been looked at. Raises PolicyError."""
        self._diagnostics.sort(key=lambda d: (d.file, d.line, d.column))
        if any(d.severity == "error" for d in self._diagnostics):
            raise PolicyError(tuple(self._diagnostics))

    def _report(self, path: Path, message: str, hint: str = "", severity: Severity = "error") -> None:
        self._diagnostics.append(Diagnostic(str(path), 0, 0, "", message, hint, severity))

    def _missing(self, paths: Sequence[Path]) -> None:
        if not self._folder.is_dir():
            what = "is not a folder" if self._folder.exists() else "does not exist"
            self._report(self._folder, what, f"create it with {FLEET} and {CUSTOMERS}/NAME.yaml in it")
            return
        if self._folder / FLEET not in paths[:1]:
            self._report(
                self._folder / FLEET, "is missing", "create it: it names the fleets, their boxes and the providers"
            )
        if not any(path.parent.name == CUSTOMERS for path in paths):
            place = self._folder / CUSTOMERS
            self._report(
                place, "there is no customer", f"create {place / 'NAME.yaml'} with customer, api_keys and adapters"
            )

    def _open(self, path: Path, relative: str) -> _File | None:
        try:
            file = _File(path, relative, decode(read_bounded(path)))
            file.read()
        except OSError as error:
            self._report(path, f"cannot be read: {error.strerror or error}")
            return None
        except SourceError as error:
            self._diagnostics.append(Diagnostic(str(path), error.line, error.column, "", error.message, error.hint))
            return None
        self._diagnostics += [
            Diagnostic(str(path), p.line, p.column, key_path(p.at), p.message, p.hint) for p in file.problems
        ]
        return file

    def _load(self, file: _File, model: type[_Model], part: Part) -> _Model | None:
        self._files[part] = file
        if file.values is None and model is DefaultsFile:
            return model()
        if not isinstance(file.values, dict):
            what = "is empty" if file.values is None else "is not a mapping"
            required = ", ".join(name for name, info in model.model_fields.items() if info.is_required())
            self._report(
                file.path, what, f"it needs the keys {required}" if "," in required else f"it needs {required}:"
            )
            return None
        values, problems = file.take_values(), file.problems
        try:
            found = model.model_validate(values)
            if not problems:
                return found
        except ValidationError as error:
            self._diagnostics += [self._place(finding) for finding in findings(error, model, part)]
        salvaged = salvage(values, model, file.relative, [problem.at for problem in problems])
        self._gaps.add(part, salvaged.gaps)
        return salvaged.model

    def _named_after(self, part: Part, customer: CustomerFile) -> None:
        file = self._files[part]
        if file.path.name != f"{customer.customer}.yaml" and not self._gaps.has(part, ("customer",)):
            message = f"customer {customer.customer} is in a file of another name"
            line, column = locate(file.document.root, ("customer",))
            hint = f"{customer.customer}.yaml is where people will look"
            self._diagnostics.append(Diagnostic(str(file.path), line, column, "customer", message, hint, "warning"))

    def _place(self, finding: Finding) -> Diagnostic:
        file = self._files[finding.part]
        line, column = locate(file.document.root, finding.at)
        return Diagnostic(
            str(file.path), line, column, key_path(finding.at), finding.message, finding.hint, finding.severity
        )

    def _locate(self, part: Part, at: Location) -> str:
        file = self._files[part]
        line, column = locate(file.document.root, at)
        return f"{file.path}:{line}:{column}"


def locate(root: Node | None, at: Location) -> tuple[int, int]:
    """Line and column of the key, or of the item, that ``at`` leads to; of its nearest parent where it is missing."""
    place = (1, 1)
    node = root
    for part in at:
        entry = node.child(part) if node is not None else None
        if entry is None:
            break
        place, node = (entry.line, entry.column), entry.node
    return place
