"""Huge models: memory and time of the command on each, in a process of its own.

``python -m benchmarks.huge external tensor inline outgrown nodes`` makes each model in a folder
(--folder), runs the command on it, deletes it, and prints a line of JSON: seconds, the peak of
anonymous memory and of all resident memory (mapped files included), and bytes in and out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

MB = 10**6
#: Weights are this block over and over: what they are does not matter, and it is quickly made.
BLOCK = 2**24


def weights(count: int) -> Iterator[memoryview]:
    """The bytes of so many random float32 weights, block by block."""
    block = np.random.default_rng(0).standard_normal(BLOCK, np.float32) * np.float32(0.02)
    while count > 0:
        yield block[:count].data.cast("B")
        count -= BLOCK


def chain(names: list[str], width: int) -> GraphProto:
    """MatMul nodes one after another, without their weights."""
    shape: list[str | int | None] = ["N", width]
    nodes = [
        helper.make_node("MatMul", [f"v{i}", name], [f"v{i + 1}"], name=f"node{i}")
        for i, name in enumerate(names)
    ]
    return helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{len(names)}", TensorProto.FLOAT, shape)],
    )


def model_of(graph: GraphProto) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(path: Path, layers: int, width: int, filled: int) -> None:
    """A model with a data file; layers from `filled` on are zeros, holes on disk."""
    model = model_of(chain([f"w{i}" for i in range(layers)], width))
    size = 4 * width * width
    for i in range(layers):
        tensor = model.graph.initializer.add(
            name=f"w{i}", dims=[width, width], data_type=TensorProto.FLOAT
        )
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", f"{path.name}.data"),
            ("offset", i * size),
            ("length", size),
        ):
            tensor.external_data.add(key=key, value=str(value))
    onnx.save_model(model, path)
    with Path(f"{path}.data").open("wb") as file:
        for _ in range(min(layers, filled)):
            for block in weights(width * width):
                file.write(block)
        file.truncate(layers * size)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def inline(path: Path, layers: int, width: int) -> None:
    """One file over 2 GB, which protobuf's own parsers refuse."""
    size = 4 * width * width
    heads = [
        TensorProto(
            name=f"w{i}", dims=[width, width], data_type=TensorProto.FLOAT
        ).SerializeToString()
        + varint(9 << 3 | 2)
        + varint(size)
        for i in range(layers)
    ]
    graph = chain([f"w{i}" for i in range(layers)], width).SerializeToString()
    tensors = [varint(5 << 3 | 2) + varint(len(head) + size) + head for head in heads]
    length = len(graph) + sum(len(tensor) + size for tensor in tensors)
    model = model_of(GraphProto())
    model.ClearField("graph")
    with path.open("wb") as file:
        file.write(model.SerializeToString() + varint(7 << 3 | 2) + varint(length) + graph)
        for tensor in tensors:
            file.write(tensor)
            for block in weights(width * width):
                file.write(block)


def gapped(path: Path, width: int, layers: int) -> None:
    """Sparse weights in under 2 GB, which are over 2 GB as dense ones."""
    model = model_of(chain([f"w{i}" for i in range(layers)], width))
    count = width * width // 50
    random = np.random.default_rng(0)
    for i in range(layers):
        places = np.sort(random.choice(width * width, count, replace=False)).astype(np.int64)
        values = random.standard_normal(count, np.float32)
        sparse = model.graph.sparse_initializer.add(dims=[width, width])
        sparse.values.CopyFrom(onnx.numpy_helper.from_array(values, f"w{i}"))
        sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places))
    path.write_bytes(model.SerializeToString())


def many_nodes(path: Path, nodes: int, width: int = 8) -> None:
    """Gemm, Relu and residual Add over and over, with weights of their own."""
    random = np.random.default_rng(0)
    made: list[NodeProto] = []
    graph = chain([], width)
    value = "v0"
    for i in range(nodes // 3):
        for name, shape in ((f"w{i}", (width, width)), (f"b{i}", (width,))):
            array = random.standard_normal(shape).astype(np.float32) / width
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        made.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"g{i}"], name=f"gemm{i}"))
        made.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"], name=f"relu{i}"))
        made.append(helper.make_node("Add", [f"r{i}", value], [f"a{i}"], name=f"add{i}"))
        value = f"a{i}"
    graph.node.extend(made)
    graph.output[0].name = value
    onnx.save_model(model_of(graph), path)


#: Settings that are not a matter of size.
PRUNE = ["-q", "1.0"]


class Peak(threading.Thread):
    """Samples a process's memory until it ends."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.anonymous, self.resident = process, 0, 0

    def run(self) -> None:
        try:
            while True:
                text = Path(f"/proc/{self.process}/status").read_text()
                facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                if "RssAnon" not in facts:
                    return
                self.anonymous = max(self.anonymous, int(facts["RssAnon"].split()[0]) * 1024)
                self.resident = max(self.resident, int(facts["VmHWM"].split()[0]) * 1024)
                time.sleep(0.02)
        except OSError:
            return


def used() -> float:
    """Processor time of all children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measured(arguments: list[str]) -> dict[str, object]:
    """Run the command in a process of its own."""
    started, before = time.monotonic(), used()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = Peak(process.pid)
    peak.start()
    out, said = process.communicate()
    seconds = time.monotonic() - started
    peak.join()
    lines = [
        line for line in out.splitlines() if line.startswith(("note", "checks", "warn", "dead"))
    ]
    return {
        "code": process.returncode,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used() - before, 1),
        "anonymous_mb": round(peak.anonymous / MB),
        "resident_mb": round(peak.resident / MB),
        "said": [" ".join(line.split()) for line in lines] + said.strip().splitlines()[-1:],
    }


def run(name: str, make: Callable[[Path], None], commands: list[list[str]], folder: Path) -> None:
    """Make a model, run commands on it, and print what they took."""
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    source, target = place / "in.onnx", place / "out.onnx"
    try:
        make(source)
        before = sum(path.stat().st_size for path in place.iterdir())
        for command in commands:
            given = [
                str(source) if word == "IN" else str(target) if word == "OUT" else word
                for word in command
            ]
            facts = measured(given)
            after = sum(p.stat().st_size for p in place.iterdir() if p.name.startswith("out"))
            shown = {"model": name, "command": " ".join(command), "bytes_in": before}
            print(json.dumps({**shown, "bytes_out": after, **facts}), flush=True)
            for path in place.glob("out*"):
                path.unlink()
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="+", choices=["external", "holes", "tensor", "inline", "outgrown", "nodes"]
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--scale", type=float, default=1.0, help="of sizes, to try it out")
    given = parser.parse_args()
    side = int(8192 * given.scale**0.5)
    prune, dense = ["IN", "-o", "OUT", *PRUNE], ["--format", "dense"]
    cases: dict[str, tuple[Callable[[Path], None], list[list[str]]]] = {
        "external": (lambda p: external(p, 48, side, 48), [[*prune, *dense], prune]),
        "holes": (lambda p: external(p, 48, side, 4), [prune, ["inspect", "IN"]]),
        "tensor": (lambda p: external(p, 1, 4 * side, 1), [prune, [*prune, *dense]]),
        "inline": (lambda p: inline(p, 10, side), [prune]),
        "outgrown": (lambda p: gapped(p, side, 10), [["IN", "-o", "OUT", "-q", "0", *dense]]),
        "nodes": (lambda p: many_nodes(p, int(100_000 * given.scale)), [prune, ["inspect", "IN"]]),
    }
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in given.models:
        run(name, *cases[name], given.folder)


if __name__ == "__main__":
    main()
