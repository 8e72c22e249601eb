"""Real models: facts about their weights that were checked by hand."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.graph.dropout import find_dropouts
from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model


def scan_of(zoo, name):
    return find_layers(Model(onnx.load(zoo / f"{name}.onnx")))


def test_recurrent_weights_inside_if_branches(zoo):
    scan = scan_of(zoo, "silero_vad_16k_op15")
    assert not scan.unprunable
    found = {layer.name: layer for layer in scan.layers}
    assert len(found) == 8
    for name in ("model.decoder.rnn.weight_ih", "model.decoder.rnn.weight_hh"):
        uses = found[name].uses
        assert [use.op_type for use in uses] == ["LSTM", "LSTM"]
        assert all(".then_branch" in use.node or ".else_branch" in use.node for use in uses)
        assert all(use.roles == ("output", "input") for use in uses)


def test_if_in_if(zoo):
    scan = scan_of(zoo, "silero_vad_v4")
    depths = {use.node.count("_branch/") for layer in scan.layers for use in layer.uses}
    assert (len(scan.layers), len(scan.unprunable), depths) == (52, 0, {1, 2})


def test_all_weights_in_constant_nodes(zoo):
    scan = scan_of(zoo, "silero_vad_openvino_16k")
    assert {layer.kind for layer in scan.layers} == {"constant"}
    assert len(scan.layers) == 8


def test_lstm(zoo):
    scan = scan_of(zoo, "dtln_model_1")
    found = {layer.name: layer.uses[0] for layer in scan.layers}
    for name in ("lstm_4_W", "lstm_4_R", "lstm_5_W", "lstm_5_R"):
        assert found[name].roles == ("direction", "output", "input")
    assert len(found) == 5


def test_weights_shared_by_several_nodes(zoo):
    found = {
        layer.name: layer for layer in scan_of(zoo, "vnn23_nn4sys_pensieve_mid_parallel").layers
    }
    assert len(found["bw"].uses) == 6
    assert [use.node for use in found["linear3.weight"].uses] == [
        "/linear3/Gemm",
        "/linear3_1/Gemm",
    ]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("onnx_light_inception_v2", 70),
        ("onnx_light_resnet50", 54),
        ("onnx_light_shufflenet", 50),
        ("onnx_light_squeezenet", 26),
        ("onnx_light_vgg19", 19),
    ],
)
def test_weights_made_at_run_time(zoo, name, count):
    scan = scan_of(zoo, name)
    assert not scan.layers
    assert len(scan.unprunable) == count
    assert all("made at run time by ConstantOfShape" in entry.reason for entry in scan.unprunable)


def test_dropout_fed_by_two_convolutions(zoo):
    model = Model(onnx.load(zoo / "squeezenet_fp16.onnx"))
    layers = find_layers(model).layers
    assert len(layers) == 26
    (site,) = find_dropouts(model, layers)
    assert (site.ratio, site.reason) == (0.5, None)
    assert [a.name for a in site.feeding] == ["fire9/expand1x1_w_0", "fire9/expand3x3_w_0"]


def test_dropout_fed_by_a_convolution(zoo):
    model = Model(onnx.load(zoo / "vnn23_collins_rul_full40.onnx"))
    (site,) = find_dropouts(model, find_layers(model).layers)
    assert [a.name for a in site.feeding] == ["fc_1_W"]


def test_every_model_has_layers_or_reasons(zoo):
    for path in sorted(zoo.glob("*.onnx")):
        model = Model(onnx.load(path))
        scan = find_layers(model)
        assert scan.layers or scan.unprunable, path.name
        addresses = [layer.address for layer in scan.layers]
        assert len(addresses) == len(set(addresses))
        assert all(address in model.tensors for address in addresses)
        for layer in scan.layers:
            assert all(len(use.roles) == len(layer.shape) for use in layer.uses)
