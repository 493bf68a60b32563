#!/usr/bin/env python3
"""Writes the lineage of an MLflow run into a manifest for `swapstream model publish`.

    mlflow_manifest.py RUN_ID [--model NAME] [--version V] [--base MANIFEST.json] > manifest.json

RUN_ID is looked up by the MLflow client where one is installed (`pip install mlflow-skinny`), which
takes the server from MLFLOW_TRACKING_URI. A folder is read as it is, without a client: that of a run in
MLflow's file store (`mlruns/<experiment>/<run>`). What the base manifest says stays.
"""

import argparse
import datetime
import json
import pathlib
import sys


def from_folder(folder):
    """A run as MLflow's file store keeps it: one file for each parameter, metric and tag."""
    def read(kind, value):
        files = sorted(path for path in (folder / kind).rglob("*") if path.is_file())
        return {path.relative_to(folder / kind).as_posix(): value(path.read_text()) for path in files}

    about = dict(
        (key.strip(), value.strip().strip("'\""))
        for key, colon, value in (line.partition(":") for line in (folder / "meta.yaml").read_text().splitlines())
        if colon
    )
    return {
        "run_id": about.get("run_id") or folder.name,
        "start_time": int(about["start_time"]) if about.get("start_time", "").isdigit() else None,
        "params": read("params", str.strip),
        # A line is `timestamp value step`; the last one counts.
        "metrics": read("metrics", lambda text: float(text.splitlines()[-1].split()[1])),
        "tags": read("tags", str.strip),
        "datasets": [],
    }


def from_client(run_id):
    """A run of the tracking server that MLFLOW_TRACKING_URI names."""
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        sys.exit(f"error: {run_id} is no folder, and there is no MLflow client: pip install mlflow-skinny")
    run = MlflowClient().get_run(run_id)
    inputs = getattr(run, "inputs", None)
    return {
        "run_id": run.info.run_id,
        "start_time": run.info.start_time,
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "tags": dict(run.data.tags),
        "datasets": [entry.dataset for entry in inputs.dataset_inputs] if inputs else [],
    }


def number(text):
    """MLflow keeps parameters as texts; a manifest has numbers."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def lineage(run):
    """What the manifest says about where the version comes from."""
    tags = run["tags"]
    found = {
        "run_id": run["run_id"],
        "hyperparameters": {name: number(value) for name, value in run["params"].items()},
        # JSON knows no NaN.
        "metrics": {name: value for name, value in run["metrics"].items() if value == value and abs(value) != float("inf")},
    }
    if tags.get("mlflow.user"):
        found["author"] = tags["mlflow.user"]
    if run["start_time"]:
        at = datetime.datetime.fromtimestamp(run["start_time"] / 1000, datetime.timezone.utc)
        found["created_at"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    repository = tags.get("mlflow.source.git.repoURL") or tags.get("mlflow.source.name")
    if repository:
        found["code"] = {"repository": repository}
        if tags.get("mlflow.source.git.commit"):
            found["code"]["commit"] = tags["mlflow.source.git.commit"]
        if tags.get("mlflow.source.git.dirty"):
            found["code"]["dirty"] = tags["mlflow.source.git.dirty"].lower() == "true"
    data = []
    for dataset in run["datasets"]:
        source = json.loads(dataset.source) if dataset.source.startswith("{") else {}
        profile = json.loads(dataset.profile or "{}")
        entry = {"uri": source.get("uri") or source.get("url") or source.get("path") or dataset.name}
        entry["digest"] = dataset.digest
        if isinstance(profile.get("num_rows"), int):
            entry["rows"] = profile["num_rows"]
        data.append(entry)
    if data:
        found["training_data"] = data
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run's id, or its folder in a file store")
    parser.add_argument("--model")
    parser.add_argument("--version")
    parser.add_argument("--base", type=pathlib.Path, help="a manifest in JSON: inputs, outputs, checks")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.run)
    run = from_folder(folder) if folder.is_dir() else from_client(arguments.run)
    manifest = json.loads(arguments.base.read_text()) if arguments.base else {}
    for name in ("model", "version"):
        if getattr(arguments, name):
            manifest[name] = getattr(arguments, name)
    manifest["lineage"] = lineage(run) | manifest.get("lineage", {})
    json.dump(manifest, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
