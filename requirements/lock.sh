#!/usr/bin/env bash
# Pin every dependency, with hashes, for all the Pythons we support; run it from the root with `make lock`.
# core.txt is what `make serve` installs; dev.txt adds the model formats, real clients, tests and checks. One
# resolution serves both, so that installing the second never moves a version of the first. PyTorch is left out:
# its default wheels bring gigabytes of CUDA libraries that no test here needs.
set -euo pipefail

pin=(uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header
     --no-emit-index-url --no-annotate "$@")

"${pin[@]}" --extra sklearn --extra xgboost --extra lightgbm --extra mlflow --extra postgres --extra signing --extra s3 \
    --extra oidc --extra grpc --extra redis --extra patterns --extra nats --extra kafka --extra batch \
    --extra examples --group dev \
    --output-file requirements/dev.txt
"${pin[@]}" --group build --constraints requirements/dev.txt --output-file requirements/core.txt
