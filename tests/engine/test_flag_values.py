"""What the table of flags says that vLLM's flags take is what the installed vLLM's own parser takes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from backend.flag_values import CHOICE, FLOAT, INTEGER, SIZE
from backend.installed_vllm import find_vllm
from backend.vllm_flags import release

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ASK = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
actions = make_arg_parser(FlexibleArgumentParser())._option_string_actions
registered = {"--tool-call-parser": ToolParserManager, "--reasoning-parser": ReasoningParserManager}
def takes(action, word):
    try:
        action.type(word)
    except Exception:
        return False
    return True
found = {}
for flag in json.load(sys.stdin):
    if flag in registered:
        found[flag] = sorted(registered[flag].list_registered())
    elif actions[flag].choices:
        found[flag] = sorted(str(one) for one in actions[flag].choices if one is not None)
    else:
        found[flag] = [word for word in ("7", "7.5", "7k", "x") if takes(actions[flag], word)]
print("found", json.dumps(found))
"""
NUMBERS = {INTEGER: ["7"], FLOAT: ["7", "7.5"], SIZE: ["7", "7k"]}


def test_the_table_says_what_the_installed_parser_takes(engine_python: Path) -> None:
    of = release(find_vllm(engine_python, None).version)
    table = {flag.name: values for flag in of.flags if (values := of.values(flag)) is not None}
    assert len(table) > 80
    asked = subprocess.run(
        [str(engine_python), "-c", ASK],
        input=json.dumps(list(table)),
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONSAFEPATH": "1"},
        timeout=280,
        check=True,
    )
    found = json.loads(asked.stdout.rpartition("found ")[2])
    assert found == {flag: NUMBERS.get(values) or sorted(values.split(CHOICE)) for flag, values in table.items()}
