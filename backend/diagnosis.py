"""Why a vLLM server ended, read off the end of its log. Pure.

The messages are those of vLLM 0.32, of torch and of Python. The first entry that fits is taken: causes stand before
what they lead to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OUT_OF_GPU: Final = (
    "lower engine.gpu_memory_utilization, max_num_seqs or max_loras, or see with nvidia-smi who else uses the GPU"
)
_NO_ROOM: Final = "raise engine.gpu_memory_utilization, or lower engine.max_model_len, max_num_seqs or max_loras"
_NO_MODEL: Final = "put the model's folder where model_path of the fleet says, or correct model_path"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``cause``: what happened. ``advice``: what to do. ``lasting``: another start would end the same way."""

    cause: str
    advice: str
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: re.Pattern[str]
    cause: str
    advice: str
    lasting: bool = True


def _known(pattern: str, cause: str, advice: str, *, lasting: bool = True) -> _Known:
    return _Known(re.compile(pattern), cause, advice, lasting)


_CATALOGUE: Final = (
    _known(
        r"error: unrecognized arguments: (?P<what>[^\n]{1,200})",
        "vLLM does not know {what}",
        "take it out of engine.extra; `failsoft backend command` says what took its place",
    ),
    _known(r"error: (?P<what>argument [^\n]{1,300})", "vLLM refuses an {what}", "correct that key of engine"),
    _known(
        r"invalid tool call parser: (?P<what>[^\n(]{1,80})",
        "vLLM has no tool parser {what}",
        "correct engine.tool_call_parser; the log lists those that there are",
    ),
    _known(
        r"No module named '(?P<what>vllm[\w.]*)'",
        "the interpreter has no module {what}",
        "name the one of vLLM's environment with --python, or its program with --vllm",
    ),
    _known(
        r"Address already in use|address already in use",
        "another process listens on the box's port",
        "end it, as by `ss -ltnp` shown, or change the port in the box's url",
        lasting=False,
    ),
    _known(
        r"Cannot assign requested address|could not bind on any address",
        "this machine has not got the address in the box's url",
        "start it on the box itself, or set engine.listen: 0.0.0.0",
    ),
    _known(
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",
        "an adapter has rank {rank}, and max_lora_rank is {most}",
        "raise max_lora_rank of the fleet; `failsoft backend check` finds which one it is",
    ),
    _known(
        r"No adapter found for (?P<what>[^\n]{1,300})",
        "there is no adapter in {what}",
        "put it there, or take it out of the policies",
    ),
    _known(
        r"Loading lora (?P<what>\S{1,256}) failed: (?P<why>[^\n]{1,200})",
        "the adapter {what} cannot be loaded: {why}",
        "`failsoft backend check` says what is wrong with it",
    ),
    _known(
        r"Call to add_lora method failed: (?P<why>[^\n]{1,200})",
        "an adapter cannot be loaded: {why}",
        "`failsoft backend check` finds which one, and what is wrong with it",
    ),
    _known(
        r"is not a local folder and is not a valid model identifier|Repo id must be in the form"
        r"|Invalid repository ID or local directory|does not appear to have a file named config\.json"
        r"|OfflineModeIsEnabled|LocalEntryNotFoundError|No such file or directory: '[^'\n]*config\.json'",
        "the model is not there",
        _NO_MODEL,
    ),
    _known(r"less than desired GPU memory utilization", "the GPU has not got that much memory free", _OUT_OF_GPU),
    _known(
        r"No available memory for the cache blocks|larger than the available KV cache|on kv cache allocation is less",
        "there is no memory left for the KV cache",
        _NO_ROOM,
    ),
    _known(
        r"CUDA out of memory|HIP out of memory|OutOfMemoryError|not enough GPU memory",
        "the GPU is out of memory",
        _OUT_OF_GPU,
    ),
    _known(
        r"\bMemoryError\b|Cannot allocate memory", "the machine is out of memory", "free some, or lower max_cpu_loras"
    ),
    _known(
        r"No space left on device",
        "a file system is full",
        "free some; in a container /dev/shm has to be larger (--shm-size)",
    ),
    _known(
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type|libcuda\.so",
        "vLLM sees no GPU",
        "see that nvidia-smi shows one, and that CUDA_VISIBLE_DEVICES does not hide it",
    ),
    _known(
        r"torchvision::nms does not exist",
        "torchvision does not fit this torch",
        "remove torchvision from the engine's environment",
    ),
    _known(
        r"max_model_len[^\n]{0,80}is greater than the derived",
        "engine.max_model_len is more than the model was made for",
        "lower it",
    ),
    _known(
        r"(?:NCCL error|ncclSystemError|ncclUnhandledCudaError)",
        "the GPUs of this box cannot talk to each other",
        "see the log; tensor_parallel_size may be more than there are",
        lasting=False,
    ),
    _known(
        r"CUDA error: (?P<what>[^\n]{1,160})",
        "the GPU failed: {what}",
        "see dmesg for Xid errors; a GPU that keeps failing needs a reset",
        lasting=False,
    ),
    _known(r"Permission denied: '(?P<what>[^'\n]{1,300})'", "{what} may not be read", "let vLLM's user read it"),
)


def diagnose(log: str, status: int) -> Diagnosis | None:
    """The cause that the log of one life shows; None where it shows none that is known.

    ``status``: how the process ended, negative for a signal that was not ours.
    """
    for known in _CATALOGUE:
        if (found := known.pattern.search(log)) is not None:
            words = {name: value.strip() for name, value in found.groupdict().items()}
            return Diagnosis(known.cause.format(**words), known.advice, known.lasting)
    if status == -9:
        advice = "see dmesg: the kernel kills what takes the last memory"
        return Diagnosis("it was killed with SIGKILL", advice, lasting=False)
    return None
