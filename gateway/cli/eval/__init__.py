"""`failsoft eval`: whether two serving paths give the same tool calls, customer by customer."""

from __future__ import annotations

import typer

from gateway.cli.eval.publish import publish
from gateway.cli.eval.report import report
from gateway.cli.eval.run import run
from gateway.cli.eval.tune import tune

app = typer.Typer(
    help="Compare two serving paths on customers' eval sets, and hold up the one that is worse.", no_args_is_help=True
)
app.command()(run)
app.command()(report)
app.command()(publish)
app.command()(tune)
