"""The Python peers of benches/end_to_end: confluent-kafka and ONNX Runtime.

    python peer.py JOB.json batch      a service tuned for batches
    python peer.py JOB.json plain      the script that most people write first: one record at a time

JOB.json says which topics, which model, and how an event is read. The batch service asks librdkafka for up to
512 records at a time, reads JSON with orjson, fills one array, runs the model once, and waits for acknowledgements
only before it commits, once a second. With exactly-once a transaction is committed every 100 ms.
"""

import json
import signal
import sys
import time

import numpy as np
import onnxruntime
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

BATCH = 512
RUNNING = True


def stop(*_):
    global RUNNING
    RUNNING = False


def open_session(job):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(job["model_file"], options, providers=["CPUExecutionProvider"])
    put = session.get_inputs()[0]
    return session, put.name, tuple(put.shape[1:]), [o.name for o in session.get_outputs()]


def consumer(job):
    return Consumer({
        "bootstrap.servers": job["bootstrap"],
        "group.id": job["group"],
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 100000,
        "queued.max.messages.kbytes": 65536,
        "partition.assignment.strategy": "cooperative-sticky",
    })


def producer(job):
    settings = {
        "bootstrap.servers": job["bootstrap"],
        "enable.idempotence": True,
        "compression.type": job["compression"],
        "linger.ms": job["linger_ms"],
        "queue.buffering.max.messages": 500000,
        "queue.buffering.max.kbytes": 65536,
        "batch.num.messages": 10000,
    }
    if job["exactly_once"]:
        settings["transactional.id"] = job["group"]
    return Producer(settings)


def failed(error, _message):
    # Nothing may be committed past a record that was not stored.
    if error is not None:
        raise KafkaException(error)


class Commits:
    """Commits what was produced, by time."""

    def __init__(self, job, source, sink):
        self.source, self.sink, self.eos = source, sink, job["exactly_once"]
        self.interval = 0.1 if self.eos else 1.0
        self.next, self.at, self.open = {}, time.monotonic(), False
        if self.eos:
            sink.init_transactions()

    def begin(self):
        if self.eos and not self.open:
            self.sink.begin_transaction()
            self.open = True

    def done(self, message):
        self.next[(message.topic(), message.partition())] = message.offset() + 1

    def turn(self, force=False):
        if not self.next or not (force or time.monotonic() - self.at >= self.interval):
            return
        offsets = [TopicPartition(t, p, o) for (t, p), o in self.next.items()]
        if self.eos:
            self.sink.send_offsets_to_transaction(offsets, self.source.consumer_group_metadata())
            self.sink.commit_transaction()
            self.open = False
        else:
            self.sink.flush()
            self.source.commit(offsets=offsets, asynchronous=False)
        self.next, self.at = {}, time.monotonic()


def reader(job, shape):
    """A function from parsed events to the model's input."""
    features, width = job["features"], int(np.prod(shape))
    if job["format"] == "features":
        # null is NaN.
        def read(events):
            rows = [[event[name] for name in features] for event in events]
            return np.array(rows, dtype=np.float32).reshape(len(events), *shape)
    elif job["format"] == "array":
        def read(events):
            return np.array([event[features[0]] for event in events], dtype=np.float32).reshape(len(events), *shape)
    else:
        def read(events):
            rows = np.empty((len(events), width), dtype=np.float32)
            for row, event in zip(rows, events):
                # The fastest way numpy has to read such a string.
                row[:] = np.fromstring(event[features[0]].rstrip(","), dtype=np.float32, sep=",")
            return rows.reshape(len(events), *shape)
    return read


def prediction(job, names, message, event, outputs):
    value = {
        "schema": "swapstream.prediction/v1", "model": job["model"], "version": job["version"],
        "digest": job["digest"], "revision": 0, "outputs": dict(zip(names, outputs)),
        "input": {"topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
                  "timestamp": message.timestamp()[1]},
    }
    if job["include"]:
        value["include"] = {name: event[name] for name in job["include"]}
    return value


def send(sink, job, headers, message, value):
    while True:
        try:
            sink.produce(job["output_topic"], value=value, key=message.key(), partition=message.partition(),
                         timestamp=message.timestamp()[1], headers=headers, on_delivery=failed)
            return
        except BufferError:
            sink.poll(0.01)


def batches(job):
    session, name, shape, names = open_session(job)
    source, sink = consumer(job), producer(job)
    commits, read = Commits(job, source, sink), reader(job, shape)
    headers = [("model-name", job["model"]), ("model-version", job["version"]), ("model-digest", job["digest"])]
    source.subscribe([job["input_topic"]])
    while RUNNING:
        messages = source.consume(BATCH, 0.02)
        messages = [m for m in messages if ok(m)]
        if messages:
            commits.begin()
            events = [orjson.loads(m.value()) for m in messages]
            outputs = [output.tolist() for output in session.run(None, {name: read(events)})]
            for message, event, row in zip(messages, events, zip(*outputs)):
                value = orjson.dumps(prediction(job, names, message, event, row))
                send(sink, job, headers, message, value)
                commits.done(message)
        sink.poll(0)
        commits.turn()
    commits.turn(force=True)
    source.close()


def plain(job):
    session, name, shape, names = open_session(job)
    source, sink = consumer(job), producer(job)
    commits, read = Commits(job, source, sink), reader(job, shape)
    headers = [("model-name", job["model"]), ("model-version", job["version"]), ("model-digest", job["digest"])]
    source.subscribe([job["input_topic"]])
    while RUNNING:
        message = source.poll(0.05)
        if message is not None and ok(message):
            commits.begin()
            event = json.loads(message.value())
            outputs = session.run(None, {name: read([event])})
            row = [output[0].tolist() for output in outputs]
            value = json.dumps(prediction(job, names, message, event, row), separators=(",", ":"))
            send(sink, job, headers, message, value.encode())
            commits.done(message)
            sink.poll(0)
        commits.turn()
    commits.turn(force=True)
    source.close()


def ok(message):
    error = message.error()
    if error is None:
        return True
    if error.code() != KafkaError._PARTITION_EOF and not error.retriable():
        raise KafkaException(error)
    return False


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        JOB = json.load(file)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    {"batch": batches, "plain": plain}[sys.argv[2]](JOB)
