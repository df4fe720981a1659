"""`failsoft backend`: everything about the boxes."""

from __future__ import annotations

import typer

from gateway.cli.backend_check import check

app = typer.Typer(help="Everything about the boxes: check adapters before they are loaded.", no_args_is_help=True)
app.command("check")(check)


@app.callback()
def _group() -> None:
    """Everything about the boxes: check adapters before they are loaded."""
