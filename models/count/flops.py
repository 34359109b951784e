"""Matrix-multiply FLOPs of the model and its losses, from their sizes alone.

The product of an (m, k) and a (k, n) matrix is 2 m k n FLOPs: a multiply-add counts as two. All
else (norms, softmax, activations, sampling, look-ups) counts nothing. That is the convention of
``torch.utils.flop_counter``, with which this file agrees to the last digit where attention is not
fused. Every modality and frame of the specification is present, no token is dropped by the experts,
and empty slots of their buffers are not counted.

What the modules share (position tables, bias networks, prompts) is computed once a call, whatever
the batch. The loss of the heads holds no logits: what it computes again for that, in its forward
pass, is counted as recomputed, and the gradients of the last layer, made there too, as backward.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from models.backbone.swin_v2 import BIAS_HIDDEN
from models.backbone.windows import windows_of
from models.errors import ModelError
from models.features import FUSED
from models.packing import Group
from models.pretraining.losses.clusters import ROUNDS, cluster_count
from models.pretraining.losses.semantic_aggregation import SYMMETRIC
from models.spec import CELL_METRES, HeadSpec, ModelSpec

SHARED = "shared"  # modality or view of what is computed once for all
MLP_RATIO = 4  # of fusion and query decoder, whatever the backbone's
TEACHER = "global"  # size of the views that the teacher of the multi-granularity losses looks at


class ViewSize(NamedTuple):
    """The views of one size."""

    views: int
    cells: int  # 10 m cells along a side


@dataclass(frozen=True)
class Cost:
    """FLOPs of one module on the images of one modality in the views of one size."""

    module: str
    modality: str  # of the specification, "fused", or "shared"
    view: str  # size of the views, or "shared"
    flops: float  # forward
    gradients: int = 2  # factors of the products that get a gradient: 2 as a rule, 0 in the teacher
    # what is computed again to save memory: by activation checkpointing, or by the head loss
    recomputed: float = 0.0

    @property
    def backward(self) -> float:
        """Every gradient of a product is a product of the same size."""
        return self.gradients * self.flops


class Rows(NamedTuple):
    """What one feature's views of one size send through the dense heads; frames count as rows of
    their own."""

    pixel: float  # student cells that lie in a partner view of the teacher
    pairs: float  # the same, once for each of these views
    objects: float


def trunk(spec: ModelSpec, sizes: Mapping[str, ViewSize], batch: int = 1) -> list[Cost]:
    """``SkySense.forward`` on the views of every size.

    Raises ModelError where a view is no whole number of patches.
    """
    costs, groups = [], []
    for size, (views, cells) in sizes.items():
        for name, modality in spec.modalities.items():
            pixels = cells * modality.pixels_per_cell
            if pixels % spec.patch:
                raise ModelError(
                    f"flops: expected views of whole patches of {spec.patch} pixels, found {cells} cells "
                    f"of {pixels} pixels of {name} in {size!r}; change the cells"
                )
            side = pixels // spec.patch
            group = Group(name, size, batch * views * modality.frames, side, side)
            product = 2 * group.tokens * modality.bands * spec.patch**2 * spec.widths[0]
            costs.append(
                Cost("tokenizer", name, size, product, gradients=1)
            )  # images get no gradient
            groups.append(group)
    block = 0
    for index, depth in enumerate(spec.depths):
        if index:
            costs += _merging(spec, index - 1, groups)
            groups = [_merged(spec, index - 1, group) for group in groups]
        mixtures = [
            spec.moe is not None and i in spec.moe.blocks for i in range(block, block + depth)
        ]
        costs += _stage(spec, index, groups, mixtures)
        block += depth
    costs += [_validity(sizes[group.view].cells, group.height, group) for group in groups]
    if spec.fusion is not None:
        costs += _fusion(spec, sizes, groups, batch)
    return _joined(costs)


def pretraining(spec: ModelSpec, sizes: Mapping[str, ViewSize], batch: int = 1) -> list[Cost]:
    """``Pretraining.forward`` on the views of every size: the trunk, and the queries that read the
    fused maps."""
    width, queries, costs = spec.fusion.width, spec.queries, trunk(spec, sizes, batch)
    for size, (views, cells) in sizes.items():
        memory = fusion_side(spec, cells) ** 2
        products = [
            queries * 4 * width**2,  # among themselves: q, k, v and out
            queries * 2 * queries * width,
            queries * 2 * width**2
            + memory * 2 * spec.fused_width * width,  # over the map: q and out, k and v
            queries * 2 * memory * width,
            queries * 2 * MLP_RATIO * width**2,
        ]
        costs.append(Cost("query decoder", FUSED, size, 2 * batch * views * sum(products)))
    return costs


def recomputed(spec: ModelSpec, costs: Iterable[Cost], policy: str) -> list[Cost]:
    """``costs`` of a model under a recompute policy, one of ``models.recompute.POLICIES``.

    What the counts above call recomputed is that of "blocks"; "pointwise" computes no product
    again.
    """
    windows = tuple(f"stage {index + 1} " for index in range(spec.window_stages))
    again = {
        "blocks": lambda cost: True,
        "windows": lambda cost: cost.module.startswith(windows),
    }.get(policy)
    return [cost if again and again(cost) else replace(cost, recomputed=0.0) for cost in costs]


def losses(
    spec: ModelSpec,
    sizes: Mapping[str, ViewSize],
    rows: Mapping[str, Mapping[str, Rows]],
    clusters: int,
    classes: int,
    iterations: int,
    batch: int = 1,
) -> list[Cost]:
    """Heads of student and teacher, losses, and the update of the geo context; KoLeo has no
    products.

    ``rows``: feature -> view size -> rows of the whole batch (they depend on how views overlap);
    ``clusters`` as in ``GranularitySpec``; ``classes`` of the image-text alignment; ``iterations``
    of Sinkhorn-Knopp, 0 for a running centre. Needs the sizes "global" and "local".
    """
    costs = [
        cost
        for feature, found in rows.items()
        for cost in granularity(spec, sizes, feature, found, clusters, iterations, batch)
    ]
    return (
        costs
        + aggregation(spec, sizes, iterations, batch)
        + alignment(spec, sizes, classes, batch)
        + context_update(spec, sizes, batch)
    )


def granularity(
    spec: ModelSpec,
    sizes: Mapping[str, ViewSize],
    feature: str,
    rows: Mapping[str, Rows],
    clusters: int,
    iterations: int,
    batch: int = 1,
) -> list[Cost]:
    """``multi_granularity`` of one feature; ``rows`` by view size."""
    width = spec.fused_width if feature == FUSED else spec.widths[-1]
    frames = 1 if feature == FUSED else spec.modalities[feature].frames
    partners, costs = sizes[TEACHER].views, []
    for size, found in rows.items():
        views, cells = sizes[size].views, map_sides(spec, sizes[size].cells)[feature] ** 2
        pairs = batch * views * partners
        product = 2 * pairs * frames * cluster_count(clusters, cells) * cells * width
        images = batch * frames * views
        most = max(1, partners - (size == TEACHER))  # teacher views that a student view meets
        costs += [
            *_both_heads(
                "dense head",
                feature,
                size,
                width,
                spec.head,
                found.pixel + found.objects,
                found.pairs + found.objects,
                found.pixel * most + found.objects,
                iterations,
            ),
            *_both_heads(
                "image head",
                feature,
                size,
                width,
                spec.head,
                images,
                images if size == TEACHER else 0,
                images * most,
                iterations,
            ),
            # places of the student's cells on the tile and in the teacher's views, two coordinates
            # each
            Cost("matching", feature, size, 2 * 4 * cells * (batch * views + pairs), gradients=0),
            # seeds, similarities and means of each round, the teacher's objects; only the student's
            # have a gradient
            Cost("objects", feature, size, (2 * ROUNDS + 3) * product, gradients=0),
            Cost("objects", feature, size, product, gradients=1),
        ]
    return [cost for cost in costs if cost.flops]


def aggregation(
    spec: ModelSpec, sizes: Mapping[str, ViewSize], iterations: int, batch: int = 1
) -> list[Cost]:
    """``semantic_aggregation``: both models' queries of both view sizes."""
    costs = []
    for size, partner in SYMMETRIC:
        views, partners = sizes[size].views, sizes[partner].views
        rows = batch * views * spec.queries
        costs += _both_heads(
            "query head",
            FUSED,
            size,
            spec.fusion.width,
            spec.head,
            rows,
            rows,
            rows * partners,
            iterations,
        )
    return costs


