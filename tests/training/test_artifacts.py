"""The four files: run by plain onnxruntime sessions, loaded again, refused where they exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from onnxprune.errors import DataError, ModelError, OutputError, UsageError
from onnxprune.training import LossConfig, Optimizer, Trainer, generate_artifacts
from onnxprune.training.artifacts import load_artifacts
from tests.training.nets import CNN_SHAPES, batches, cnn, mlp, stored
from tests.training.test_trainer import torch_net

FILES = {
    "training_model.onnx",
    "eval_model.onnx",
    "optimizer_model.onnx",
    "checkpoint.safetensors",
}


def session(path: Path) -> Any:
    onnx.checker.check_model(str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name; feeds that the graph does not take are left out."""
    opened = session(path)
    names = [value.name for value in opened.get_outputs()]
    taken = {v.name: feeds[v.name] for v in opened.get_inputs()}
    return dict(zip(names, opened.run(names, taken), strict=True))


def test_plain_sessions_give_the_gradients_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    proto = cnn()
    made = generate_artifacts(proto, tmp_path / "new" / "folder", optimizer="sgd")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == FILES
    net, named = torch_net(torch, proto, "cnn")
    weights = load_file(folder / "checkpoint.safetensors")
    assert set(weights) == set(CNN_SHAPES)
    for name, array in weights.items():
        assert np.array_equal(array, stored(proto)[name])
    batch = batches(1, 8, (2, 6, 6))[0]
    found = run(folder / "training_model.onnx", {**batch, **weights})
    scores = net(torch.tensor(batch["x"]))
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(batch["labels"]))
    loss.backward()
    assert found[made.loss.loss] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in named.items():
        gradient = parameter.grad.numpy()
        np.testing.assert_allclose(found[f"{name}.gradient"], gradient, rtol=1e-4, atol=1e-6)
    evaluated = run(folder / "eval_model.onnx", {**batch, **weights})
    assert evaluated[made.loss.loss] == pytest.approx(loss.item(), rel=1e-5)
    assert made.loss.correct is not None
    right = (scores.argmax(axis=1).numpy() == batch["labels"]).sum()
    assert evaluated[made.loss.correct] == right
    np.testing.assert_allclose(evaluated["y"], scores.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_three_sessions_do_what_a_trainer_does(tmp_path: Path) -> None:
    """The artifacts without any of our code: training, then update, over several steps."""
    options = {"optimizer": Optimizer(l2=0.1), "clip_norm": 0.5}
    generate_artifacts(mlp(), tmp_path, **options)
    training = session(tmp_path / "training_model.onnx")
    update = session(tmp_path / "optimizer_model.onnx")
    values = load_file(tmp_path / "checkpoint.safetensors")
    feeds = dict(values)
    for value in update.get_inputs():
        if value.name not in values and value.name.split(".")[0] in values:
            fill = np.ones if value.name.endswith(".mask") else np.zeros
            feeds[value.name] = fill(value.shape, np.float32)
    trainer = Trainer(tmp_path)
    names = [value.name for value in training.get_outputs()]
    new = [value.name for value in update.get_outputs()]
    for number, batch in enumerate(batches(4, (8, 3)), start=1):
        taken = {v.name: {**feeds, **batch}[v.name] for v in training.get_inputs()}
        feeds.update(zip(names, training.run(names, taken), strict=True))
        feeds["onnxprune.learning_rate"] = np.array(0.01, np.float32)
        feeds["onnxprune.step"] = np.array(number, np.int64)
        taken = {value.name: feeds[value.name] for value in update.get_inputs()}
        results = zip(new, update.run(new, taken), strict=True)
        feeds.update((name.removesuffix(".updated"), array) for name, array in results)
        trainer.step(batch, 0.01)
    for name, array in trainer.parameters().items():
        np.testing.assert_allclose(feeds[name], array, rtol=1e-5, atol=1e-7)


def test_loaded_artifacts_train_as_graphs_in_memory_do(tmp_path: Path) -> None:
    made = generate_artifacts(mlp(), tmp_path, bn="train")
    loaded = load_artifacts(str(tmp_path))
    assert loaded.loss == made.loss
    assert loaded.selection == made.selection
    assert (loaded.masked, loaded.states) == (made.masked, made.states)
    engines = [Trainer(made, threads=1), Trainer(tmp_path, threads=1)]
    for batch in batches(5):
        first, second = (engine.step(batch, 0.01) for engine in engines)
        assert first == second
    for name, array in engines[0].state().items():
        assert engines[1].state()[name].tobytes() == array.tobytes()


def test_labels_by_example_and_own_losses(tmp_path: Path) -> None:
    made = generate_artifacts(mlp(), tmp_path, labels=np.zeros((5, 3), np.float32), loss="mse")
    batch = {"x": batches(1)[0]["x"], "labels": np.ones((8, 3), np.float32)}
    weights = load_file(tmp_path / "checkpoint.safetensors")
    found = run(tmp_path / "training_model.onnx", {**batch, **weights})
    scores = run(tmp_path / "eval_model.onnx", {**batch, **weights})["y"]
    assert found[made.loss.loss] == pytest.approx(((scores - 1) ** 2).mean(), rel=1e-5)
    made = generate_artifacts(mlp(), tmp_path, loss=LossConfig(label_smoothing=0.1), overwrite=True)
    assert "cross-entropy" in made.loss.description


def test_files_are_only_replaced_on_request(tmp_path: Path) -> None:
    generate_artifacts(mlp(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="exists; pass overwrite=True"):
        generate_artifacts(mlp(seed=1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    generate_artifacts(mlp(seed=1), tmp_path, overwrite=True)
    after = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert after != before["checkpoint.safetensors"]
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(OutputError, match=r"training_model\.onnx' exists"):
        generate_artifacts(mlp(), tmp_path)


def test_nothing_is_written_for_a_model_that_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        generate_artifacts(mlp(), tmp_path / "a", train_layers=("nothing*",))
    with pytest.raises(ModelError):
        generate_artifacts(tmp_path / "absent.onnx", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        generate_artifacts(mlp(), tmp_path / "file")


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_or_damaged_files_are_explained(tmp_path: Path, name: str) -> None:
    generate_artifacts(mlp(), tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_artifacts(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        Trainer(tmp_path)
