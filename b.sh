#!/bin/bash
cd /tmp/wt/shim-tests
CARGO_TARGET_DIR=$PWD/target cargo build --profile quick --target x86_64-unknown-linux-musl -p hull-integration 2>&1 | grep -E "^(error|warning)|-->" -A9 | head -${1:-80}
mkdir -p bin; cp target/x86_64-unknown-linux-musl/quick/hull-integration bin/.i && mv bin/.i bin/hull-integration