def alignment(
    spec: ModelSpec, sizes: Mapping[str, ViewSize], classes: int, batch: int = 1
) -> list[Cost]:
    """``image_text`` with the projection to the text's width."""
    costs = []
    for size, (views, cells) in sizes.items():
        maps = batch * views * fusion_side(spec, cells) ** 2
        costs.append(
            Cost("text projection", FUSED, size, 2 * maps * spec.fused_width * spec.text_width)
        )
        costs.append(
            Cost("text logits", FUSED, size, 2 * maps * spec.text_width * classes, gradients=1)
        )
    return costs


def context_update(spec: ModelSpec, sizes: Mapping[str, ViewSize], batch: int = 1) -> list[Cost]:
    """``GeoContext.update``: similarities with the prototypes, and weighted means of the features."""
    if spec.context is None:
        return []
    views, cells = sizes[TEACHER]
    similarity = (
        2
        * batch
        * views
        * fusion_side(spec, cells) ** 2
        * spec.context.prototypes
        * spec.context.width
    )
    return [Cost("context update", FUSED, TEACHER, 2 * similarity, gradients=0)]


def map_sides(spec: ModelSpec, cells: int) -> dict[str, int]:
    """Feature -> cells along a side of its last map, for a view of ``cells`` 10 m cells a side."""
    sides = {}
    for name, modality in spec.modalities.items():
        group = Group(name, "", 1, *(cells * modality.pixels_per_cell // spec.patch,) * 2)
        for index in range(3):
            group = _merged(spec, index, group)
        sides[name] = group.height
    return sides if spec.fusion is None else sides | {FUSED: fusion_side(spec, cells)}


def fusion_side(spec: ModelSpec, cells: int) -> int:
    """Cells along a side of the fusion grid."""
    return max(1, round(cells * CELL_METRES / spec.fusion.cell_metres))


def _joined(costs: Iterable[Cost]) -> list[Cost]:
    """Entries that differ in their FLOPs alone as one; empty ones left out."""
    sums: dict[tuple, Cost] = {}
    for cost in costs:
        key = cost.module, cost.modality, cost.view, cost.gradients
        flops, recomputed = (sums[key].flops, sums[key].recomputed) if key in sums else (0, 0.0)
        sums[key] = replace(cost, flops=flops + cost.flops, recomputed=recomputed + cost.recomputed)
    return [cost for cost in sums.values() if cost.flops]


def _merged(spec: ModelSpec, index: int, group: Group) -> Group:
    """The group behind merging number ``index``."""
    if not spec.modalities[group.modality].merge[index]:
        return group
    return replace(group, height=(group.height + 1) // 2, width=(group.width + 1) // 2)


def _merging(spec: ModelSpec, index: int, groups: Iterable[Group]) -> list[Cost]:
    """4d -> 2d for every four neighbours, or d -> 2d."""
    width, costs = spec.widths[index], []
    for group in groups:
        joined = 4 if spec.modalities[group.modality].merge[index] else 1
        product = 2 * _merged(spec, index, group).tokens * joined * width * 2 * width
        costs.append(Cost(f"merging {index + 1}", group.modality, group.view, product))
    return costs


def _stage(spec: ModelSpec, index: int, groups: list[Group], mixtures: list[bool]) -> list[Cost]:
    """Blocks of one width, ``mixtures`` says which have experts, and what stands at their entry."""
    name, width, prompts = f"stage {index + 1}", spec.widths[index], spec.prompts[index]
    windows = index < spec.window_stages
    costs = (
        _bias_network(spec, name, width, len(mixtures))
        if windows
        else _positions(spec, index, groups)
    )
    if prompts:
        tokens = len(spec.modalities) * prompts
        costs.append(Cost(f"{name} prompts", SHARED, SHARED, 2 * tokens * width**2))
    for group in groups:
        for number, mixture in enumerate(mixtures):
            last = number == len(mixtures) - 1
            costs += _block(
                spec,
                name,
                width,
                replace(group, prefix=prompts),
                0 if last else prompts,
                mixture,
                windows,
            )
    return costs


def _block(
    spec: ModelSpec, name: str, width: int, group: Group, kept: int, mixture: bool, windows: bool
) -> list[Cost]:
    """One block on one group; of the prompts in front of an image, ``kept`` go on behind its keys
    and values."""
    tokens = replace(group, prefix=kept).tokens
    pairs = tokens * group.length
    if windows:
        cut = windows_of(group.height, group.width, window=spec.window, shift=0)
        pairs = group.images * prod(cut.count) * prod(cut.side) ** 2  # padding included
    attention = 2 * (
        (2 * tokens + 2 * group.tokens) * width**2 + 2 * pairs * width
    )  # q and out, k and v
    linear = 2 * tokens * width * spec.mlp_ratio * width
    costs = [Cost(f"{name} attention", group.modality, group.view, attention, recomputed=attention)]
    if mixture:
        gate = 2 * tokens * width * spec.moe.experts
        return costs + [
            Cost(
                f"{name} gate",
                group.modality,
                group.view,
                gate,
                1 if spec.moe.fixed_gate else 2,
                gate,
            ),
            Cost(f"{name} experts", group.modality, group.view, 2 * linear, recomputed=2 * linear),
        ]
    # Recomputation ends with the last tensor that backward needs. The product behind a dense
    # network's activation is not run again, unless a norm follows.
    return costs + [
        Cost(
            f"{name} feed-forward",
            group.modality,
            group.view,
            2 * linear,
            recomputed=linear * (2 if windows else 1),
        )
    ]


def _bias_network(spec: ModelSpec, name: str, width: int, blocks: int) -> list[Cost]:
    """Position bias of every offset inside a window; its coordinates get no gradient."""
    hidden = 2 * blocks * (2 * spec.window - 1) ** 2 * BIAS_HIDDEN
    heads = width // spec.head_dim
    return [
        Cost(
            f"{name} position bias", SHARED, SHARED, hidden * 2, gradients=1, recomputed=hidden * 2
        ),
        Cost(f"{name} position bias", SHARED, SHARED, hidden * heads, recomputed=hidden * heads),
    ]


def _positions(spec: ModelSpec, index: int, groups: Iterable[Group]) -> list[Cost]:
    """Every table on every grid once: rows first, then columns."""
    width, entry = spec.widths[index], index - spec.window_stages
    wanted = {
        (spec.modalities[group.modality].position_grids, group.height, group.width)
        for group in groups
    }
    products = 0
    for native, rows, columns in wanted:
        side = native[entry]
        products += _summed(rows, side, side * width) if rows != side else 0
        products += _summed(columns, side, rows * width) if columns != side else 0
    return [Cost(f"stage {index + 1} positions", SHARED, SHARED, products, gradients=1)]


def _fusion(
    spec: ModelSpec, sizes: Mapping[str, ViewSize], groups: Iterable[Group], batch: int
) -> list[Cost]:
    """Maps on the fusion grid, one sequence a cell through the layers, geo context."""
    width, length, costs = (
        spec.fusion.width,
        1 + sum(m.frames for m in spec.modalities.values()),
        [],
    )
    for group in groups:
        side = fusion_side(spec, sizes[group.view].cells)
        costs += [
            _resize(group.height, side, group, spec.widths[-1], 1),
            _resize(group.height, side, group, 1, 0),
            _validity(group.height, side, group),
        ]
        product = 2 * group.images * side**2 * spec.widths[-1] * width
        costs.append(Cost("fusion projections", group.modality, group.view, product))
    for size, (views, cells) in sizes.items():
        sequences = batch * views * fusion_side(spec, cells) ** 2
        kept = ([1] + [length] * spec.fusion.layers)[
            : spec.fusion.layers
        ]  # nobody reads the last layer's other tokens
        products = sum(
            keep * 2 * width**2 + length * 2 * width**2 + 2 * keep * length * width for keep in kept
        )
        linear = 2 * sequences * sum(kept) * MLP_RATIO * width**2
        costs.append(
            Cost(
                "fusion attention",
                FUSED,
                size,
                2 * sequences * products,
                recomputed=2 * sequences * products,
            )
        )  # q and out, k and v, scores and values
        costs.append(Cost("fusion feed-forward", FUSED, size, 2 * linear, recomputed=linear))
        if spec.context is not None:
            read = 2 * sequences * spec.context.width
            costs.append(Cost("context query", FUSED, size, read * width))
            # similarities and weighted mean; prototypes get no gradient
            costs.append(
                Cost(
                    "context read-out", FUSED, size, 2 * read * spec.context.prototypes, gradients=1
                )
            )
    return costs


def _resize(source: int, target: int, group: Group, width: int, gradients: int) -> Cost:
    """``grids.to_grid`` from a square grid to another: rows, then columns. Nothing if they are
    equal."""
    products = _summed(target, source, source * width) + _summed(target, source, target * width)
    flops = group.images * products if source != target else 0
    return Cost("grid resize", group.modality, group.view, flops, gradients)


def _validity(source: int, target: int, group: Group) -> Cost:
    """``grids.cell_validity``: the same on masks."""
    return _resize(source, target, group, 1, 0)


def _summed(rows: int, inner: int, columns: int) -> int:
    """A product by ``torch.einsum``, which multiplies element by element where nothing is to be
    summed."""
    return 2 * rows * inner * columns if inner > 1 else 0


def _both_heads(
    name: str,
    feature: str,
    size: str,
    width: int,
    head: HeadSpec,
    student: float,
    teacher: float,
    pairs: float,
    iterations: int,
) -> list[Cost]:
    """The student's projection head on its rows, the teacher's, and the loss of ``pairs`` rows that
    meet.

    The teacher's logits are read once for each iteration of Sinkhorn-Knopp and once for its last
    scaling, and computed again for each pair. All but the first reading also sum the normalised
    columns, a product with one row.
    """
    widths = [width] + [head.hidden] * (head.layers - 1) + [head.bottleneck]
    row, logits = (
        2 * sum(a * b for a, b in zip(widths, widths[1:])),
        2 * head.bottleneck * head.prototypes,
    )
    sums = max(1, iterations) * 2 * head.prototypes
    return [
        Cost(name, feature, size, student * row),
        Cost(f"{name}, logits", feature, size, student * logits, recomputed=pairs * logits),
        Cost(
            f"{name}, teacher",
            feature,
            size,
            teacher * (row + logits),
            0,
            iterations * teacher * logits,
        ),
        Cost("column sums", feature, size, teacher * sums, 0),
    ]
