"""`python -m bench.simulator [--port N] [--port-file FILE]`: print the port, then serve until SIGTERM."""

from __future__ import annotations

from bench.serve import serve
from bench.simulator import Simulator

if __name__ == "__main__":
    serve(Simulator, "Answer like an OpenAI-compatible model server, well or badly, as each request asks for.")
