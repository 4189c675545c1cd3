#!/bin/sh
# Measures and trains on a machine that has a GPU, is lent for minutes, and has no network.
#
#   tools/gpu.sh prepare     here: wheels and recordings into .gpu/, which git does not track
#   tools/gpu.sh run FOLDER  there, in a copy of this folder: tests, benchmark, training; what comes of
#                            it goes to FOLDER as it is made, the most valuable first
#
# WHEELS names the packages that the machine lacks beside its PyTorch, PLATFORM and PYTHON_VERSION what
# it is; SONIBOOK_DATA the recordings (ESC-50 and a pool), of which prepare makes small copies.
# CONFIG, EPOCHS and TRAIN_SECONDS say what is trained, at the paper's width, and for how long.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

prepare() {
    mkdir -p .gpu/wheels .gpu/data
    wheels=${WHEELS:-annotated-types beartype captum iniconfig jaxtyping pluggy pydantic
        pydantic-core pytest shellingham soundfile soxr threadpoolctl typer typing-inspection
        wadler-lindig}
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary :all: --dest .gpu/wheels \
        --platform "${PLATFORM:-manylinux_2_28_x86_64}" --platform manylinux2014_x86_64 \
        --python-version "${PYTHON_VERSION:-3.12}" $wheels
    if [ -n "${SONIBOOK_DATA:-}" ]; then
        PYTHONPATH=src "$PYTHON" - "$SONIBOOK_DATA" .gpu/data <<'PY'
"""Copies of recordings at 8 kHz, as Ogg under their own names, which readers do not go by."""
import shutil
import sys
from pathlib import Path

import soundfile

from sonibook import read_audio
from sonibook.errors import SonibookError

here, there = map(Path, sys.argv[1:])
for path in sorted(one for one in here.rglob("*") if one.is_file()):
    copy = there / path.relative_to(here)
    if copy.exists():
        continue
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".csv", ".txt"):
        shutil.copyfile(path, copy)
    elif path.suffix in (".wav", ".flac", ".ogg", ".mp3"):
        try:
            x = read_audio(path)
        except SonibookError as error:
            print(error)
            continue
        soundfile.write(copy, x, 8000, format="OGG", subtype="VORBIS", compression_level=0.7)
PY
    fi
    du -sh .gpu/wheels .gpu/data
}

# The weights of a run's state in float16, in files of 16 MiB at most.
keep() {
    [ -f .gpu/run/state.safetensors ] || return 0
    "$PYTHON" - .gpu/run "$1" <<'PY' || true
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

run, out = map(Path, sys.argv[1:])
parts, size = [{}], 0
with safe_open(run / "state.safetensors", framework="pt") as file:
    for name in file.keys():
        if not name.startswith("model/"):
            continue
        tensor = file.get_tensor(name)
        tensor = tensor.half() if tensor.is_floating_point() else tensor
        for number, piece in enumerate(tensor.flatten().split(2**22)):
            if size + piece.nbytes > 15 * 2**20:
                parts.append({})
                size = 0
            parts[-1][f"{name}/{number}"] = piece.contiguous()
            size += piece.nbytes
for number, tensors in enumerate(parts):
    save_file(tensors, out / f"weights-{number}.safetensors")
for name in ("config.yaml", "log.csv"):
    if (run / name).exists():
        shutil.copyfile(run / name, out / name)
PY
}

run() {
    out=$1
    mkdir -p "$out"
    if ls .gpu/wheels/*.whl >/dev/null 2>&1; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --target .gpu/site .gpu/wheels/*.whl
    fi
    PYTHONPATH=$PWD/src:$PWD/.gpu/site
    export PYTHONPATH
    # The file first: the tests take longer than they are worth if nothing else came of it.
    timeout "${BENCH_SECONDS:-150}" "$PYTHON" benchmarks/bench_cuda.py --out "$out/bench-cuda.json" \
        >"$out/bench.log" 2>&1 || echo "benchmark: exit $?"
    timeout "${TEST_SECONDS:-120}" "$PYTHON" -m pytest -q tests/cuda -p no:cacheprovider \
        >"$out/tests.log" 2>&1 || echo "tests: exit $?"
    tail -n 3 "$out/bench.log" "$out/tests.log"
    [ -n "$(ls -A .gpu/data 2>/dev/null)" ] || return 0
    SONIBOOK_DATA=$PWD/.gpu/data timeout -s INT "${TRAIN_SECONDS:-330}" "$PYTHON" -m sonibook train \
        "${CONFIG:-configs/contrastive.yaml}" --set encoder.width=1.0 \
        --set "optimiser.epochs=${EPOCHS:-60}" --out .gpu/run >"$out/train.log" 2>&1 &
    training=$!
    while kill -0 "$training" 2>/dev/null; do
        sleep "${KEEP_SECONDS:-60}"
        keep "$out"
    done
    wait "$training" || echo "training: exit $?"
    keep "$out"
    tail -n 3 "$out/train.log"
}

case "${1:-}" in
    prepare) prepare ;;
    run) run "${2:?say where to: tools/gpu.sh run FOLDER}" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
