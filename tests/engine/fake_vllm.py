"""Stands in for the engine's interpreter: takes vLLM's command line and starts the same family of processes."""

import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

if "--broken" in sys.argv:
    sys.exit("no such adapter")

# vLLM sets the title of its engine's process.
engine = subprocess.Popen(["VLLM::EngineCore", "600"], executable="/bin/sleep")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._say(200 if "--tokenless" not in sys.argv else 500)

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("interpreter path:", os.environ["PYTHONPATH"], flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
