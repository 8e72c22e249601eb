"""The plain summary: exact text, full names, nothing that a terminal would act on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from onnxprune.report import text
from onnxprune.report.report import InspectReport, LayerRow, Report, Sizes, UnprunableRow

PRUNED = """\
onnxprune 1.2.3
lenet.onnx -> lenet.pruned.onnx (quality 1)

layer         operator  shape     type         std  threshold  weights    left   kept  ratio  \
stored   before -> after
--------------------------------------------------------------------------------------------\
----------------------------
conv1.weight  Conv      20x1x5x5  float32   0.0131     0.0131      500     330  66.0%  1.52x  \
sparse  2.00 kB -> 2.31 kB
fc1.weight    Gemm      500x800   float32  1.2e-05    1.2e-05  400,000  32,000   8.0%  12.5x  \
sparse  1.60 MB ->  224 kB
fc2.weight    Gemm      10x500    float32   0.0131          -    5,000   5,000   100%  1.00x  \
dense   20.0 kB -> 20.0 kB
--------------------------------------------------------------------------------------------\
----------------------------
3 layers                                                       405,500  37,330   9.2%  10.9x  \
        1.62 MB ->  246 kB

weights       405,500 -> 37,330 in prunable layers: 10.9x fewer
parameters    406,080 -> 37,910 in the whole model: 10.7x fewer
file          1.62 MB -> 248 kB: 6.54x smaller (1,624,500 -> 248,310 bytes)
gzip          1.50 MB -> 201 kB: 7.46x smaller
format        sparse: read by onnxruntime
accuracy      accuracy 99.17% -> 99.12% (-0.05 points) on 10,000 samples
speed         zeros alone do not make onnxruntime faster: only removing whole channels does \
(--channels)
dropout       drop: ratio 0.5 -> 0.158
dropout       last: ratio 0.5 unchanged (nothing feeds it)
checks        ONNX checker: passed
checks        weights read back: passed
checks        onnxruntime outputs: skipped (custom operator my.domain:Foo)
not prunable  table: an embedding table
note          fc2.weight: excluded
note          IR version 3 became 8
warning       something to mind
time          0.42 s
"""

INSPECTED = """\
onnxprune 1.2.3
net.onnx

format      IR version 8, opset onnx 17, com.microsoft 1
producer    pytorch 2.13
nodes       4
parameters  450, 97.8% of them in prunable layers
file        2.35 kB (2,345 bytes)
columns     mean and std are over the weights that are not zero; zeros is the share of weights \
that are zero now, and q=... the share that would be with that quality
note        dead.weight: all weights are zero

layer        operator   shape  type       min   max    mean    std  zeros  q=0.25  q=0.5    q=1  \
q=1.5    q=2
-------------------------------------------------------------------------------------------------\
------------
fc.weight    Gemm       10x40  float32  -0.52  0.49  0.0012  0.131   5.0%   20.0%  40.0%  70.0%  \
87.5%  97.5%
dead.weight  Conv,Gemm  4x10   float16      0     0       -      -   100%       -      -      -  \
    -      -
-------------------------------------------------------------------------------------------------\
------------
2 layers                                                            13.6%   27.3%  45.5%  72.7%  \
88.6%  97.7%

dropout  ratio  note
--------------------
drop       0.5

not prunable  operator  node      shape  why
---------------------------------------------------------
w             MatMul    MatMul_3  -      made at run time
"""


def test_the_summary_of_a_run(report: Report) -> None:
    assert str(report) == text.render(report) == PRUNED


def test_the_summary_of_a_model(inspection: InspectReport) -> None:
    assert str(inspection) == text.render_inspect(inspection) == INSPECTED


def test_a_sparsity_run_that_wrote_nothing(report: Report) -> None:
    dry = dataclasses.replace(
        report, output=None, dry_run=True, quality=None, sparsity=0.9, accuracy=None
    )
    shown = text.render(dry)
    assert "lenet.onnx -> nothing written (sparsity 0.9 over all layers)" in shown
    assert "file would be  1.62 MB" in shown
    assert "accuracy       not measured: no validation data" in shown
    assert "in every layer" in text.render(dataclasses.replace(dry, scope="layer"))


def test_a_model_from_memory_has_no_size_before(report: Report) -> None:
    shown = text.render(dataclasses.replace(report, sizes=Sizes(None, 248_310)))
    assert "file          248 kB (248,310 bytes)\n" in shown
    assert "gzip" not in shown


def test_estimated_gzip_says_about(report: Report) -> None:
    sizes = dataclasses.replace(report.sizes, gzip_estimated=True)
    shown = text.render(dataclasses.replace(report, sizes=sizes))
    assert "gzip          about 1.50 MB -> 201 kB" in shown


def test_every_row_and_full_names(layer_row: Callable[..., LayerRow], report: Report) -> None:
    names = [f"{'very.' * 30}long.name.{index}" for index in range(250)]
    shown = text.render(
        dataclasses.replace(report, layers=tuple(layer_row(name) for name in names))
    )
    assert all(name in shown for name in names)
    assert "250 layers" in shown


def test_an_overlong_name_moves_only_its_own_row(
    layer_row: Callable[..., LayerRow], report: Report
) -> None:
    rows = (layer_row("short"), layer_row("x" * 5000))
    lines = text.render(dataclasses.replace(report, layers=rows)).splitlines()
    assert max(len(line) for line in lines if "x" * 5000 not in line) < 200


def test_hostile_names_are_inert(layer_row: Callable[..., LayerRow], report: Report) -> None:
    evil = "\x1b]0;owned\x07\n[red]\u202e\0"
    hostile = dataclasses.replace(
        report,
        model=evil,
        output=evil,
        readers=evil,
        layers=(layer_row(evil, operators=(evil,), stored_as=evil, dtype=evil, note=evil),),
        unprunable=(UnprunableRow(evil, evil, evil, None, evil),),
        dropouts=tuple(dataclasses.replace(row, node=evil, note=evil) for row in report.dropouts),
        checks=tuple(dataclasses.replace(row, name=evil, detail=evil) for row in report.checks),
        warnings=(evil,),
        notes=(evil,),
    )
    shown = text.render(hostile)
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()
    assert len(shown.splitlines()) < 40
    assert r"\x1b]0;owned\x07\n[red]\u202e\x00" in shown


def test_many_unprunable_weights_are_grouped(report: Report) -> None:
    rows = tuple(UnprunableRow(f"w{index}", "", "MatMul", None, "why") for index in range(9))
    shown = text.render(dataclasses.replace(report, unprunable=rows))
    assert "not prunable  w0, w1, w2 and 6 more: why" in shown


def test_nothing_prunable(inspection: InspectReport, report: Report) -> None:
    empty = dataclasses.replace(inspection, layers=())
    assert "no prunable layer" in text.render_inspect(empty)
    assert "no prunable layer" in text.render(dataclasses.replace(report, layers=()))


def test_a_layer_with_nothing_left(layer_row: Callable[..., LayerRow], report: Report) -> None:
    gone = dataclasses.replace(report, layers=(layer_row("a", kept=0),))
    assert "100 -> 0 in prunable layers: none left" in text.render(gone)
