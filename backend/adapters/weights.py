"""``adapter_model.safetensors``, streamed: every tensor's format, shape and largest number, in one pass.

The only module here that needs numpy and safetensors. safetensors checks that the file holds together; the numbers
are then read by us, as bits: of IEEE floats, bfloat16 too (which numpy has not), the largest magnitude is the largest
integer once the sign is masked, and everything from an all-ones exponent on is infinity or NaN.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from backend.adapters.finding import Finding, error, shown
from backend.adapters.tensors import DTYPES, Tensor, Weights, sort_out

_CHUNK: Final = 4 * 1024 * 1024
_LONGEST_HEADER: Final = 32 * 1024 * 1024
_PICKLES: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_BITS: Final = {"F32": ("<u4", 0x7FFF_FFFF), "F16": ("<u2", 0x7FFF), "BF16": ("<u2", 0x7FFF)}
_AGAIN: Final = "Export the adapter again, or copy it again if it was cut short."


class _Damaged(Exception):
    """The file cannot be read as safetensors. Carries why."""


def read_weights(path: Path, on_bytes: Callable[[int], None]) -> tuple[Weights | None, list[Finding]]:
    """All that is said about the file; ``on_bytes`` is told how many bytes more were read. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(_PICKLES):
            message = f"{path.name} is no safetensors file but a pickle, which may run code where it is loaded"
            return None, [error("pickle", message, "Save with safe_serialization=True, which is PEFT's default.")]
        try:
            header, begin = _header(path, file, start)
            unknown = sorted({shown(entry["dtype"]) for entry in header.values() if entry["dtype"] not in DTYPES})
            if unknown:
                message = f"the tensors are kept as {', '.join(unknown)}; {', '.join(DTYPES)} are understood"
                return None, [error("dtype-unknown", message, "Save them in the base's format.")]
            digest = hashlib.blake2b(digest_size=16)
            tensors = []
            for name, entry in sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0])):
                shape = tuple(map(int, entry["shape"]))
                digest.update(f"{name}\0{entry['dtype']}\0{shape}\0".encode())
                first, end = entry["data_offsets"]
                file.seek(begin + first)
                largest = _largest(file, end - first, entry["dtype"], digest, on_bytes)
                tensors.append(Tensor(name, entry["dtype"], shape, largest))
        except _Damaged as damaged:
            return None, [error("weights-unreadable", f"{path.name} cannot be read: {damaged}", _AGAIN)]
        return sort_out(path.stat().st_size, digest.hexdigest(), tensors)


def _header(path: Path, file: BufferedReader, start: bytes) -> tuple[dict[str, Any], int]:
    """Each tensor's entry, and where the data begins. The format: 8 bytes of length, JSON, data."""
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > _LONGEST_HEADER:
        raise _Damaged("it does not begin as a safetensors file does")
    try:
        with safe_open(path, framework="np") as checked:
            checked.keys()
        header = json.loads(file.read(length))
    except (SafetensorError, ValueError, RecursionError) as problem:
        raise _Damaged(shown(str(problem))) from None
    header.pop("__metadata__", None)
    return header, 8 + length


def _largest(file: BufferedReader, length: int, dtype: str, digest: Any, on_bytes: Callable[[int], None]) -> float:
    """The largest magnitude in the next ``length`` bytes; 0 where there are none."""
    kind, mask = _BITS[dtype]
    largest = 0
    buffer = memoryview(bytearray(min(length, _CHUNK)))
    while length > 0:
        part = buffer[: min(length, _CHUNK)]
        if file.readinto(part) != len(part):
            raise _Damaged("it ended while it was read")
        digest.update(part)
        bits = np.frombuffer(part, dtype=kind)
        np.bitwise_and(bits, bits.dtype.type(mask), out=bits)
        largest = max(largest, int(bits.max()))
        length -= len(part)
        on_bytes(len(part))
    return _number(largest, dtype)


def _number(bits: int, dtype: str) -> float:
    if dtype == "F16":
        (value,) = struct.unpack("<e", struct.pack("<H", bits))
    else:
        (value,) = struct.unpack("<f", struct.pack("<I", bits << 16 if dtype == "BF16" else bits))
    return float(value)
