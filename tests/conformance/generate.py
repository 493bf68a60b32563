"""Writes `operators.json`, the names of all operators, and `corrected/`, what newer releases of
the ONNX suite changed about the node tests of 1.16.2.

The wheel of onnx 1.16.2 is the last that ships the node tests as data. Later releases corrected
the expected outputs of some and added a few of ai.onnx.ml. This script takes both out of a newer
release, where the tests are code:

    pip install onnx==1.23.2
    python tests/conformance/generate.py NODE_TESTS_OF_1_16_2

A test is corrected where both releases have it with equal nodes and inputs and other outputs, beyond
rounding. Tests that draw random numbers differ in their inputs and are left alone.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import onnx
import onnx.defs
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

PINNED = "1.23.2"

# Their inputs were corrected as well: 1.16.2 let a sum beyond int8 wrap around.
REPLACED = {
    "test_qlinearmatmul_3D_int8_float16",
    "test_qlinearmatmul_3D_int8_float32",
}


def tensors(folder, kind):
    """The serialised tensors of a data set as arrays; None where one is no plain tensor."""
    arrays = []
    for index in range(1000):
        path = folder / f"{kind}_{index}.pb"
        if not path.is_file():
            return arrays
        try:
            arrays.append(numpy_helper.to_array(onnx.load_tensor(str(path))))
        except Exception:
            return None
    return None


def equal(a, b):
    """Same types, shapes and values."""
    if a is None or len(a) != len(b):
        return False
    for x, y in zip(a, b):
        y = np.asarray(y)
        if x.dtype.kind in "OSU":
            return False
        if x.dtype != y.dtype or x.shape != y.shape:
            return False
        if not np.allclose(x.astype(float), y.astype(float), rtol=1e-3, atol=1e-5, equal_nan=True):
            return False
    return True


def comparable(arrays):
    return arrays is not None and all(
        isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in arrays
    )


def write(folder, case):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for kind, arrays, declared in (
            ("input", inputs, case.model.graph.input),
            ("output", outputs, case.model.graph.output),
        ):
            for index, array in enumerate(arrays):
                tensor = numpy_helper.from_array(np.asarray(array), declared[index].name)
                (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def operators():
    """All operators of the two domains, deprecated ones included: old models have them."""
    names = {"ai.onnx": set(), "ai.onnx.ml": set()}
    for schema in onnx.defs.get_all_schemas():
        domain = schema.domain or "ai.onnx"
        if domain in names:
            names[domain].add(schema.name)
    newest = {
        domain: max(
            schema.since_version
            for schema in onnx.defs.get_all_schemas()
            if (schema.domain or "ai.onnx") == domain
        )
        for domain in names
    }
    table = {
        "onnx": onnx.__version__,
        "domains": {
            domain: {"opset": newest[domain], "operators": sorted(found)}
            for domain, found in names.items()
        },
    }
    return json.dumps(table, indent=1) + "\n"


def main():
    shipped = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    target = here / "corrected"
    if onnx.__version__ != PINNED:
        sys.exit(f"onnx {PINNED} is needed, {onnx.__version__} is installed")
    (here / "operators.json").write_text(operators())
    shutil.rmtree(target, ignore_errors=True)
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        if case.data_sets is None:
            continue
        old = shipped / case.name
        if case.name in REPLACED:
            print("replaced", case.name)
            write(target / case.name, case)
            continue
        if not old.is_dir():
            if case.name.startswith("test_ai_onnx_ml_"):
                print("added", case.name)
                write(target / case.name, case)
            continue
        data = old / "test_data_set_0"
        inputs, outputs = case.data_sets[0]
        before = tensors(data, "input"), tensors(data, "output")
        model = onnx.load(str(old / "model.onnx"))
        if list(model.graph.node) != list(case.model.graph.node):
            continue
        same = comparable(before[0]) and comparable(before[1]) and comparable(outputs)
        if same and equal(before[0], inputs) and not equal(before[1], outputs):
            print("corrected", case.name)
            folder = target / case.name / "test_data_set_0"
            folder.mkdir(parents=True)
            for index, array in enumerate(outputs):
                name = case.model.graph.output[index].name
                tensor = numpy_helper.from_array(np.asarray(array), name)
                (folder / f"output_{index}.pb").write_bytes(tensor.SerializeToString())


if __name__ == "__main__":
    main()
