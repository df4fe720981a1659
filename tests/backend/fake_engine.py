"""Stands in for the interpreter of vLLM's environment: says a version, prints what a start prints, serves, and fails.

How it fails comes by its environment, as `failsoft backend launch` lets no flag through that vLLM does not know:
FAKE_VLLM_SAYS: print this and end with status 1. FAKE_VLLM_DEAF: ignore SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

if "-c" in sys.argv:  # asked for its version
    print(os.environ.get("FAKE_VLLM_VERSION", "0.32.0"))
    sys.exit()

START = """\
INFO [cpu_model_runner.py:68] Starting to load model /models/tiny...
Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00]
\rLoading safetensors checkpoint shards: 100% Completed | 2/2 [00:01<00:00]
INFO [default_loader.py:501] Loading weights took 0.01 seconds
INFO [kv_cache_utils.py:2327] GPU KV cache size: 524,288 tokens
Capturing CUDA graphs (decode, FULL): 100%|##| 35/35
INFO [core.py:402] init engine (profile, create kv cache, warmup model) took 2.50 s
INFO [serving.py:226] Loaded new LoRA adapter: name 'acme_v3', path '/adapters/acme_v3'
INFO [entry.py:140] Starting vLLM server on http://127.0.0.1:8000
"""
KEY = os.environ.get("VLLM_API_KEY")  # as vLLM has it, an empty one is none

# vLLM sets the title of its engine's process.
engine = subprocess.Popen(["VLLM::EngineCore", "600"], executable="/bin/sleep")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        about = {
            "api": os.getpid(),
            "engine": engine.pid,
            "arguments": sys.argv,
            "environment": {name: value for name, value in os.environ.items() if name.startswith(("VLLM", "HF"))},
        }
        self._say(200, json.dumps(about).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = not KEY or self.headers["authorization"] == f"Bearer {KEY}"
        self._say(200 if known and body["model"] == "base" else 401)

    def _say(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The probe's requests are of no interest."""


def drain(number: int, frame: FrameType | None) -> None:
    print("drained", flush=True)
    engine.kill()
    os._exit(0)  # noqa: TID251 - the server blocks this thread


print(START, flush=True)
if says := os.environ.get("FAKE_VLLM_SAYS"):
    sys.exit(says)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "FAKE_VLLM_DEAF" in os.environ else drain)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
