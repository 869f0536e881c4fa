"""Messages about programs left out of a load because they exceed the model's context."""

from collections import Counter

from services.evaluation.scenarios import hardware_of, is_of_classes, least_programs, load_of, takes
from shared.errors import ConfigError

_SAMPLE = 400
_MOST = 0.5  # the most of a user's class that may be left out: it would be another load


def too_long(scenario: str, hardware: str, seed: int) -> list[str]:
    """A line for each class that loses programs, by a sample of the load. Raises ConfigError where
    that is most of a user's class.
    """
    engine = hardware_of(hardware)
    programs = max(_SAMPLE, least_programs(scenario))
    load = load_of(scenario, rate=1.0, programs=programs, seed=seed)
    whole = Counter(program.calls[0].class_name for program in load)
    lost = Counter(one.calls[0].class_name for one in load if not takes(engine, one))
    most = engine.max_model_len_tokens
    for name, number in lost.items():
        if is_of_classes(scenario) and number > _MOST * whole[name]:
            raise ConfigError(
                f"{number} of {whole[name]} requests of class {name} are longer than the {most} "
                f"tokens that {hardware} takes: give --hardware that takes more, or shorter ones"
            )
    return [
        f"left out: {number} of {whole[name]} programs of class {name}, longer than the {most} "
        f"tokens that {hardware} takes"
        for name, number in lost.items()
    ]
