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


def text_problem(settings: Settings) -> str | None:
    """One line if a run would learn to tell random vectors apart without being meant to, or None.

    Counting costs and planning need no weights, so reading a configuration does not ask for them.
    """
    text = settings.text
    if settings.loss.ita == 0 or text.random or text.weights is not None:
        return None
    return (
        f"skysense.text.weights: expected open_clip weights of {text.architecture}, because "
        f"skysense.loss.ita is {settings.loss.ita:g}, found none; give their file, or set "
        "skysense.text.random=true to train against random vectors"
    )


def embed_classes(settings: Settings, dataset: Mixture) -> ClassEmbeddings:
    """Class embeddings of the dataset's class table.

    Raises:
        ConfigError: There are no weights of a text tower, and nobody asked for a random one.
        ModelError: The text tower cannot be made.
    """
    problem = text_problem(settings)
    if problem is not None:
        raise ConfigError(problem)
    prompts = [entry.text for entry in dataset.classes]
    return encode_classes(
        prompts,
        settings.text.architecture,
        weights=settings.text.weights,
        seed=settings.seed,
        width=settings.model.text_width,
    )
