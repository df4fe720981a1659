"""`failsoft policies`: write policies, check them, write them to the store, look back at earlier versions."""

from __future__ import annotations

import typer

from gateway.cli.admin_tokens import new_admin_token
from gateway.cli.policies import change, check, past, write

app = typer.Typer(help="Write policies, check and apply them, look back at earlier versions.", no_args_is_help=True)

app.command()(write.new)
app.command("new-key")(write.new_key)
app.command("new-admin-token")(new_admin_token)
app.command()(check.validate)
app.command()(check.schema)
app.command()(change.diff)
app.command()(change.apply)
app.command()(past.history)
app.command()(past.show)
app.command()(change.rollback)
