"""`failsoft policies new` and `new-key`: files for people to edit, and API keys that are shown once."""

from __future__ import annotations

import datetime as dt
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.policies.terms import AsJson, print_json, read, show_diagnostics
from gateway.cli.speech import failure, say
from gateway.clock import today_utc
from gateway.policy.crosscheck import by_name, crosscheck
from gateway.policy.diagnostics import Diagnostic, key_path
from gateway.policy.key_insertion import NoPlace, with_key
from gateway.policy.model_errors import findings
from gateway.policy.models import ApiKeyEntry, CustomerFile, FleetFile, Rules
from gateway.policy.names import check_name
from gateway.policy.new_customer import customer_text, fresh_key, key_entry
from gateway.policy.schema import schema_text
from gateway.policy.source import SourceError, decode, read_yaml
from gateway.policy.strays import CUSTOMERS, FLEET

SCHEMA = "schema.json"
EMPTY = "policies"

Customer = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's name.")]
Dir = Annotated[Path, typer.Option("--dir", help="Folder with fleet.yaml and customers/.")]
KEPT_NOWHERE = "the API key is on the next line, and kept nowhere: it cannot be shown again"


def new(
    customer: Customer,
    directory: Dir = Path(EMPTY),
    adapter: Annotated[
        list[str] | None, typer.Option(help="An adapter's name; may be given several times. [customer_CUSTOMER_v1]")
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="Which fleet serves them, where there are several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented file for a new customer, and print its fresh API key, once, on stdout.

    Exits with 1, and writes nothing, where there is such a customer already or the file would not be valid.
    """
    path = _file(customer, directory)
    if path.exists():
        raise failure(f"{path} is there already; nothing was written", FOUND_WRONG)
    known = _fleet_file(directory)
    fleets = tuple(known.fleets) if known is not None else ()
    if fleet is None and len(fleets) > 1:
        raise typer.BadParameter(f"there are several fleets: choose {' or '.join(fleets)}", param_hint="--fleet")
    key, digest = fresh_key()
    text = customer_text(
        customer,
        digest,
        adapters=adapter or [f"customer_{customer}_v1"],
        fleet=fleet,
        provider=next(iter(known.providers), None) if known is not None else "hosted",
    )
    _refuse_invalid(path, text, known, directory)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        if not (directory / SCHEMA).exists():
            (directory / SCHEMA).write_text(schema_text(), "utf-8")
    except OSError as error:
        raise failure(f"{error.filename} cannot be written: {error.strerror}", FOUND_WRONG) from None
    say(f"{path} is written; read it, commit it, and: failsoft policies apply {directory}", style="green")
    if known is None:
        say(f"{directory / FLEET} is missing or has errors: failsoft policies validate {directory}", style="yellow")
    _hand_over(key, {"customer": customer, "file": str(path), "key": key, "sha256": digest}, as_json=as_json)


def new_key(
    customer: Customer,
    directory: Dir = Path(EMPTY),
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The last day on which it is valid, UTC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a further API key to a customer's file, and print it, once, on stdout. All else in the file stays as it is.

    To rotate a key: add one, apply, have the customer change over, take the old line out, apply.
    """
    path = _file(customer, directory)
    until = _day(expires)
    text, before = _customer_file(path, customer)
    if name is not None and any(known.name == name for known in before.keys):
        raise failure(f"{path} has a key {name} already; nothing was written", FOUND_WRONG)
    key, digest = fresh_key()
    try:
        ApiKeyEntry(sha256=digest, name=name, expires=until)
    except ValidationError:
        raise typer.BadParameter("give the key a name, or none", param_hint="--name") from None
    entry = key_entry(digest, name, until)
    try:
        _replace(path, with_key(text, entry))
    except NoPlace as error:
        say(f"{path} was left as it is: {error}. Add this to its api_keys:\n  - {entry}", style="yellow")
        _hand_over(key, {"customer": customer, "key": key, "sha256": digest, "entry": entry}, as_json=as_json)
        raise typer.Exit(FOUND_WRONG) from None
    say(f"{path} has the key now; commit it, and: failsoft policies apply {directory}", style="green")
    facts = {"customer": customer, "file": str(path), "key": key, "sha256": digest, "entry": entry}
    _hand_over(key, facts, as_json=as_json)


def _hand_over(key: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    say(KEPT_NOWHERE, style="bold")
    sys.stdout.write(f"{key}\n")


def _file(customer: str, directory: Path) -> Path:
    try:
        check_name(customer)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="CUSTOMER") from None
    if not directory.is_dir():
        raise typer.BadParameter(f"{directory} is not a folder", param_hint="--dir")
    return directory / CUSTOMERS / f"{customer}.yaml"


def _day(expires: str | None) -> dt.date | None:
    if expires is None:
        return None
    try:
        day = dt.date.fromisoformat(expires)
    except ValueError:
        raise typer.BadParameter("write a day, such as 2027-01-01", param_hint="--expires") from None
    if day < today_utc():
        raise typer.BadParameter(f"{day} is over already", param_hint="--expires")
    return day


def _fleet_file(directory: Path) -> FleetFile | None:
    """None where it is missing or wrong, which `validate` says better."""
    try:
        root = read_yaml(decode((directory / FLEET).read_bytes())).root
        return FleetFile.model_validate(root.plain()) if root is not None else None
    except (OSError, SourceError, ValidationError):
        return None


def _refuse_invalid(path: Path, text: str, fleet: FleetFile | None, directory: Path) -> None:
    """Raises typer.Exit where the file would not be valid beside the others."""
    root = read_yaml(text).root
    plain = root.plain() if root is not None else {}
    wrong: list[Diagnostic] = []
    try:
        customer = CustomerFile.model_validate(plain)
    except ValidationError as error:
        wrong = [_diagnostic(path, found.at, found.message, found.hint) for found in findings(error, CustomerFile, 0)]
    else:
        others, _ = read(directory) if fleet is not None else (None, ())
        everybody = (*(others.customers if others is not None else ()), customer)
        rules = others.defaults if others is not None else Rules()
        wrong = [
            _diagnostic(path, found.at, found.message, found.hint)
            for found in (crosscheck(fleet, rules, everybody, by_name(everybody)) if fleet is not None else ())
            if found.severity == "error" and found.part == len(everybody) - 1
        ]
    if wrong:
        show_diagnostics(wrong)
        raise failure("nothing was written", FOUND_WRONG)


def _diagnostic(path: Path, at: tuple[str | int, ...], message: str, hint: str) -> Diagnostic:
    return Diagnostic(str(path), 0, 0, key_path(at), message, hint)


def _customer_file(path: Path, customer: str) -> tuple[str, CustomerFile]:
    try:
        text = decode(path.read_bytes())
        root = read_yaml(text).root
        found = CustomerFile.model_validate(root.plain() if root is not None else {})
    except FileNotFoundError:
        message = f"{path} does not exist: failsoft policies new {customer} writes it"
        raise failure(message, FOUND_WRONG) from None
    except OSError as error:
        raise failure(f"{path} cannot be read: {error.strerror}", FOUND_WRONG) from None
    except (SourceError, ValidationError):
        message = f"{path} has errors: failsoft policies validate {path.parent.parent}"
        raise failure(message, FOUND_WRONG) from None
    return text, found


def _replace(path: Path, text: str) -> None:
    """The whole file, or as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        temporary.write_bytes(text.encode())
        temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path.resolve())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise failure(f"{path} cannot be written: {error.strerror}", FOUND_WRONG) from None
