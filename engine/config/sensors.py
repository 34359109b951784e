"""What a run's files say of its sensors, before the rules ask."""

from data.errors import InputError
from data.stream.mixture import Mixture, learn_statistics
from data.suggest import did_you_mean
from data.tiles.modalities import MODALITIES
from engine.config.settings import Settings
from engine.errors import ConfigError


def learn_sensors(settings: Settings) -> None:
    """Make this process know the sensors of a run.

    They stand in ``skysense.data.sensors`` and in the dataset, which is opened only where the model
    has a sensor that is still unknown: a configuration can be read where its data are not.

    Raises:
        ConfigError: The sensors file is wrong, or a sensor is unknown and the dataset, which may
            describe it, cannot be opened.
    """
    data = settings.data
    if data.sensors:
        try:
            learn_statistics(data.sensors)
        except InputError as error:
            raise ConfigError(f"skysense.data.sensors: {error}") from error
    unknown = sorted(settings.model.modalities.keys() - MODALITIES.keys())
    if not unknown or data.problem() is not None:
        return  # the rules will say what is wrong
    try:
        Mixture.open(data)
    except InputError as error:
        raise ConfigError(
            f"skysense.model.modalities.{unknown[0]}: the program has no such sensor"
            f"{did_you_mean(unknown[0], MODALITIES)}, and the dataset, which may describe it, "
            f"cannot be opened ({error}); build it, or name a sensors file in skysense.data.sensors"
        ) from error
