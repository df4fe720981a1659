"""How a run of `failsoft eval` asks what has no answer yet, and what it says where that cannot go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from backend.evalgate.case import Case, in_turns
from backend.evalgate.folder import BadFolder, Key, RunFolder
from backend.evalgate.result import keys
from backend.evalgate.run import Lost, Run
from backend.evalgate.said import Said
from backend.evalgate.verdict import judge
from gateway.cli.eval.screen import progress
from gateway.cli.eval.terms import INTERRUPTED
from gateway.cli.exit_codes import MISUSE, UNREACHABLE
from gateway.cli.speech import failure, say


@contextmanager
def trouble_told(out: Path) -> Iterator[None]:
    """Around a run in the folder ``out``. Raises typer.Exit, having said what is wrong and what goes on."""
    try:
        yield
    except BadFolder as error:
        raise failure(str(error), MISUSE) from None
    except OSError as error:
        raise failure(f"{out}: {error}", MISUSE) from None
    except Lost as error:
        raise failure(f"{error}. What was answered is kept: the same command goes on", UNREACHABLE) from None
    except KeyboardInterrupt:
        say("interrupted; what was answered is kept: the same command goes on", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


async def ask_the_rest(
    folder: RunFolder,
    sides: Iterable[str],
    cases: Sequence[Case],
    samples: int,
    ask: Callable[[Key, Case], Awaitable[Said]],
    *,
    concurrency: int,
    quiet: bool,
) -> None:
    """Have each of ``sides`` asked each case so often, as far as ``folder`` has no answer, and keep what is said.

    Raises Lost.
    """
    of_key = {case.key: case for case in cases}
    answers = folder.answers()
    if answers:
        say(f"going on: {len(answers)} answers are there already")
    wanted = list(keys(sides, in_turns(cases), samples))
    left = [key for key in wanted if key not in answers]
    totals = Counter(key[0] for key in wanted)
    with progress(totals, totals - Counter(key[0] for key in left), shown=not quiet) as on_answer:

        def case_of(key: Key) -> Case:
            return of_key[key[1], key[2]]

        def add(key: Key, said: Said) -> None:
            folder.add(key, said)
            on_answer(key[0], judge(case_of(key), said).right)

        await Run[Key](lambda key: ask(key, case_of(key)), add).through(left, concurrency=concurrency)
