"""How fast onnxprune prunes, against copying the file and against other tools, in one run.

    python benchmarks/throughput.py [--inline-mb 400] [--external-mb 2048] [--runs 5] [--json FILE]

Two stacks of MatMul weights: one in a single file, one with external data. Each row is a whole
command, from start to exit, with its output on the disk; the ratios are to the row named. Peers
(onnxsim, Polygraphy) are measured where they are installed, once, since they take minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from measure import Case, flush, run_in_turn
from onnx import TensorProto, helper

SIDE = {"inline": 2048, "external": 4096}
ONNX = "import onnx, os, sys; m = onnx.load(sys.argv[1]); onnx.save({how}); os.sync()"
ONNXSIM = (
    "import onnx, os, sys\n"
    "from onnxsim import pruning\n"
    "m = pruning.apply_magnitude_pruning(onnx.load(sys.argv[1]), sparsity=0.68)\n"
    "onnx.save(m[0] if isinstance(m, tuple) else m, sys.argv[2]); os.sync()"
)


def build(path: Path, megabytes: int, side: int, *, external: bool) -> None:
    """Write a stack of MatMul weights of about this size."""
    count = max(1, megabytes * 2**20 // (side * side * 4))
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(count)]
    random = np.random.default_rng(0)
    weights, offset = [], 0
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for i in range(count):
            block = random.standard_normal((side, side), np.float32).tobytes()
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side])
            if external:
                file.write(block)
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (
                    ("location", data.name),
                    ("offset", offset),
                    ("length", len(block)),
                ):
                    tensor.external_data.add(key=key, value=str(value))
                offset += len(block)
            else:
                tensor.raw_data = block
            weights.append(tensor)
    if not external:
        data.unlink()
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", side])
        for name in ("x0", f"x{count}")
    ]
    graph = helper.make_graph(nodes, "stack", [ends[0]], [ends[1]], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def cases(source: Path, kind: str) -> list[Case]:
    """The commands that are compared on one model."""
    folder = source.parent
    target = folder / "out.onnx"
    outputs = [target, folder / "out.onnx.data", folder / "out.data"]
    ours = [sys.executable, "-m", "onnxprune", str(source), "-o", str(target), "-q", "1.0"]
    ours += ["--format", "dense", "--overwrite", "--quiet"]
    copied = source.with_name(source.name + ".data") if kind == "external" else source
    how = "m, sys.argv[2]"
    if kind == "external":
        how += ", save_as_external_data=True, location='out.data'"
    here = [str(source), str(target)]

    def prepare() -> None:
        flush(*outputs)

    def case(name: str, command: list[str] | None, most: int = 1000) -> Case:
        return Case(name, command, prepare, most)

    python = [sys.executable, "-c"]
    copy = ["sh", "-c", 'cp "$0" "$1" && sync', str(copied), str(target)]
    found = [
        case("cp + sync", copy),
        case("onnx load + save", [*python, ONNX.format(how=how), *here]),
        case("onnxprune --no-check", [*ours, "--no-check"]),
        case("onnxprune, checked", ours),
    ]
    if kind == "inline":
        sim = [*python, ONNXSIM, *here] if importlib.util.find_spec("onnxsim") else None
        polygraphy = Path(sys.executable).with_name("polygraphy")
        graph = [str(polygraphy), "surgeon", "prune", str(source), "-o", str(target)]
        found.append(case("onnxsim apply_magnitude_pruning", sim, 1))
        found.append(case("Polygraphy surgeon prune", graph if polygraphy.exists() else None, 1))
    return found


def show(kind: str, megabytes: int, found: list[Case]) -> list[dict[str, object]]:
    """Print one table and give its rows back."""
    base = next(case for case in found if case.name == "cp + sync").median
    plain = next(case for case in found if case.name == "onnx load + save")
    print(f"\n{kind}, {megabytes} MB: median seconds of each whole command")
    print(f"{'':34}{'seconds':>8}{'x cp':>8}{'x onnx':>8}{'anonymous MB':>14}")
    rows: list[dict[str, object]] = []
    for case in found:
        if not case.walls:
            print(f"{case.name:34}{'-':>8}  {case.failure or 'not installed'}")
            continue
        to_onnx = case.median / plain.median if plain.walls else float("nan")
        print(
            f"{case.name:34}{case.median:8.2f}{case.median / base:8.2f}{to_onnx:8.2f}"
            f"{case.peak / 2**20:14,.0f}"
        )
        rows.append(
            {"case": case.name, "seconds": case.walls, "peak_anonymous_bytes": case.peak}
            | {"to_cp": case.median / base, "to_onnx": to_onnx}
        )
    return rows


def main() -> None:
    """Build both stacks, measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inline-mb", type=int, default=400)
    parser.add_argument("--external-mb", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the models go (removed afterwards)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"onnx {onnx.__version__}, numpy {np.__version__}, {options.runs} runs, medians")
    results = {}
    for kind, megabytes in (("inline", options.inline_mb), ("external", options.external_mb)):
        if megabytes <= 0:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            source = Path(folder) / "stack.onnx"
            build(source, megabytes, SIDE[kind], external=kind == "external")
            found = cases(source, kind)
            run_in_turn(found, options.runs)
            results[kind] = show(kind, megabytes, found)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
