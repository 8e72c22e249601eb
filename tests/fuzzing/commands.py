"""The command lines that inputs are driven through, and how often each is taken."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command line, run in the folder of a case.

    Attributes:
        line: Arguments, separated by spaces; ``m.onnx`` is the mutated model, ``s.onnx`` the seed.
        weight: How often it is taken, against the others.
        writes: Files that a success writes, without data files beside models.
        samples: Whether it reads ``data.npz``.
    """

    line: str
    weight: float
    writes: tuple[str, ...] = ()
    samples: bool = False

    @property
    def arguments(self) -> list[str]:
        """The arguments."""
        return self.line.split()


MODEL = ("out/o.onnx",)


def _prune(options: str, weight: float, samples: bool = False) -> Command:
    return Command(f"m.onnx -o out/o.onnx {options}".strip(), weight, MODEL, samples)


COMMANDS: tuple[Command, ...] = (
    _prune("", 0.4),
    _prune("--no-latency", 5),
    _prune("-q 1.5 --no-check --no-shrink", 9),
    _prune("-q 0.5 --format constant --no-check --no-shrink", 8),
    _prune("-q 1 --format gaps --no-check --no-shrink", 9),
    _prune("--sparsity 0.9 --format gaps --no-latency", 3),
    _prune("--sparsity 0.95 --format constant --no-latency --no-shrink", 3),
    _prune("-q 1 --format dense --no-check --quiet", 4),
    _prune("--sparsity 0.7 --scope layer --no-check --no-shrink", 6),
    _prune("--pattern 2:4 --no-check", 5),
    _prune("--pattern 4x1 --sparsity 0.5 --no-check", 4),
    _prune("-q 0 --no-check", 6),
    _prune("-q 2 --shrink --align 1 --no-check --no-latency", 4),
    _prune("--channels 0.5 --no-check --no-latency", 3),
    _prune("--channels 0.3 --align 1 --scope layer -q 0.5 --no-latency", 1.5),
    _prune("--macs 0.5 --no-check --no-latency", 1.5),
    _prune("--allow-nonfinite --embeddings --layer *=1.2 --no-check --no-shrink", 5),
    _prune("--layer fc*=0.4 --exclude w --no-check", 2),
    Command("m.onnx --dry-run --json - --no-shrink", 7),
    Command("m.onnx -o out/o.onnx --json out/r.json --no-check", 3, ("out/o.onnx", "out/r.json")),
    Command("inspect m.onnx", 8),
    Command("inspect m.onnx --groups --embeddings", 4),
    Command("inspect m.onnx --groups --json -", 2),
    Command("evaluate m.onnx --runs 0", 4),
    Command("evaluate s.onnx m.onnx --val data.npz --runs 0", 2, (), True),
    Command("evaluate s.onnx m.onnx --val data.npz --runs 1 --json -", 0.1, (), True),
    _prune("--val data.npz --no-check --no-shrink", 3, True),
    _prune("--sparsity 0.6 --calibrate data.npz --no-check --no-shrink", 1.2, True),
    _prune("--sparsity 0.6 --criterion sparsegpt --calibrate data.npz --no-check", 0.5, True),
    _prune("--calibrate data.npz --repair match --no-check", 0.5, True),
    _prune("--calibrate data.npz --repair bn --no-check", 0.4, True),
    _prune(
        "--channels 0.5 --importance activation --calibrate data.npz --no-check --no-latency",
        0.5,
        True,
    ),
    _prune("--train data.npz --epochs 1 --batch-size 4 --no-check --no-shrink", 1, True),
    _prune("--train data.npz --distill --epochs 1 --rounds 1 --no-check", 0.2, True),
    _prune("--max-drop 5 --trials 3 --val data.npz --no-check", 0.2, True),
    Command(
        "sensitivity m.onnx --val data.npz --jobs 1 --sparsities 0.5 --plot out/p.svg",
        0.3,
        ("out/p.svg",),
        True,
    ),
)
