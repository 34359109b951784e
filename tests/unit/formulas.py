"""Formulas written as loops in float64, to which several tests of the losses compare."""

import math

import numpy as np


def textbook(scores, epsilon, iterations):
    """Sinkhorn-Knopp as in Caron et al. 2020: exp, then columns to 1/K and rows to 1/N in turn;
    rows sum to one."""
    scores = np.asarray(scores, dtype=np.float64)
    rows, columns = scores.shape
    q = np.exp((scores - scores.max()) / epsilon)
    q /= q.sum()
    for _ in range(iterations):
        for k in range(columns):
            q[:, k] /= q[:, k].sum() * columns
        for n in range(rows):
            q[n] /= q[n].sum() * rows
    return q * rows


def loss_by_loops(logits, targets, temperature):
    """CL of one row of float64 tensors, differentiable: - sum_k p_k log softmax(logits /
    temperature)_k."""
    total = 0.0
    normaliser = sum((x / temperature).exp() for x in logits)
    for x, p in zip(logits, targets):
        total = total - p * ((x / temperature).exp() / normaliser).log()
    return total


def statistics_by_loops(targets):
    """Mean entropy of the rows, entropy of the mean row, share of the columns that are some row's
    largest, number of rows."""
    rows, prototypes = targets.shape
    entropy = sum(-p * math.log(p) for row in targets.tolist() for p in row if p > 0) / rows
    mean = [sum(targets[:, k].tolist()) / rows for k in range(prototypes)]
    used = {max(range(prototypes), key=lambda k: row[k]) for row in targets.tolist()}
    return entropy, sum(-p * math.log(p) for p in mean if p > 0), len(used) / prototypes, rows


def sample_by_loops(maps, valid, x, y):
    """Bilinear feature of a frame (H, W, D) at one place (in cells from the corner), and the share
    of valid weight."""
    height, width = valid.shape
    x, y = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    total, weight = 0, 0
    for i in range(height):
        for j in range(width):
            share = max(0, 1 - abs(x - j)) * max(0, 1 - abs(y - i))
            if share and valid[i, j]:
                total, weight = total + share * maps[i, j].double().numpy(), weight + share
    return total, weight
