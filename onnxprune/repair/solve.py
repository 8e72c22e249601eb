"""Ridge regressions of many outputs at once, each on its own set of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["block_deltas", "normal_deltas", "rough_deltas", "sample_deltas", "sample_work"]

#: Sets of inputs up to this size are solved many at a time.
SMALL = 96
#: Inputs of a block, and how often all blocks are gone through.
BLOCK, SWEEPS = 2048, 3
#: Iterations of a rough solution.
ROUGH = 12
#: Numbers in the matrices that are solved at a time.
NUMBERS = 2**22


def normal_deltas(
    gram: np.ndarray, cross: np.ndarray, alive: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """Changes of weights that reduce the squared residual most, from normal equations.

    Minimises ``|r - x d|^2 + ridge |d|^2`` for each output over the inputs that it keeps.

    Args:
        gram: ``x.T @ x`` [groups, inputs, inputs], float64.
        cross: ``x.T @ r`` [groups, inputs, outputs], float64.
        alive: Inputs that each output keeps [groups, outputs, inputs].
        ridge: Strength of the ridge by group, above 0.

    Returns:
        ``d`` [groups, outputs, inputs]; zero where an input is not kept.
    """
    sizes = alive.sum(axis=2)
    delta = np.zeros(alive.shape)
    rows = np.argwhere((sizes > 0) & cross.any(axis=1))
    rows = rows[np.argsort(sizes[rows[:, 0], rows[:, 1]], kind="stable")]
    small = sizes[rows[:, 0], rows[:, 1]] <= SMALL
    for part in _parts(rows[small], sizes):
        _solve_many(gram, cross, alive, ridge, part, delta)
    _solve_large(gram, cross, alive, ridge, rows[~small], delta)
    return delta


def _parts(rows: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of similar size, as many as fit into memory at a time; they come sorted by size."""
    start = 0
    while start < len(rows):
        least = int(sizes[tuple(rows[start])])
        stop = start + 1
        # Padding a row to twice its size would make its solution eight times as long.
        while stop < len(rows):
            size = int(sizes[tuple(rows[stop])])
            if size > 1.25 * least + 4 or (stop - start + 1) * size**2 > NUMBERS:
                break
            stop += 1
        yield rows[start:stop]
        start = stop


def _solve_many(
    gram: np.ndarray,
    cross: np.ndarray,
    alive: np.ndarray,
    ridge: np.ndarray,
    rows: np.ndarray,
    delta: np.ndarray,
) -> None:
    """Solve rows at once, each padded with equations ``d = 0`` to the size of the largest."""
    group, output = rows.T
    kept = alive[group, output]
    sizes = kept.sum(axis=1)
    widest = int(sizes.max())
    # Kept inputs first, in order; what follows is padding.
    order = np.argsort(~kept, axis=1, kind="stable")[:, :widest]
    real = np.arange(widest) < sizes[:, None]
    matrix = gram[group[:, None, None], order[:, :, None], order[:, None, :]]
    matrix *= real[:, :, None] & real[:, None, :]
    diagonal = np.arange(widest)
    matrix[:, diagonal, diagonal] += np.where(real, ridge[group][:, None], 1.0)
    right = np.where(real, cross[group[:, None], order, output[:, None]], 0.0)
    found = np.linalg.solve(matrix, right[..., None])[..., 0]
    at, column = np.nonzero(real)
    delta[group[at], output[at], order[at, column]] = found[at, column]


def _solve_large(
    gram: np.ndarray,
    cross: np.ndarray,
    alive: np.ndarray,
    ridge: np.ndarray,
    rows: np.ndarray,
    delta: np.ndarray,
) -> None:
    """Solve rows by Cholesky decomposition; rows that keep the same inputs share one."""
    from scipy.linalg.lapack import dposv

    shared: dict[tuple[int, bytes], list[int]] = {}
    for group, output in rows:
        key = int(group), np.packbits(alive[group, output]).tobytes()
        shared.setdefault(key, []).append(int(output))
    for (group, _), outputs in shared.items():
        kept = np.flatnonzero(alive[group, outputs[0]])
        matrix = gram[group][np.ix_(kept, kept)]
        matrix[np.diag_indices_from(matrix)] += ridge[group]
        right = cross[group][np.ix_(kept, np.array(outputs))]
        _, found, failed = dposv(matrix.T, right, lower=1, overwrite_a=1)
        if failed:
            found = np.linalg.lstsq(matrix, right, rcond=None)[0]
        delta[group, np.array(outputs)[:, None], kept] = found.T


