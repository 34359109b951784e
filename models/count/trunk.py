"""Matrix-multiply FLOPs of the model, from its sizes alone.

No token is dropped by the experts, and empty slots of their buffers are not counted. What modules
share (position tables, bias networks, prompts) is computed once a call, whatever the batch.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from models.backbone.swin_v2 import BIAS_HIDDEN
from models.backbone.windows import windows_of
from models.count.cost import MLP_RATIO, SHARED, Cost, Workload, joined, merged
from models.errors import ModelError
from models.features import FUSED
from models.packing import Group
from models.spec import ModelSpec


def pretraining(work: Workload) -> list[Cost]:
    """Costs of ``Pretraining.forward``: the trunk, and the queries that read the fused maps."""
    costs = trunk(work)
    width = work.fusion.width
    queries = work.spec.queries
    for size, (views, _) in work.sizes.items():
        memory = work.fusion_side(size) ** 2
        products = [
            # self-attention: q, k, v and out; scores and values
            queries * 4 * width**2,
            queries * 2 * queries * width,
            # cross-attention: q and out, k and v; scores and values
            queries * 2 * width**2 + memory * 2 * work.spec.fused_width * width,
            queries * 2 * memory * width,
            # MLP
            queries * 2 * MLP_RATIO * width**2,
        ]
        flops = 2 * work.batch * views * sum(products)
        costs.append(Cost("query decoder", FUSED, size, flops))
    return costs


def trunk(work: Workload) -> list[Cost]:
    """Costs of ``SkySense.forward``.

    Raises:
        ModelError: a view is no whole number of patches.
    """
    spec = work.spec
    groups = _groups(work)
    costs = [_tokenizer(spec, group) for group in groups]
    first_block = 0
    for index, depth in enumerate(spec.depths):
        if index > 0:
            costs += _merging(spec, index - 1, groups)
            groups = [merged(spec, index - 1, group) for group in groups]
        costs += _stage(spec, index, groups, first_block=first_block)
        first_block += depth
    for group in groups:
        pixels = work.sizes[group.view].pixels[group.modality]
        costs.append(_validity(group, source=pixels, target=group.height))
    if spec.fusion is not None:
        costs += _grid(work, groups)
        costs += _fusion(work)
    return joined(costs)


def _groups(work: Workload) -> list[Group]:
    """Images and patches of every view size and modality."""
    spec = work.spec
    groups = []
    for size, (views, pixels) in work.sizes.items():
        for name, modality in spec.modalities.items():
            if pixels[name] % spec.patch:
                raise ModelError(
                    f"flops: expected views of whole patches of {spec.patch} pixels, found "
                    f"{pixels[name]} pixels of {name} in {size!r}; change them"
                )
            side = pixels[name] // spec.patch
            images = work.batch * views * modality.frames
            groups.append(Group(name, size, images, height=side, width=side))
    return groups


def _tokenizer(spec: ModelSpec, group: Group) -> Cost:
    """The patch projection; images get no gradient."""
    bands = spec.modalities[group.modality].bands
    product = 2 * group.tokens * bands * spec.patch**2 * spec.widths[0]
    return Cost("tokenizer", group.modality, group.view, product, gradients=1)


def _merging(spec: ModelSpec, index: int, groups: Iterable[Group]) -> list[Cost]:
    """4 D -> 2 D for every four neighbours, or D -> 2 D without merging."""
    width = spec.widths[index]
    costs = []
    for group in groups:
        neighbours = 1
        if spec.modalities[group.modality].merge[index]:
            neighbours = 4
        product = 2 * merged(spec, index, group).tokens * neighbours * width * 2 * width
        costs.append(Cost(f"merging {index + 1}", group.modality, group.view, product))
    return costs


def _stage(spec: ModelSpec, index: int, groups: list[Group], *, first_block: int) -> list[Cost]:
    """The blocks of a stage, and what is computed once at its entry."""
    name = f"stage {index + 1}"
    depth = spec.depths[index]
    prompts = spec.prompts[index]
    if index < spec.window_stages:
        costs = _bias_network(spec, index)
    else:
        costs = _positions(spec, index, groups)
    if prompts:
        tokens = len(spec.modalities) * prompts
        product = 2 * tokens * spec.widths[index] ** 2
        costs.append(Cost(f"{name} prompts", SHARED, SHARED, product))
    for group in groups:
        group = replace(group, prefix=prompts)
        for number in range(depth):
            # The last block passes no prompts on.
            last = number == depth - 1
            kept = replace(group, prefix=0) if last else group
            costs.append(_attention(spec, index, group, kept))
            if spec.moe is not None and first_block + number in spec.moe.blocks:
                costs += _experts(spec, index, kept)
            else:
                costs.append(_feed_forward(spec, index, kept))
    return costs


def _attention(spec: ModelSpec, index: int, group: Group, kept: Group) -> Cost:
    """Attention of one block on one group.

    Args:
        spec: of the model.
        index: of the stage.
        group: the tokens that keys and values are made of.
        kept: the tokens that queries are made of.
    """
    width = spec.widths[index]
    pairs = kept.tokens * group.length
    if index < spec.window_stages:
        windows = windows_of(group.height, group.width, window=spec.window, shift=0)
        pairs = group.images * prod(windows.count) * prod(windows.side) ** 2  # padding included
    projections = (2 * kept.tokens + 2 * group.tokens) * width**2  # q and out, k and v
    flops = 2 * (projections + 2 * pairs * width)
    name = f"stage {index + 1} attention"
    return Cost(name, group.modality, group.view, flops, recomputed=flops)


def _experts(spec: ModelSpec, index: int, group: Group) -> list[Cost]:
    """Gate and experts of one block on one group."""
    assert spec.moe is not None  # the caller has found the block among its blocks
    name = f"stage {index + 1}"
    width = spec.widths[index]
    gate = 2 * group.tokens * width * spec.moe.experts
    linear = 2 * group.tokens * width * spec.mlp_ratio * width
    gradients = 1 if spec.moe.fixed_gate else 2
    return [
        Cost(
            f"{name} gate",
            group.modality,
            group.view,
            gate,
            gradients=gradients,
            recomputed=gate,
        ),
        Cost(f"{name} experts", group.modality, group.view, 2 * linear, recomputed=2 * linear),
    ]


def _feed_forward(spec: ModelSpec, index: int, group: Group) -> Cost:
    """The dense network of one block on one group.

    Recomputation ends with the last tensor that the backward pass needs. The product after the
    activation is not run again, unless a norm follows it, as in the window stages.
    """
    width = spec.widths[index]
    linear = 2 * group.tokens * width * spec.mlp_ratio * width
    again = linear
    if index < spec.window_stages:
        again = 2 * linear
    name = f"stage {index + 1} feed-forward"
    return Cost(name, group.modality, group.view, 2 * linear, recomputed=again)


def _bias_network(spec: ModelSpec, index: int) -> list[Cost]:
    """Position bias of every offset inside a window; its coordinates get no gradient."""
    name = f"stage {index + 1} position bias"
    hidden = 2 * spec.depths[index] * (2 * spec.window - 1) ** 2 * BIAS_HIDDEN
    heads = spec.widths[index] // spec.head_dim
    return [
        Cost(name, SHARED, SHARED, hidden * 2, gradients=1, recomputed=hidden * 2),
        Cost(name, SHARED, SHARED, hidden * heads, recomputed=hidden * heads),
    ]


def _positions(spec: ModelSpec, index: int, groups: Iterable[Group]) -> list[Cost]:
    """Every position table resized to every grid once: rows first, then columns."""
    width = spec.widths[index]
    tables = set()
    for group in groups:
        native = spec.modalities[group.modality].position_grids  # names the table
        tables.add((native, group.height, group.width))
    products = 0
    for native, rows, columns in tables:
        side = native[index - spec.window_stages]
        if rows != side:
            products += _summed(rows, inner=side, columns=side * width)
        if columns != side:
            products += _summed(columns, inner=side, columns=rows * width)
    return [Cost(f"stage {index + 1} positions", SHARED, SHARED, products, gradients=1)]


def _grid(work: Workload, groups: Iterable[Group]) -> list[Cost]:
    """Maps on the fusion grid, and their projection to its width."""
    channels = work.spec.widths[-1]
    costs = []
    for group in groups:
        side = work.fusion_side(group.view)
        costs += [
            _resize(group, source=group.height, target=side, width=channels, gradients=1),
            _resize(group, source=group.height, target=side, width=1, gradients=0),
            _validity(group, source=group.height, target=side),
        ]
        product = 2 * group.images * side**2 * channels * work.fusion.width
        costs.append(Cost("fusion projections", group.modality, group.view, product))
    return costs


def _fusion(work: Workload) -> list[Cost]:
    """The layers of the fusion transformer, one sequence a cell, and the geo context."""
    width = work.fusion.width
    length = 1 + sum(modality.frames for modality in work.spec.modalities.values())
    attention = 0
    tokens = 0
    for layer in range(work.fusion.layers):
        # Of the last layer only the first token is read.
        last = layer == work.fusion.layers - 1
        kept = 1 if last else length
        tokens += kept
        # q and out, k and v, scores and values
        attention += kept * 2 * width**2 + length * 2 * width**2 + 2 * kept * length * width
    costs = []
    for size, (views, _) in work.sizes.items():
        sequences = work.batch * views * work.fusion_side(size) ** 2
        flops = 2 * sequences * attention
        costs.append(Cost("fusion attention", FUSED, size, flops, recomputed=flops))
        linear = 2 * sequences * tokens * MLP_RATIO * width**2
        costs.append(Cost("fusion feed-forward", FUSED, size, 2 * linear, recomputed=linear))
        context = work.spec.context
        if context is not None:
            read = 2 * sequences * context.width
            costs.append(Cost("context query", FUSED, size, read * width))
            # similarities and weighted mean; prototypes get no gradient
            flops = 2 * read * context.prototypes
            costs.append(Cost("context read-out", FUSED, size, flops, gradients=1))
    return costs


def _resize(group: Group, *, source: int, target: int, width: int, gradients: int) -> Cost:
    """Cost of ``grids.to_grid``: rows, then columns; nothing between equal grids.

    Args:
        group: the images.
        source: side of the present grid.
        target: side of the new grid.
        width: channels.
        gradients: as in ``Cost``.
    """
    flops = 0
    if source != target:
        rows = _summed(target, inner=source, columns=source * width)
        columns = _summed(target, inner=source, columns=target * width)
        flops = group.images * (rows + columns)
    return Cost("grid resize", group.modality, group.view, flops, gradients=gradients)


def _validity(group: Group, *, source: int, target: int) -> Cost:
    """Cost of ``grids.cell_validity``: the same on masks."""
    return _resize(group, source=source, target=target, width=1, gradients=0)


def _summed(rows: int, *, inner: int, columns: int) -> int:
    """A product by ``torch.einsum``, which multiplies element by element if nothing is summed."""
    if inner <= 1:
        return 0
    return 2 * rows * inner * columns
