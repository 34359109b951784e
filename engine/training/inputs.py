"""What a run reads before its model is built: the dataset and its class embeddings."""

from data.stream.mixture import Mixture
from engine.config.settings import Settings
from engine.errors import ConfigError
from models.pretraining.text import ClassEmbeddings, encode_classes


def open_dataset(settings: Settings) -> Mixture:
    """The dataset of a run.

    Raises:
        ConfigError: The dataset lies in more regions than the model has prototypes for.
        InputError: The dataset cannot be read.
    """
    dataset = Mixture.open(settings.data)
    check_regions(settings, dataset)
    return dataset


def check_regions(settings: Settings, dataset: Mixture) -> None:
    """Raise ConfigError if the dataset lies in more regions than the model has prototypes for."""
    context = settings.model.context
    regions = len(dataset.regions)
    if context is not None and regions > context.regions:
        raise ConfigError(
            f"model.context.regions: expected at least {regions}, the occupied regions of "
            f"{dataset.path}, found {context.regions}; raise it"
        )


def embed_classes(settings: Settings, dataset: Mixture) -> ClassEmbeddings:
    """Class embeddings of the dataset's class table."""
    prompts = [entry.text for entry in dataset.classes]
    return encode_classes(
        prompts,
        settings.text.architecture,
        weights=settings.text.weights,
        seed=settings.seed,
        width=settings.model.text_width,
    )
