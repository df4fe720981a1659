"""``failsoft simulate-box``, also ``python -m backend.simulator``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from backend.simulator.box import Box
from backend.simulator.engine import Pace
from backend.simulator.engine_knobs import BadKnobs, ModelKnobs, make_engine
from backend.simulator.faults import BadRule
from backend.simulator.replies import BadReplies, Replies
from backend.simulator.serve import rules_from, run, tls_context
from backend.simulator.server import Loading, ServerSettings

MISUSE = 2
UNREACHABLE = 3


def simulate_box(
    port: Annotated[int, typer.Option(help="Where it listens; 0 takes a free port.", min=0, max=65535)],
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    control_port: Annotated[
        int, typer.Option(help="A second port for /simulator/* alone, which no fault closes.", min=0, max=65535)
    ] = 0,
    name: Annotated[str, typer.Option(help="Its name in the line that says it is ready.")] = "box",
    base_model: Annotated[str, typer.Option(help="The served name of the base.")] = "base",
    adapter: Annotated[list[str] | None, typer.Option(help="An adapter that is loaded; repeatable.")] = None,
    any_adapter: Annotated[bool, typer.Option(help="Load any adapter that is asked for.")] = False,
    max_loras: Annotated[int, typer.Option(help="LoRA slots.", min=1)] = 8,
    api_key: Annotated[str | None, typer.Option(help="What /v1 has to be asked with.")] = None,
    ttft_ms: Annotated[float, typer.Option(help="Time to first token.", min=0)] = 0.0,
    itl_ms: Annotated[float, typer.Option(help="Inter-token latency.", min=0)] = 0.0,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer that no limit cuts.", min=2)] = 16,
    max_model_len: Annotated[
        int, typer.Option(help="The context's length in tokens (about words here).", min=1)
    ] = 8192,
    max_num_queued_reqs: Annotated[
        int | None, typer.Option(help="Requests in flight beyond which it says 503.", min=0)
    ] = None,
    faithful: Annotated[
        bool,
        typer.Option(
            help="Model vLLM's scheduler, its LoRA slots, KV cache and step times, instead of one fixed pace for "
            "everybody. Any of the knobs below switches it on too; without a value they are an 8B on an A100."
        ),
    ] = False,
    max_cpu_loras: Annotated[int | None, typer.Option(help="Adapters in the CPU pool [--max-loras].", min=1)] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Sequences that run at once [256].", min=1)] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Tokens of one step [2048].", min=1)] = None,
    kv_cache_tokens: Annotated[int | None, typer.Option(help="Tokens in the KV cache [400000].", min=16)] = None,
    swap_ms: Annotated[float | None, typer.Option(help="An adapter from the pool to a slot [40].", min=0)] = None,
    disk_load_ms: Annotated[float | None, typer.Option(help="From disk to the pool [400].", min=0)] = None,
    prefill_tokens_per_s: Annotated[float | None, typer.Option(help="Prompt tokens a second [10000].", min=1)] = None,
    decode_ms: Annotated[float | None, typer.Option(help="Any step [1.3].", min=0.001)] = None,
    decode_ms_per_seq: Annotated[float | None, typer.Option(help="Of each sequence [0.23].", min=0)] = None,
    decode_ms_per_adapter: Annotated[float | None, typer.Option(help="Of each adapter [0.02].", min=0)] = None,
    server_dev_mode: Annotated[
        bool, typer.Option(help="With /sleep, /wake_up and /is_sleeping; implies --faithful.")
    ] = False,
    runtime_loading: Annotated[
        bool, typer.Option(help="Let adapters be loaded and unloaded, as under VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.")
    ] = True,
    embeddings: Annotated[bool, typer.Option(help="With /v1/embeddings, as of a model that makes them.")] = False,
    start_delay_s: Annotated[float, typer.Option(help="How long it loads before it answers.", min=0)] = 0.0,
    loading: Annotated[Loading, typer.Option(help="What it does while it loads.")] = Loading.UNAVAILABLE,
    shutdown_timeout_s: Annotated[
        float,
        typer.Option(help="After SIGTERM running answers may finish for so long; with 0 they end in `abort`.", min=0),
    ] = 0.0,
    keep_alive_s: Annotated[float, typer.Option(help="Idle connections are closed after so long.", min=0)] = 5.0,
    journal: Annotated[int, typer.Option(help="So many requests are kept for /simulator/requests.", min=0)] = 10_000,
    seed: Annotated[int, typer.Option(help="For rules with a probability.")] = 0,
    replies: Annotated[
        Path | None, typer.Option(help="JSON lines: what is answered to which prompt (backend/simulator/replies.py).")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="A fault rule in JSON, from the start; repeatable.")] = None,
    certfile: Annotated[Path | None, typer.Option(help="Serve TLS with this PEM certificate.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, if it is in a file of its own.")] = None,
    exit_with_stdin: Annotated[bool, typer.Option(help="End when standard input ends.")] = False,
) -> None:
    """A vLLM box without a GPU: numbered answers, and faults on demand at /simulator/faults."""

    knobs = ModelKnobs(
        max_cpu_loras=max_cpu_loras,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_tokens=kv_cache_tokens,
        swap_ms=swap_ms,
        disk_load_ms=disk_load_ms,
        prefill_tokens_per_s=prefill_tokens_per_s,
        decode_ms=decode_ms,
        decode_ms_per_seq=decode_ms_per_seq,
        decode_ms_per_adapter=decode_ms_per_adapter,
    )

    def app() -> Box:
        engine = make_engine(
            knobs,
            modelled=faithful or server_dev_mode,
            base=base_model,
            adapters={name: f"/adapters/{name}" for name in adapter or ()},
            pace=Pace(ttft_ms / 1000, itl_ms / 1000, tokens),
            max_loras=max_loras,
            max_queued=max_num_queued_reqs,
            max_model_len=max_model_len,
        )
        return Box(
            engine,
            api_key=api_key,
            max_model_len=max_model_len,
            any_adapter=any_adapter,
            dev_mode=server_dev_mode,
            replies=Replies.read(replies) if replies is not None else None,
            runtime_loading=runtime_loading,
            embeddings=embeddings,
        )

    try:
        settings = ServerSettings(
            host=host,
            port=port,
            control_port=control_port,
            start_delay_s=start_delay_s,
            loading=loading,
            keep_alive_s=keep_alive_s,
            shutdown_timeout_s=shutdown_timeout_s,
            journal_capacity=journal,
            seed=seed,
            tls=tls_context(certfile, keyfile),
        )
        run(app, settings, name=name, rules=rules_from(fault or []), exit_with_stdin=exit_with_stdin)
    except (BadRule, BadKnobs, BadReplies) as error:
        sys.stderr.write(f"failsoft simulate-box: {error}\n")
        raise typer.Exit(MISUSE) from None
    except OSError as error:
        sys.stderr.write(f"failsoft simulate-box: cannot serve on {host}:{port}: {error}\n")
        raise typer.Exit(UNREACHABLE) from None
