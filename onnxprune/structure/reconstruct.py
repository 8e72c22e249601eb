"""Least-squares repair of the weights that read the kept channels, before the others go.

A model whose weights are zero wherever a channel is going to be removed computes what the smaller
model will: it is refitted like any pruned model, layer by layer in graph order, on the inputs that
each layer gets there, towards what the dense model computes; biases too. Source: He et al.,
"Channel Pruning for Accelerating Very Deep Neural Networks" (2017), section 3.1, step 2.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np
from onnx import NodeProto, numpy_helper

from ..data.source import BatchSource
from ..data.specs import input_specs
from ..graph.layers import find_layers
from ..model.model import Model
from ..model.payload import ArrayPayload, Payload
from ..model.save import to_proto
from ..model.sources import read
from ..model.tensors import TensorAddress
from ..pruning.plan import make_plan
from ..repair.repair import Repairer
from ..repair.samples import Samples
from .analysis import Coupling
from .atoms import Labels

__all__ = ["Reconstructor"]

Progress = Callable[[str, int, int], None]

#: Pull of the refit towards the weights as they are. Few samples do not tell the many ways apart in
#: which kept channels can stand in for the others: of 512, this much held most on data unseen.
RIDGE = 0.1
_BIASED = ("Conv", "ConvTranspose", "Gemm")
#: Operands, by position, that add to a result and can be zero where a channel goes.
_ADDED = {"Add": (0, 1), "BatchNormalization": (1, 2), "Conv": (2,), "Gemm": (2,)}


class Reconstructor:
    """Refits a model for the loss of atoms, any number of times on the same samples.

    Args:
        coupling: The analysed model.
        data: Calibration data; labels are not used.
        samples: Most samples that are taken.
        keep: Weights that stay as they are.

    Raises:
        DataError: The data does not fit the model, or holds NaN or infinity.
    """

    def __init__(
        self,
        coupling: Coupling,
        data: BatchSource | Samples,
        samples: int,
        keep: Collection[str] = (),
    ) -> None:
        self.coupling = coupling
        self.model = read(coupling.prepared.proto)
        scan = find_layers(self.model)
        names = (layer.name for layer in scan.layers if layer.address.name in keep)
        plans = make_plan(
            self.model,
            scan,
            sparsity=0.0,
            exclude=tuple(map(glob.escape, names)),
            allow_nonfinite=True,
        )
        self.repairer = Repairer(self.model, plans, data, samples=samples)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the samples."""
        return self.repairer.samples.warnings

    def one_run(self) -> dict[str, np.ndarray]:
        """Inputs of one run: a sample, or as many as the model insists on."""
        specs = input_specs(self.model.proto)
        size = min((fixed for spec in specs if (fixed := spec.fixed_batch)), default=1)
        first = self.repairer.samples.batches[0]
        return {s.name: first[s.name] if s.shared else first[s.name][:size] for s in specs}

    def refitted(self, atoms: Iterable[int], progress: Progress | None = None) -> Coupling:
        """The coupling of the same graph with weights fitted to do without these atoms.

        Layers that got a bias for it have it in the coupling, too: remove the atoms from it as
        from the one that was given.

        Raises:
            CannotRun: onnxruntime does not run the model.
        """
        atoms = tuple(atoms)
        repaired = self.repairer.repair(self.masked(atoms), ridge=RIDGE, progress=progress)
        proto, gone = to_proto(repaired.model), self.coupling.atoms.marks(atoms)
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        axes = dict(self.coupling.axes)
        for node in proto.graph.node:
            labels = self._labels_of_new_bias(node)
            if labels is None:
                continue
            axes[node.input[2]] = (labels,)
            kept = ~gone[self.coupling.atoms.resolve(labels)]
            if not numpy_helper.to_array(tensors[node.input[2]])[kept].any():
                # Only outputs that go have made it differ from nothing.
                proto.graph.initializer.remove(tensors[node.input[2]])
                del node.input[2:]
        prepared = replace(self.coupling.prepared, proto=proto)
        return replace(self.coupling, prepared=prepared, axes=axes)

    def _labels_of_new_bias(self, node: NodeProto) -> Labels | None:
        """Labels of a bias that the repair has added: those of the channels of the result."""
        known = self.coupling.axes
        if node.op_type not in _BIASED or len(node.input) < 3 or node.input[2] in known:
            return None
        return known[node.output[0]][1] if node.output[0] in known else None

    def masked(self, atoms: Iterable[int]) -> Model:
        """The model with zeros where atoms go, in the weights of layers and what is added."""
        gone = self.coupling.atoms.marks(atoms)
        names = {job.layer.address.name for job in self.repairer.jobs.jobs}
        for node in self.model.proto.graph.node:
            for place in _ADDED.get(node.op_type, ()):
                names.update(node.input[place : place + 1])
        changed: dict[TensorAddress, Payload] = {}
        for name in sorted(names & self.coupling.constants.keys()):
            address = TensorAddress((), name)
            masks = self.coupling.kept(name, gone)
            if address not in self.model.tensors or all(mask.all() for mask in masks):
                continue
            array = self.model.array(self.model.tensors[address]).copy()
            for axis, mask in enumerate(masks):
                np.moveaxis(array, axis, 0)[~mask] = 0
            changed[address] = ArrayPayload.of(array)
        return self.model.with_payloads(changed)