def sample_deltas(
    x: np.ndarray, residual: np.ndarray, alive: np.ndarray, ridge: float
) -> np.ndarray:
    """The same changes where samples are fewer than inputs: systems of the size of the samples.

    Each output's matrix is made from the inputs that it keeps, in the smaller of the two spaces:
    memory holds the samples, never a matrix of inputs x inputs.

    Args:
        x: Inputs [rows, inputs].
        residual: What is to be explained [rows, outputs].
        alive: Inputs that each output keeps [outputs, inputs].
        ridge: Strength of the ridge, above 0.

    Returns:
        ``d`` [outputs, inputs].
    """
    from scipy.linalg.lapack import dposv

    delta = np.zeros(alive.shape)
    for output in np.flatnonzero(alive.any(axis=1) & residual.any(axis=0)):
        kept = np.flatnonzero(alive[output])
        part = x[:, kept]
        right = residual[:, output].astype(np.float64, copy=False)
        dual = len(kept) > len(x)
        matrix = (part @ part.T if dual else part.T @ part).astype(np.float64, copy=False)
        matrix[np.diag_indices_from(matrix)] += ridge
        right = right if dual else part.T @ right
        _, found, failed = dposv(matrix.T, right, lower=1, overwrite_a=1)
        if failed:
            found = np.linalg.lstsq(matrix, right, rcond=None)[0]
        delta[output, kept] = part.T @ found if dual else found
    return delta


def sample_work(alive: np.ndarray, rows: int) -> float:
    """Multiplications that `sample_deltas` takes."""
    kept = alive.sum(axis=1).astype(float)
    return float((rows * kept * np.minimum(rows, kept)).sum())


def block_deltas(
    x: np.ndarray,
    residual: np.ndarray,
    alive: np.ndarray,
    ridge: float,
    *,
    block: int = BLOCK,
    sweeps: int = SWEEPS,
) -> np.ndarray:
    """The same changes, near enough, block by block of inputs (block Gauss-Seidel).

    Every sweep brings them nearer to those of `sample_deltas`; memory holds the Gram matrix of one
    block, which all outputs share.

    Args:
        x: Inputs [rows, inputs].
        residual: What is to be explained [rows, outputs].
        alive: Inputs that each output keeps [outputs, inputs].
        ridge: Strength of the ridge, above 0.
        block: Inputs of a block.
        sweeps: How often all blocks are gone through.

    Returns:
        ``d`` [outputs, inputs].
    """
    delta = np.zeros(alive.shape)
    rest = residual.astype(np.float64)
    strength = np.array([ridge])
    for _ in range(sweeps):
        for start in range(0, x.shape[1], block):
            part = slice(start, start + block)
            own = x[:, part]
            rest += own @ delta[:, part].T
            gram = (own.T @ own).astype(np.float64)
            cross = own.T @ rest
            kept = alive[:, part]
            delta[:, part] = normal_deltas(gram[None], cross[None], kept[None], strength)[0]
            rest -= own @ delta[:, part].T
    return delta


def rough_deltas(
    product: Callable[[np.ndarray], np.ndarray],
    diagonal: np.ndarray,
    cross: np.ndarray,
    alive: np.ndarray,
    ridge: float,
    *,
    iterations: int = ROUGH,
) -> np.ndarray:
    """The same changes roughly, of all outputs at once, by preconditioned conjugate gradients.

    A solution that only says which weights go next needs few digits, and a few products with the
    whole Gram matrix are much quicker than one decomposition for every output.

    Args:
        product: The Gram matrix times a matrix [inputs, outputs].
        diagonal: Of the Gram matrix [inputs].
        cross: ``r.T @ x`` [outputs, inputs].
        alive: Inputs that each output keeps [outputs, inputs].
        ridge: Strength of the ridge, above 0.
        iterations: Most iterations.

    Returns:
        ``d`` [outputs, inputs].
    """
    strength = cross.dtype.type(ridge)
    scale = 1 / (diagonal + strength)
    delta = np.zeros(alive.shape, cross.dtype)
    rest = np.where(alive, cross, 0)
    way = rest * scale
    size = np.einsum("mk,mk->m", rest, way)
    for _ in range(iterations):
        if not size.any():
            break
        image = np.where(alive, product(way.T).T + strength * way, 0)
        along = np.einsum("mk,mk->m", way, image)
        step = np.divide(size, along, out=np.zeros_like(size), where=along > 0)[:, None]
        delta += step * way
        rest -= step * image
        turned = rest * scale
        after = np.einsum("mk,mk->m", rest, turned)
        ratio = np.divide(after, size, out=np.zeros_like(size), where=size > 0)
        way = turned + ratio[:, None] * way
        size = after
    return delta
