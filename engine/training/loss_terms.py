"""Names of the loss terms, of the teacher's statistics and of kinds of tokens, for steps, metrics
file and report.

In a step a term is called "mgcl/hr/pixel" and a statistic "hr/pixel/entropy". In ``metrics.jsonl``
the first stands behind "loss/" and the second behind "teacher/"; "loss" alone is the total. The
share of the tokens of global views of ``hr`` that the experts dropped is "dropped/hr/global".
"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.moe.loads import TokenKind

TOTAL = "total"  # of a step: the weighted sum of all terms
TOTAL_KEY = "loss"
LOSS_PREFIX = "loss/"
TEACHER_PREFIX = "teacher/"
DROPPED_PREFIX = "dropped/"
GRANULAR_PREFIX = "mgcl/"
ENTROPY = "entropy"  # mean entropy of a target
MEAN_ENTROPY = "mean_entropy"  # entropy of the mean target
USED = "used"  # share of the prototypes that are some row's first choice
ROWS = "rows"  # number of targets
SPREAD = "spread"  # share of the variance of an image's cells that lies between its objects


@dataclass(frozen=True)
class TeacherHead:
    """A head whose targets are recorded, such as that of ``hr/pixel`` or of ``queries``."""

    name: str

    @classmethod
    def of(cls, feature: str, level: str) -> "TeacherHead":
        """The head of multi-granularity contrastive learning for a feature at a level."""
        return cls(f"{feature}/{level}")

    @property
    def feature(self) -> str:
        """The modality, "fused" or "queries"."""
        return self.name.partition("/")[0]

    @property
    def level(self) -> str:
        """The level of a multi-granular head (pixel, object, image); else its name."""
        level = self.name.partition("/")[2]
        if not level:
            return self.name
        return level

    def statistic(self, kind: str) -> str:
        """The name of one of its statistics in a step: ENTROPY, MEAN_ENTROPY, USED or ROWS."""
        return f"{self.name}/{kind}"

    @property
    def entropy(self) -> str:
        """Key of the mean entropy of a target."""
        return statistic_key(self.statistic(ENTROPY))

    @property
    def mean_entropy(self) -> str:
        """Key of the entropy of the mean target."""
        return statistic_key(self.statistic(MEAN_ENTROPY))

    @property
    def used(self) -> str:
        """Key of the share of prototypes that are some row's first choice."""
        return statistic_key(self.statistic(USED))

    @property
    def spread(self) -> str:
        """Key of the share of an image's variance that lies between its objects."""
        return statistic_key(self.statistic(SPREAD))


@dataclass(frozen=True)
class LossTerm:
    """A term of the loss, unweighted."""

    name: str  # in a step: "mgcl/hr/pixel", "qsacl", "ita", "moe_balance", "koleo"

    @classmethod
    def of(cls, head: TeacherHead) -> "LossTerm":
        """The term of multi-granularity contrastive learning that a head gives targets for."""
        return cls(GRANULAR_PREFIX + head.name)

    @property
    def key(self) -> str:
        """The name in the metrics file."""
        return LOSS_PREFIX + self.name

    @property
    def granular(self) -> bool:
        """Whether this is a multi-granular contrastive term of one feature and level."""
        return self.name.startswith(GRANULAR_PREFIX)

    @property
    def feature(self) -> str:
        """The feature of a multi-granular term."""
        return self.name.removeprefix(GRANULAR_PREFIX).partition("/")[0]

    @property
    def level(self) -> str:
        """The level of a multi-granular term."""
        return self.name.removeprefix(GRANULAR_PREFIX).partition("/")[2]

    @property
    def head(self) -> TeacherHead | None:
        """The teacher's head that gives a contrastive term its targets."""
        if self.granular:
            return TeacherHead(self.name.removeprefix(GRANULAR_PREFIX))
        if self == QSACL:
            return QUERIES
        return None

    def is_measured(self, value: float, statistics: Mapping[str, float]) -> bool:
        """Whether a batch had anything to measure the term on.

        A batch without a modality gives its losses as 0. The share of used prototypes is 0 only
        then. A batch without labels gives an image-text alignment of exactly 0.

        Args:
            value: The term over the global batch.
            statistics: The teacher's in the same step.
        """
        if self == ITA:
            return value != 0
        if self.head is None:
            return True
        return statistics[self.head.statistic(USED)] != 0


QUERIES = TeacherHead("queries")
QSACL = LossTerm("qsacl")
ITA = LossTerm("ita")
MOE_BALANCE = LossTerm("moe_balance")
KOLEO = LossTerm("koleo")


def statistic_key(name: str) -> str:
    """The name of a statistic in the metrics file."""
    return TEACHER_PREFIX + name


def dropped_key(kind: TokenKind) -> str:
    """The name in the metrics file of the share of such tokens that the experts dropped."""
    return f"{DROPPED_PREFIX}{kind.modality}/{kind.view}"
