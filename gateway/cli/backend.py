"""`failsoft backend`: vLLM boxes, and the adapters that they serve."""

from __future__ import annotations

import typer

from gateway.cli.backend_check import check
from gateway.cli.backend_command import command
from gateway.cli.backend_launch import launch
from gateway.cli.backend_sync import sync

app = typer.Typer(
    help="Start vLLM boxes right, check adapters, and get them onto boxes that serve.", no_args_is_help=True
)
app.command()(check)
app.command()(command)
app.command()(launch)
app.command()(sync)
