"""`failsoft backend`: vLLM boxes, and the adapters that they serve."""

from __future__ import annotations

import typer

from gateway.cli.backend_check import check
from gateway.cli.backend_command import command
from gateway.cli.backend_launch import launch

app = typer.Typer(help="Start vLLM boxes right, and check adapters before they are loaded.", no_args_is_help=True)
app.command()(check)
app.command()(command)
app.command()(launch)
