"""Matrix-multiply FLOPs of the heads and losses of pre-training, from their sizes alone.

The loss of the heads stores no logits: what it computes again for that, in its forward pass, is
counted as recomputed, and the gradients of the last layer, made there too, as backward.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from models.count.cost import TEACHER, Cost, Workload, map_sides
from models.features import FUSED
from models.pretraining.losses.clusters import ROUNDS, cluster_count
from models.pretraining.losses.semantic_aggregation import SYMMETRIC
from models.pretraining.projection_head import layer_widths
from models.spec import HeadSpec


class Rows(NamedTuple):
    """Rows of one feature in the views of one size that go through the dense heads.

    A frame counts as a row of its own.
    """

    pixel: float  # student cells that lie in a paired view of the teacher
    pairs: float  # the same, once for each of these views
    objects: float


class LossSizes(NamedTuple):
    """Settings of the losses that change their cost."""

    clusters: int  # as in ``GranularitySpec``
    classes: int  # of the image-text alignment
    iterations: int  # of Sinkhorn-Knopp; 0 for a running centre


def losses(work: Workload, rows: Mapping[str, Mapping[str, Rows]], sizes: LossSizes) -> list[Cost]:
    """Costs of both models' heads, the losses and the update of the geo context.

    KoLeo has no products.

    Args:
        work: with the view sizes "global" and "local".
        rows: feature -> view size -> rows of the whole batch; they depend on how views overlap.
        sizes: settings.
    """
    costs = []
    for feature, by_size in rows.items():
        costs += granularity(work, feature, by_size, sizes)
    costs += aggregation(work, sizes.iterations)
    costs += alignment(work, sizes.classes)
    costs += context_update(work)
    return costs


def granularity(
    work: Workload, feature: str, rows: Mapping[str, Rows], sizes: LossSizes
) -> list[Cost]:
    """Costs of ``multi_granularity`` for one feature; ``rows`` by view size."""
    spec = work.spec
    if feature == FUSED:
        width = spec.fused_width
        frames = 1
    else:
        width = spec.widths[-1]
        frames = spec.modalities[feature].frames
    teacher_views = work.sizes[TEACHER].views
    costs = []
    for size, found in rows.items():
        views = work.sizes[size].views
        cells = map_sides(spec, work.sizes[size].pixels)[feature] ** 2
        images = work.batch * frames * views
        teacher_images = 0
        most = teacher_views  # teacher views that a student view is paired with
        if size == TEACHER:
            teacher_images = images
            most = max(1, teacher_views - 1)
        dense = HeadRows(
            student=found.pixel + found.objects,
            teacher=found.pairs + found.objects,
            pairs=found.pixel * most + found.objects,
        )
        image = HeadRows(student=images, teacher=teacher_images, pairs=images * most)
        heads = _Heads(feature, size, width, head=spec.head, iterations=sizes.iterations)
        costs += heads.costs("dense head", dense)
        costs += heads.costs("image head", image)
        pairs = work.batch * views * teacher_views
        # places of the student's cells on the tile and in the teacher's views, two coordinates each
        places = 2 * 4 * cells * (work.batch * views + pairs)
        costs.append(Cost("matching", feature, size, places, gradients=0))
        # seeds, similarities and means of each round, and the objects of teacher and student; only
        # those of the student have a gradient
        product = 2 * pairs * frames * cluster_count(sizes.clusters, cells) * cells * width
        costs.append(Cost("objects", feature, size, (2 * ROUNDS + 3) * product, gradients=0))
        costs.append(Cost("objects", feature, size, product, gradients=1))
    return [cost for cost in costs if cost.flops]


def aggregation(work: Workload, iterations: int) -> list[Cost]:
    """Costs of ``semantic_aggregation``: both models' queries of both view sizes."""
    costs = []
    for size, paired_size in SYMMETRIC:
        rows = work.batch * work.sizes[size].views * work.spec.queries
        pairs = rows * work.sizes[paired_size].views
        heads = _Heads(FUSED, size, work.fusion.width, head=work.spec.head, iterations=iterations)
        costs += heads.costs("query head", HeadRows(student=rows, teacher=rows, pairs=pairs))
    return costs


def alignment(work: Workload, classes: int) -> list[Cost]:
    """Costs of ``image_text`` with the projection to the width of the text."""
    spec = work.spec
    costs = []
    for size, (views, _) in work.sizes.items():
        cells = work.batch * views * work.fusion_side(size) ** 2
        projection = 2 * cells * spec.fused_width * spec.text_width
        logits = 2 * cells * spec.text_width * classes
        costs.append(Cost("text projection", FUSED, size, projection))
        costs.append(Cost("text logits", FUSED, size, logits, gradients=1))
    return costs


def context_update(work: Workload) -> list[Cost]:
    """Costs of ``GeoContext.update``.

    Similarities with the prototypes, means of features, and products between prototypes for their
    spread.
    """
    context = work.spec.context
    if context is None:
        return []
    cells = work.batch * work.sizes[TEACHER].views * work.fusion_side(TEACHER) ** 2
    similarity = 2 * cells * context.prototypes * context.width
    spread = 2 * work.batch * context.prototypes**2 * context.width
    return [Cost("context update", FUSED, TEACHER, 2 * similarity + spread, gradients=0)]


class HeadRows(NamedTuple):
    """Rows that a pair of projection heads gets."""

    student: float
    teacher: float
    pairs: float  # a student's with a teacher's row


class _Heads(NamedTuple):
    """The projection heads of student and teacher for one feature and view size."""

    feature: str
    size: str
    width: int  # of the input
    head: HeadSpec
    iterations: int  # of Sinkhorn-Knopp

    def costs(self, name: str, rows: HeadRows) -> list[Cost]:
        """Costs of both heads and their loss.

        The teacher's logits are computed once for each iteration of Sinkhorn-Knopp and once for its
        last scaling, and again for each pair. All passes but the first also sum the normalised
        columns, which is a product with one row.
        """
        layers = pairwise(layer_widths(self.width, self.head))
        row = 2 * sum(width * next_width for width, next_width in layers)
        logits = 2 * self.head.bottleneck * self.head.prototypes
        sums = max(1, self.iterations) * 2 * self.head.prototypes
        return [
            Cost(name, self.feature, self.size, rows.student * row),
            Cost(
                f"{name}, logits",
                self.feature,
                self.size,
                rows.student * logits,
                recomputed=rows.pairs * logits,
            ),
            Cost(
                f"{name}, teacher",
                self.feature,
                self.size,
                rows.teacher * (row + logits),
                gradients=0,
                recomputed=self.iterations * rows.teacher * logits,
            ),
            Cost("column sums", self.feature, self.size, rows.teacher * sums, gradients=0),
        ]
