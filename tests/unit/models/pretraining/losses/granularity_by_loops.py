"""Equations 2-4 written as loops in float64, for one small scene."""

import numpy as np
import torch

from models.pretraining.losses.dino import DinoSpec
from models.pretraining.losses.multi_granularity import GranularitySpec, ViewMaps
from tests.unit.formulas import sample_by_loops, textbook
from tests.unit.scenes import random_affines, random_maps

SPEC = GranularitySpec(DinoSpec(0.2, 0.3, 3), clusters=3, cluster_epsilon=0.2)
WIDTH, PROTOTYPES, FRAMES = 5, 6, 2


def linear_heads(seed):
    """Heads without hidden layers: their weights (K, D)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(PROTOTYPES, WIDTH, generator=generator) / 3 for name in ("image", "dense")
    }


def scene(batch=2, seed=0, holes=0.2):
    """Student views of two sizes and teacher views: ViewMaps by size, ViewMaps."""
    affine = {
        "global": random_affines(batch, 2, 10, 18, seed=seed),
        "local": random_affines(batch, 3, 4, 8, seed=seed + 1),
    }
    student = {
        "global": ViewMaps(*random_maps(batch, 2, FRAMES, 4, WIDTH, seed, holes), affine["global"]),
        "local": ViewMaps(
            *random_maps(batch, 3, FRAMES, 2, WIDTH, seed + 1, holes), affine["local"]
        ),
    }
    maps, _ = random_maps(batch, 2, FRAMES, 4, WIDTH, seed + 2)
    return student, ViewMaps(maps, student["global"].valid, affine["global"])


def pairs_of(student, teacher):
    """All (size, sample, student view, teacher view, frame); not a view with itself."""
    for size, views in student.items():
        for b, s, t, f in np.ndindex(*views.maps.shape[:2], teacher.maps.shape[1], FRAMES):
            if not (size == "global" and s == t):
                yield size, b, s, t, f


def matched_cells(student, teacher, size, b, s, t, f):
    """[(i, j, teacher feature)] of the valid matched cells of one pair and frame."""
    views, found = student[size], []
    side = views.maps.shape[3]
    for i, j in np.ndindex(side, side):
        xy = views.affine[b, s].numpy() @ np.array([(j + 0.5) / side, (i + 0.5) / side, 1])
        a = teacher.affine[b, t].numpy()
        u, v = np.linalg.solve(a[:, :2], xy - a[:, 2])
        if not (min(u, v) >= -1e-9 and max(u, v) <= 1 + 1e-9 and views.valid[b, s, f, i, j]):
            continue
        height, width = teacher.valid.shape[3:]
        total, weight = sample_by_loops(
            teacher.maps[b, t, f], teacher.valid[b, t, f], u * width, v * height
        )
        if weight > 0.5 - 1e-6:
            found.append((i, j, total / weight))
    return found


def mean_loss(rows, head, teacher_head):
    """Mean over pairs of views of their mean cross-entropy, for [(pair of views, student feature,
    teacher feature)]; targets from all teacher features by the textbook."""
    logits = np.stack([feature for _, _, feature in rows]) @ teacher_head.double().numpy().T
    targets = textbook(logits, SPEC.dino.teacher_temperature, SPEC.dino.iterations)
    return mean_to_targets([(pair, x, p) for (pair, x, _), p in zip(rows, targets)], head)


def mean_to_targets(rows, head):
    by_pair = {}
    for pair, feature, target in rows:
        logits = head.double() @ feature / SPEC.dino.student_temperature
        loss = -(torch.tensor(target) * (logits - logits.exp().sum().log())).sum()
        by_pair.setdefault(pair, []).append(loss)
    return sum(sum(losses) / len(losses) for losses in by_pair.values()) / len(by_pair)


def unit(x):
    norm = np.linalg.norm(x)
    return x / norm if norm else x


def cluster_by_loops(cells, side, clusters):
    """Shares (cells, C) of one pair and frame, columns summing to one; cells [(i, j, feature)]."""
    features = np.stack([x for _, _, x in cells])
    features = features - features.mean(0)
    directions = np.stack([unit(x) for x in features])
    rows = max(d for d in range(1, clusters + 1) if clusters % d == 0 and d * d <= clusters)
    columns = clusters // rows

    def block(k):
        i, j, _ = cells[k]
        return int((i + 0.5) * rows / side) * columns + int((j + 0.5) * columns / side)

    order = sorted(range(len(cells)), key=block)
    seeds = np.zeros((clusters, features.shape[1]))
    for rank, k in enumerate(order):
        seeds[rank * clusters // len(cells)] += features[k]
    seeds = np.stack([unit(x) for x in seeds])
    for _ in range(4):
        shares = textbook(directions @ seeds.T, SPEC.cluster_epsilon, SPEC.dino.iterations)
        seeds = np.stack([unit(x) for x in shares.T @ features])
    return shares / shares.sum(0)


def reference(student, teacher, heads):
    """Losses by level in float64 and the student's maps and heads they depend on."""
    maps = {size: views.maps.double().requires_grad_() for size, views in student.items()}
    heads = {name: w.double().requires_grad_() for name, w in heads.items()}
    other = linear_heads(6)
    pixels, things = [], []
    for size, b, s, t, f in pairs_of(student, teacher):
        cells, side = matched_cells(student, teacher, size, b, s, t, f), student[size].maps.shape[3]
        pair = size, b, s, t
        pixels += [(pair, maps[size][b, s, f, i, j], x) for i, j, x in cells]
        clusters = min(SPEC.clusters, max(1, side * side // 4))
        if len(cells) >= clusters:
            shares = cluster_by_loops(cells, side, clusters)
            for c in range(clusters):
                own = sum(
                    w * maps[size][b, s, f, i, j] for w, (i, j, _) in zip(shares[:, c], cells)
                )
                other_own = sum(w * x for w, (_, _, x) in zip(shares[:, c], cells))
                things.append((pair, own, other_own))
    pooled = {}  # teacher view -> mean of its valid cells
    for b, t, f in np.ndindex(*teacher.maps.shape[:3]):
        if teacher.valid[b, t, f].any():
            pooled[b, t, f] = teacher.maps[b, t, f][teacher.valid[b, t, f]].double().numpy().mean(0)
    targets = textbook(np.stack(list(pooled.values())) @ other["image"].double().numpy().T, 0.3, 3)
    targets = dict(zip(pooled, targets))
    images = [
        (
            (size, b, s, t),
            maps[size][b, s, f][student[size].valid[b, s, f]].mean(0),
            targets[b, t, f],
        )
        for size, b, s, t, f in pairs_of(student, teacher)
        if student[size].valid[b, s, f].any() and (b, t, f) in targets
    ]
    losses = {
        "pixel": mean_loss(pixels, heads["dense"], other["dense"]),
        "object": mean_loss(things, heads["dense"], other["dense"]),
        "image": mean_to_targets(images, heads["image"]),
    }
    return losses, maps, heads
