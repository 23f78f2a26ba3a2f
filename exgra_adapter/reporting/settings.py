"""Settings of a run as table rows, those that were changed apart from those that were not."""

from __future__ import annotations

import dataclasses
from typing import Any

from exgra_adapter.config import TrainingConfig
from exgra_adapter.reporting.facts import Settings
from exgra_adapter.reporting.markdown import plain

# Where a run was kept and how it was watched: nothing about what it computed.
_WITHOUT_EFFECT = {"output", "overwrite", "resume", "workers", "report_to", "logging_steps", "save_steps"}


def default_settings(settings: Settings) -> dict[str, Any]:
    """Returns the settings that a run of the same stage has when nothing optional is given.

    Args:
        settings: The settings of a run; what has no default (stage, data, ...) and the model are taken from here.

    Returns:
        Defaults by name, without those that were taken.
    """
    fields = dataclasses.fields(TrainingConfig)
    chosen = [field.name for field in fields if field.default is dataclasses.MISSING or field.name == "model"]
    given = {name: settings.get(name, "-") for name in chosen if name != "model" or name in settings}
    try:
        defaults = TrainingConfig(**given).resolved().to_json()
    except (TypeError, ValueError):  # settings of another version: the stage's own defaults are unknown
        defaults = {field.name: field.default for field in fields if field.default is not None}
    return {name: value for name, value in defaults.items() if name not in chosen}


def split_settings(settings: Settings) -> tuple[list[list[str]], list[list[str]]]:
    """Sorts settings into those that differ from the defaults and the others.

    Args:
        settings: The settings of a run.

    Returns:
        Rows of name, value and default for the settings that were chosen or changed, and rows of name and value for
        the others, both in the order of `settings`.
    """
    defaults = default_settings(settings)
    changed, others = [], []
    for name, value in settings.items():
        if name in _WITHOUT_EFFECT or (name in defaults and defaults[name] == value):
            others.append([f"`{name}`", plain(value)])
        else:
            changed.append([f"`{name}`", plain(value), plain(defaults[name]) if name in defaults else "-"])
    return changed, others
