"""What the features of a run are worth, before and after training, as rows of tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RankRow:
    """Effective rank of one feature; None where it is not finite or was not measured."""

    feature: str
    samples: int
    trained: float | None
    untrained: float | None


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of k-NN, between 0 and 1; None where it was not measured."""

    title: str
    trained: float | None
    untrained: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures of the teacher and of the same model with its first weights.

    Both are what ``engine.evaluate.figures.report_figures`` returns.
    """

    checkpoint: str
    step: int
    teacher: dict
    untrained: dict

    @property
    def ranks(self) -> dict[str, float | None]:
        """Effective rank of each feature of the teacher."""
        return self.teacher["effective_rank"]

    @property
    def has_accuracies(self) -> bool:
        """Whether there were enough labelled tiles for k-NN."""
        return "knn" in self.teacher

    def rank_rows(self) -> list[RankRow]:
        """The effective rank of each feature."""
        samples = self.teacher["samples_of"]
        first = self.untrained["effective_rank"]
        return [
            RankRow(feature, samples[feature], rank, first.get(feature))
            for feature, rank in self.ranks.items()
        ]

    def accuracy_rows(self) -> list[AccuracyRow]:
        """The accuracy for each number of neighbours, and that of the commonest class."""
        rows = []
        for neighbours, accuracy in self.teacher["knn"].items():
            first = self.untrained["knn"].get(neighbours)
            rows.append(AccuracyRow(f"{neighbours} neighbours", accuracy, first))
        commonest = self.teacher["commonest_class"]
        rows.append(AccuracyRow("always the commonest class", commonest, commonest))
        return rows
