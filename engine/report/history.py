"""The records of a run, a step each, read as arrays over the steps."""

import math
from collections.abc import Sequence

import numpy as np

from engine.training.loss_terms import (
    DROPPED_PREFIX,
    ITA,
    LOSS_PREFIX,
    TEACHER_PREFIX,
    TOTAL_KEY,
    USED,
    LossTerm,
    TeacherHead,
)
from models.moe.loads import TokenKind


class History:
    """All records of a run.

    Args:
        records: a JSON object for each step, at least one.
    """

    def __init__(self, records: Sequence[dict]) -> None:
        self.records = records
        self.steps = np.array([record["step"] for record in records])

    def __len__(self) -> int:
        return len(self.records)

    @property
    def last_step(self) -> int:
        """The step of the last record."""
        return self.records[-1]["step"]

    @property
    def tenth(self) -> int:
        """A tenth of the number of records, at least one."""
        return max(1, len(self.records) // 10)

    @property
    def skipped_steps(self) -> list[int]:
        """Steps whose update was not applied."""
        skipped = []
        for record in self.records:
            if not record["applied"]:
                skipped.append(record["step"])
        return skipped

    @property
    def has_experts(self) -> bool:
        """Whether the load of a mixture of experts is recorded."""
        return "expert_load" in self.records[-1]

    def loss_terms(self) -> list[LossTerm]:
        """All terms of the loss, without the total."""
        terms = []
        for key in self.records[-1]:
            if key.startswith(LOSS_PREFIX):
                terms.append(LossTerm(key.removeprefix(LOSS_PREFIX)))
        return terms

    def teacher_heads(self) -> list[TeacherHead]:
        """All heads whose targets are recorded."""
        heads = []
        for key in self.records[-1]:
            name, _, kind = key.removeprefix(TEACHER_PREFIX).rpartition("/")
            if key.startswith(TEACHER_PREFIX) and kind == USED:
                heads.append(TeacherHead(name))
        return heads

    def keys_with(self, prefix: str) -> list[str]:
        """All keys that begin so, in the order of their first record."""
        keys: dict[str, None] = {}
        for record in self.records:
            keys.update(dict.fromkeys(key for key in record if key.startswith(prefix)))
        return list(keys)

    def values(self, key: str) -> np.ndarray:
        """One number of each record: (steps,) float64.

        NaN where a record has none, or null, which is how the writer puts NaN into JSON.
        """
        column = np.full(len(self.records), math.nan)
        for place, record in enumerate(self.records):
            if record.get(key) is not None:
                column[place] = record[key]
        return column

    def term(self, term: LossTerm) -> np.ndarray:
        """A loss term, NaN at steps whose batch had nothing to measure it on: (steps,)."""
        return np.where(self._without(term), math.nan, self.values(term.key))

    def total(self) -> np.ndarray:
        """The weighted total of the loss: (steps,).

        NaN at steps that lack a term, so that steps compare, unless these are more than half.
        """
        values = self.values(TOTAL_KEY)
        complete = self.complete()
        if 2 * complete.sum() < len(self.records):
            return values
        return np.where(complete, values, math.nan)

    def complete(self) -> np.ndarray:
        """Steps whose batch could measure every term: (steps,) bool."""
        complete = np.ones(len(self.records), bool)
        for term in self.loss_terms():
            complete &= ~self._without(term)
        return complete

    def teacher(self, head: TeacherHead, key: str) -> np.ndarray:
        """A number of a head, NaN at steps whose batch had nothing to measure it on: (steps,).

        Args:
            head: the head.
            key: ``entropy``, ``mean_entropy`` or ``used`` of the head.
        """
        return np.where(self._idle(head), math.nan, self.values(key))

    def expert_load(self) -> np.ndarray:
        """Tokens that went to each expert: (steps, layers, modalities, E)."""
        return np.array([record["expert_load"] for record in self.records], np.float64)

    def token_kinds(self) -> list[TokenKind]:
        """Kinds of tokens that experts were sent at some step, in the order of the records."""
        kinds: dict[TokenKind, None] = {}
        for record in self.records:
            for key in record:
                if key.startswith(DROPPED_PREFIX):
                    modality, _, view = key.removeprefix(DROPPED_PREFIX).partition("/")
                    kinds[TokenKind(modality, view)] = None
        return list(kinds)

    def _without(self, term: LossTerm) -> np.ndarray:
        """Steps whose batch had nothing to measure a term on: (steps,) bool.

        A batch without labels gives a text alignment of exactly 0.
        """
        if term == ITA:
            return self.values(term.key) == 0
        if term.head is None:
            return np.zeros(len(self.records), bool)
        return self._idle(term.head)

    def _idle(self, head: TeacherHead) -> np.ndarray:
        """Steps whose batch had nothing for a head: (steps,) bool.

        A batch without a modality gives its losses and entropies as 0. The share of used prototypes
        is 0 only then.
        """
        return self.values(head.used) == 0
