"""Files made to do harm: to fill memory, to never end, to read or write elsewhere, to run code."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from tests.builders import mlp, saved
from tests.refusal import refused

Capture = pytest.CaptureFixture[str]

#: What one small file may cost.
SECONDS, BYTES = 10.0, 2**30


@contextmanager
def frugal() -> Iterator[None]:
    """See that the body takes little time and memory."""
    limited = sys.platform == "linux"
    if limited:
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
    started = time.process_time()
    yield
    assert time.process_time() - started < SECONDS
    if limited:
        assert peak() - before < BYTES


def peak() -> int:
    """Most bytes of memory that this process had since the mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def ints(name: str, values: object) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


ONE = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")


def bombs(size: int) -> dict[str, tuple[list[NodeProto], list[TensorProto]]]:
    """Constants `bomb` of about `size` elements, in as many ways as there are."""

    def node(operator: str, inputs: list[str], output: str = "bomb", **more: object) -> NodeProto:
        return helper.make_node(operator, inputs, [output], **more)

    doubling = [
        node("Concat", [f"d{i}"] * 2, f"d{i + 1}", axis=0) for i in range(size.bit_length())
    ]
    last = node("Identity", [f"d{size.bit_length()}"])
    start = node("Identity", ["one"], "d0")
    side = int(size**0.5)
    column = node("ConstantOfShape", ["n"], "column")
    return {
        "ConstantOfShape": ([node("ConstantOfShape", ["n"])], [ints("n", [size, 1])]),
        "Expand": ([node("Expand", ["one", "n"])], [ONE, ints("n", [size, 1])]),
        "Tile": ([node("Tile", ["one", "n"])], [ONE, ints("n", [size, 1])]),
        "Range": (
            [node("Range", ["a", "n", "b"])],
            [ints("a", 0), ints("n", size), ints("b", 1)],
        ),
        "Resize": ([node("Resize", ["one", "", "", "n"])], [ONE, ints("n", [size, 1])]),
        "Pad": ([node("Pad", ["one", "n"])], [ONE, ints("n", [0, 0, size, 0])]),
        "doubling": ([start, *doubling, last], [ONE]),
        "outer product": (
            [column, node("Transpose", ["column"], "row"), node("Add", ["column", "row"])],
            [ints("n", [side, 1])],
        ),
        "product": (
            [column, node("Transpose", ["column"], "row"), node("MatMul", ["column", "row"])],
            [ints("n", [side, 1])],
        ),
        "OneHot": (
            [node("OneHot", ["i", "n", "v"])],
            [ints("i", [0]), ints("n", size), ints("v", [0, 1])],
        ),
        "EyeLike": (
            [column, node("Expand", ["column", "m"], "wide"), node("EyeLike", ["wide"])],
            [ints("n", [side, 1]), ints("m", [side, side])],
        ),
    }


def with_bomb(kind: str, size: int, place: str) -> ModelProto:
    """Two layers, and a constant that is huge: an output, or added to what is computed."""
    model = mlp((24, 40, 10))
    nodes, constants = bombs(size)[kind]
    graph = model.graph
    graph.initializer.extend(constants)
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)
    if place == "output":
        graph.output.append(helper.make_empty_tensor_value_info("bomb"))
    else:
        graph.node.append(helper.make_node("ReduceMax", ["bomb"], ["most"], keepdims=0))
        graph.node.append(helper.make_node("Cast", ["most"], ["peak"], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Add", ["y", "peak"], ["z"]))
        graph.output[0].name = "z"
    return model


COMMANDS = {
    "prune": ["-q", "1"],
    "shrink": ["--shrink", "-q", "2", "--no-latency"],
    "channels": ["--channels", "0.5", "--align", "1", "--no-latency"],
}


@pytest.mark.parametrize("size", [2**28, 2**36, 2**62], ids=str)
@pytest.mark.parametrize("kind", bombs(2))
def test_constants_that_claim_more_than_there_is(
    kind: str, size: int, tmp_path: Path, capsys: Capture
) -> None:
    for place in ("output", "middle"):
        path = saved(with_bomb(kind, size, place), tmp_path / "m.onnx")
        for arguments in COMMANDS.values():
            with frugal():
                code = main([str(path), *arguments, "--overwrite"])
            captured = capsys.readouterr()
            assert code in (0, 1), captured.err
            assert captured.err.count("\n") == code, captured.err
            assert "memory" not in captured.err
        with frugal():
            assert main(["inspect", str(path), "--groups"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("kind", bombs(2))
def test_bombs_in_a_model_without_an_opset(kind: str, tmp_path: Path, capsys: Capture) -> None:
    """Shape inference says nothing of it, and onnxruntime runs it as one of the newest opset."""
    model = with_bomb(kind, 2**30, "output")
    model.opset_import[0].domain = "elsewhere"
    path = saved(model, tmp_path / "m.onnx")
    for arguments in COMMANDS.values():
        with frugal():
            code = main([str(path), *arguments, "--overwrite"])
        captured = capsys.readouterr()
        assert code in (0, 1) and captured.err.count("\n") == code, captured.err
        assert "memory" not in captured.err


@pytest.mark.parametrize("form", ["sparse", "constant", "gaps"])
def test_a_few_values_that_stand_for_a_huge_tensor(
    form: str, tmp_path: Path, capsys: Capture
) -> None:
    model = onnxprune.prune(mlp((24, 80, 10)), sparsity=0.95, check=False).to_proto(form)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if form == "gaps":
        tensors["fc0.weight_size"].CopyFrom(ints("fc0.weight_size", [24 * 2**24]))
        tensors["fc0.weight_shape"].CopyFrom(ints("fc0.weight_shape", [2**24, 24]))
    for sparse in model.graph.sparse_initializer:
        sparse.dims[0] = 2**24
    for attribute in (a for node in model.graph.node for a in node.attribute):
        if attribute.name == "sparse_value":
            attribute.sparse_tensor.dims[0] = 2**24
    path = saved(model, tmp_path / "m.onnx")
    with frugal():
        assert "no trained model is like that" in refused([str(path)], tmp_path, capsys)


def test_what_is_not_run_is_said(tmp_path: Path, capsys: Capture) -> None:
    path = saved(with_bomb("ConstantOfShape", 2**32, "output"), tmp_path / "m.onnx")
    assert main([str(path)]) == 0
    assert "'bomb' alone has 17,179,869,184 bytes" in " ".join(capsys.readouterr().out.split())


def test_inputs_too_large_to_try(tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40, 10))
    model.graph.input.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, [2**40]))
    path = saved(model, tmp_path / "m.onnx")
    with frugal():
        assert main([str(path)]) == 0
    assert "too much memory" in " ".join(capsys.readouterr().out.split())


def endless() -> ModelProto:
    """Two layers, and a loop that turns 2**62 times."""
    model = mlp((24, 40, 10))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Tanh", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", 10]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", 10]),
        ],
    )
    graph = model.graph
    graph.initializer.extend([ints("trips", 2**62), numpy_helper.from_array(np.array(True), "yes")])
    graph.node.append(helper.make_node("Loop", ["trips", "yes", "y"], ["z"], body=body))
    graph.output[0].name = "z"
    return model


