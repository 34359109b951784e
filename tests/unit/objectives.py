"""Student, teacher and objective of a run in this process alone, without DeepSpeed."""

from torch import Tensor

from data.stream.decode import Source
from engine.config.settings import Settings
from engine.training.inputs import embed_classes
from engine.training.models import build_pair, share_context
from engine.training.objective import Objective
from models.reducer import Reducer


def build_objective(settings: Settings, dataset: Source) -> Objective:
    """The objective with its two models, which have the first weights of the settings' seed."""
    return objective_of(settings, embed_classes(settings, dataset).vectors)


def objective_of(settings: Settings, text: Tensor) -> Objective:
    """The same for class embeddings (K, D)."""
    reducer = Reducer()
    pair = build_pair(settings, reducer)
    share_context(pair.student, pair.teacher)
    return Objective(
        settings.loss,
        student=pair.student,
        teacher=pair.teacher,
        text=text,
        reducer=reducer,
    )
