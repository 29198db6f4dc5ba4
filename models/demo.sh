#!/usr/bin/env bash
# Compiles a shipped network and classifies twenty real digits between two processes on this machine.
# usage: bash models/demo.sh [MODEL]      MODEL: digits_mlp, digits_cnn, digits_resnet, digits_herpn, digits_pillar
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-digits_resnet}
cargo build --locked --quiet -p polyc -p polyrt
bin=${CARGO_TARGET_DIR:-target}/debug
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
show() { printf '\n$ %s\n' "$*"; }

show polyc compile "models/$model.onnx" -o plan.bin --calibrate models/digits_train.npz
"$bin/polyc" compile "models/$model.onnx" -o "$work/plan.bin" --calibrate models/digits_train.npz

show polyc report plan.bin
"$bin/polyc" report "$work/plan.bin"

# The client gets the plan, and nothing else.
mkdir "$work/client"
cp "$work/plan.bin" "$work/client/"

show "polyrt party0 plan.bin &    # the model's owner"
"$bin/polyrt" party0 "$work/plan.bin" &
server=$!
show "polyrt party1 plan.bin --input models/digits_20.npy    # the client"
"$bin/polyrt" party1 "$work/client/plan.bin" --input models/digits_20.npy
wait "$server"
printf '\nthe digits are      2 6 6 9 6 4 7 1 8 9 8 5 7 6 9 2 8 1 3 8\n'