def test_a_loop_without_end(tmp_path: Path, capsys: Capture) -> None:
    path = saved(endless(), tmp_path / "m.onnx")
    with frugal():
        assert main([str(path), "--no-latency"]) == 0
    assert "did not end within" in " ".join(capsys.readouterr().out.split())


def nested(depth: int) -> bytes:
    """Two layers in `depth` branches, one in the other; protobuf's own writer gives up earlier."""
    model = mlp((24, 40, 10))
    output = model.graph.output[0].SerializeToString()
    inner = GraphProto(name="g", node=model.graph.node).SerializeToString()
    inner += field(12, output)
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, inner) + b"\xa0\x01\x05"
        other = field(1, b"else_branch") + field(6, inner[:0] + field(2, b"e")) + b"\xa0\x01\x05"
        node = field(1, b"yes") + field(2, b"y") + field(4, b"If") + field(5, branch)
        inner = field(1, node + field(5, other)) + field(2, b"g") + field(12, output)
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    whole = GraphProto()
    whole.CopyFrom(model.graph)
    model.ClearField("graph")
    del whole.output[:]
    return model.SerializeToString() + field(7, inner + whole.SerializeToString())


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field of the wire format."""
    out, length = bytearray(), len(body)
    for value in (number << 3 | 2, length):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out) + body


@pytest.mark.parametrize("depth", [5, 25, 33, 60, 1000])
def test_bodies_in_bodies(depth: int, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(depth))
    for arguments in ([str(path)], ["inspect", str(path), "--groups"]):
        with frugal():
            code = main([*arguments, *(["--overwrite"] if len(arguments) == 1 else [])])
        captured = capsys.readouterr()
        assert captured.err.count("\n") == code, captured.err
        assert code == (0 if depth <= 25 else 1), captured.err


def functions(*calls: tuple[str, str]) -> ModelProto:
    """A model that calls the first of these functions, each of which calls another."""
    model = mlp((24, 40, 10))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for name, called in calls:
        node = helper.make_node(called, ["a"], ["b"], domain="" if called == "Relu" else "f")
        model.functions.append(helper.make_function("f", name, ["a"], ["b"], [node], opsets))
    model.graph.node.append(helper.make_node(calls[0][0], ["y"], ["z"], domain="f"))
    model.graph.output[0].name = "z"
    model.opset_import.append(helper.make_opsetid("f", 1))
    return model


CYCLES = {
    "itself": [("one", "one")],
    "each other": [("one", "two"), ("two", "one")],
    "three": [("one", "two"), ("two", "three"), ("three", "two")],
}


@pytest.mark.parametrize("case", CYCLES)
def test_functions_that_call_themselves(case: str, tmp_path: Path, capsys: Capture) -> None:
    path = saved(functions(*CYCLES[case]), tmp_path / "m.onnx")
    assert "calls itself" in refused([str(path)], tmp_path, capsys)


def test_functions_that_call_others(tmp_path: Path, capsys: Capture) -> None:
    chain = [(f"n{i}", f"n{i + 1}") for i in range(50)]
    path = saved(functions(*chain, ("n50", "Relu")), tmp_path / "m.onnx")
    assert main([str(path)]) == 0


def test_functions_that_multiply(tmp_path: Path, capsys: Capture) -> None:
    """Each of forty functions calls the next one twice: inlined, they are 2**40 nodes."""
    model = functions(*[(f"n{i}", f"n{i + 1}") for i in range(40)], ("n40", "Relu"))
    for function in model.functions[:-1]:
        function.node.add().CopyFrom(function.node[0])
        function.node[0].output[0], function.node[1].input[0] = "m", "m"
    path = saved(model, tmp_path / "m.onnx")
    with frugal():
        code = main([str(path)])
    captured = capsys.readouterr()
    assert captured.err.count("\n") == code
    assert code in (0, 1)


def test_a_call_with_too_much(tmp_path: Path, capsys: Capture) -> None:
    model = functions(("one", "Relu"))
    model.graph.node[-1].input.append("y")
    path = saved(model, tmp_path / "m.onnx")
    assert "with 2 inputs where it has 1" in refused([str(path)], tmp_path, capsys)


def chain(count: int) -> bytes:
    """Two layers and a chain of `count` nodes, written without building them one by one."""
    model = mlp((24, 40, 10))
    model.graph.output[0].name = f"n{count}"
    nodes = b"".join(
        field(
            1, field(1, b"n%d" % i if i else b"y") + field(2, b"n%d" % (i + 1)) + field(4, b"Neg")
        )
        for i in range(count)
    )
    return model.SerializeToString() + field(7, nodes)


def test_many_nodes(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(chain(20_000))
    assert main([str(path), "--no-check", "--no-shrink"]) == 0
    assert len(onnx.load(tmp_path / "m.pruned.onnx").graph.node) == 20_003


class Loaded:
    """Leaves a file where it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.trap,))


