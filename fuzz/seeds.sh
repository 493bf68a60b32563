#!/bin/sh
# Puts the repository's own examples into the corpus of a target.
set -eu
cd "$(dirname "$0")"
corpus=corpus/$1
mkdir -p "$corpus"

# seed NAME FIRST FILE: the byte FIRST (octal) chooses the reader or the contract.
seed() {
    { printf "\\$2"; cat "$3"; } > "$corpus/seed-$1"
}

case $1 in
onnx)
    find ../tests/fixtures ../models -name '*.onnx' -size -64k | while read -r file; do
        cp "$file" "$corpus/seed-$(echo "$file" | tr / _)"
    done
    ;;
event)
    for contract in 000 001 002 003 004 005 006 007 010 011; do
        i=0
        while read -r event; do
            i=$((i + 1))
            printf "\\$contract%s" "$event" > "$corpus/seed-$contract-$i"
        done < seeds/events.jsonl
    done
    ;;
json)
    seed manifest 000 seeds/manifest.json
    seed draft-json 001 seeds/draft.json
    seed draft-toml-1 002 ../models/flights/v1.toml
    seed draft-toml-2 002 ../models/flights/v2.toml
    seed deploy 003 seeds/deploy.json
    seed undeploy 003 seeds/undeploy.json
    seed chunks 004 seeds/chunks.json
    seed status 005 seeds/status.json
    seed heartbeat 005 seeds/heartbeat.json
    seed version 005 seeds/manifest.json
    ;;
registry)
    # Tar keeps only what it is told, so that the seed is the same everywhere.
    archive=$(mktemp)
    tar --format=ustar --owner=0 --group=0 --mtime=@0 -C seeds -cf "$archive" manifest.json manifest.json.minisig
    seed bundle 000 "$archive"
    rm "$archive"
    printf '\001\100\000\004\000\001\004\000\002\004\000' > "$corpus/seed-chunks"
    seed signature 002 seeds/manifest.json.minisig
    seed key 002 seeds/trusted-key.txt
    { printf '\003\003'; cat seeds/deploy.json; printf '\377\003'; cat seeds/undeploy.json; } \
        > "$corpus/seed-log"
    ;;
esac
