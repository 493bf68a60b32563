#!/usr/bin/env python3
"""Reads Swapstream's registry: the versions there are, and what is to serve.

    pip install confluent-kafka
    registry_reader.py localhost:9092 [PREFIX]

Prints one JSON object a line: a version with its digest and metrics, then each deployment event,
with whether it counts. The rules are those of docs/registry.md#what-serves.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition


def read(servers, topic):
    """All committed records of a topic with one partition, up to its end of this moment."""
    consumer = Consumer({
        "bootstrap.servers": servers,
        "group.id": "registry-reader",  # never joined
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
    })
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            message = consumer.poll(30)
            if message is None:
                raise SystemExit(f"nothing from topic {topic} within 30 s")
            if message.error():
                if message.error().name() == "_PARTITION_EOF":
                    return
                raise SystemExit(f"topic {topic}: {message.error()}")
            yield message
    finally:
        consumer.close()


def versions(servers, prefix):
    """The newest record of each version that is one; a deletion record or tombstone takes it away."""
    found = {}
    for message in read(servers, prefix + "model-versions"):
        found.pop(message.key(), None)
        if message.value() is not None:
            manifest = json.loads(message.value())
            if not manifest.get("deleted"):
                found[message.key()] = manifest
    return found


def deployments(servers, prefix):
    """Every event with its revision and whether it counts."""
    last = {}
    for message in read(servers, prefix + "model-deployments"):
        event = json.loads(message.value())
        if event["schema"] != "swapstream.deployment/v1":
            raise SystemExit(f"revision {message.offset()}: schema {event['schema']} is not known here")
        model, expected = message.key().decode(), event.get("if_revision")
        counts = expected is None and event["action"] != "rollback" or expected == last.get(model, -1)
        if counts:
            last[model] = message.offset()
        yield {"revision": message.offset(), "effective": counts, **event}


def main():
    servers = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
    prefix = sys.argv[2] if len(sys.argv) > 2 else ""
    for manifest in versions(servers, prefix).values():
        print(json.dumps({
            "model": manifest["model"],
            "version": manifest["version"],
            "digest": manifest["artifact"]["digest"],
            "metrics": manifest["lineage"].get("metrics", {}),
        }))
    for event in deployments(servers, prefix):
        print(json.dumps(event))


if __name__ == "__main__":
    main()