@pytest.mark.parametrize("option", ["--val", "--calibrate", "--train"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pickle"])
def test_nothing_is_unpickled(option: str, suffix: str, tmp_path: Path, capsys: Capture) -> None:
    trap, data = tmp_path / "trap", tmp_path / f"data{suffix}"
    objects = np.array([Loaded(trap)] * 8, object)
    if suffix == ".npy":
        np.save(data, objects, allow_pickle=True)
    elif suffix == ".npz":
        np.savez(data, x=objects, labels=np.zeros(8, np.int64))
    else:
        data.write_bytes(pickle.dumps(Loaded(trap)))
    path = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    assert f"data{suffix}" in refused([str(path), option, str(data)], tmp_path, capsys)
    assert not trap.exists()


def test_a_small_archive_of_a_large_array(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "data.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (16777216, 24), }\n"
    with (
        zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for _ in range(24 * 16):
            member.write(bytes(2**20))
    path = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    with frugal():
        sentence = refused([str(path), "--val", str(data)], tmp_path, capsys)
    assert "unpacks to" in sentence


NAMES = ["\x1b[2J\x1b[31m", "a\nb", "nul\0", "\u202egnp", "\x9b31m", "\x07\x08", "\u2028", "\x7f"]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_every_report(name: str, tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40, 10))
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("fc", name)
    for node in model.graph.node:
        node.name = name + node.name
        node.input[:] = [text.replace("fc", name) for text in node.input]
    model.producer_name = model.graph.name = name
    path = saved(model, tmp_path / "m.onnx")
    report, picture, data = (tmp_path / n for n in ("r.json", "p.svg", "data.npz"))
    np.savez(data, x=np.ones((8, 24), np.float32), labels=np.zeros(8, np.int64))
    runs = (
        [str(path), "--json", str(report), "--val", str(data), "--channels", "0.5"],
        ["inspect", str(path), "--groups"],
        ["evaluate", str(path), "--runs", "0", "--val", str(data)],
        ["sensitivity", str(path), "--val", str(data), "--jobs", "1", "--plot", str(picture)],
        ["inspect", str(path), "--groups", "--json", "-"],
    )
    for arguments in runs:
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert (captured.out + captured.err).replace("\n", "").isprintable()
    json.loads(captured.out)
    json.loads(report.read_text(encoding="utf-8"))
    assert picture.read_text(encoding="utf-8").replace("\n", "").isprintable()


@pytest.mark.parametrize("target", ["/dev/full", "/dev/null", "fifo", "link", "dangling", "self"])
def test_outputs_that_are_no_files(target: str, tmp_path: Path, capsys: Capture) -> None:
    path = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    place = Path(target) if target.startswith("/") else tmp_path / target
    if target == "fifo":
        os.mkfifo(place)
    elif target == "link":
        (tmp_path / "folder").mkdir()
        place.symlink_to("folder", target_is_directory=True)
    elif target == "dangling":
        place.symlink_to("absent/o.onnx")
    elif target == "self":
        place.symlink_to("m.onnx")
    before = path.read_bytes()
    code = main([str(path), "-o", str(place), "--overwrite"])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.count("\n") == 1
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
