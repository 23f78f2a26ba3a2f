"""Settings from YAML files, presets and `key=value` pairs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from exgra_adapter.config import TrainingConfig, choices_of, is_optional

_SHOWN = 80


def read_config(stage: str, source: str | None, assignments: Sequence[str] = ()) -> TrainingConfig:
    """Reads settings from a YAML file or a preset, and then from `key=value` pairs, which win.

    A file may name another one that it changes, first looked for beside it, or a preset: `based_on: stage2`.

    Args:
        stage: "stage1", "stage2" or "vqa".
        source: Path of a YAML file, or the name of a preset (`preset_names`); None starts from the defaults.
        assignments: Pairs such as "learning_rate=1e-4"; values are YAML.

    Raises:
        ValueError: A file or a value cannot be read, a key is unknown, or the settings break a rule.

    Example:
        >>> read_config("stage2", "stage2", ["data=a.json", "images=b", "output=c", "seed=1"]).seed
        1
    """
    import yaml

    values = {} if source is None else _read_file(source)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise ValueError(
                f"read_config: --set must be key=value; got {assignment!r}. Write for instance --set batch_size=8."
            )
        try:
            values[key.strip()] = _as_written(key.strip(), yaml.safe_load(text), text.strip())
        except yaml.YAMLError:
            raise ValueError(f"read_config: {key} must be a YAML value; got {text!r}. Quote texts.") from None
    if values.setdefault("stage", stage) != stage:
        raise ValueError(
            f"read_config: the settings must be for {stage}, as the command says; got stage {values['stage']!r} in "
            f"{source}. Start that stage, or take another preset."
        )
    return config_of(values)


def config_of(values: Mapping[str, Any]) -> TrainingConfig:
    """Makes settings of plain values by name, with types checked.

    Raises:
        ValueError: A key is unknown or missing, a value has the wrong type, or the settings break a rule.
    """
    kinds = get_type_hints(TrainingConfig)
    unknown = [key for key in values if key not in kinds]
    if unknown:
        close = difflib.get_close_matches(unknown[0], kinds, 1)
        cure = f"Did you mean {close[0]}?" if close else "`exgra-med train --help` lists them."
        raise ValueError(f"TrainingConfig: settings must have known names; got {unknown[0]!r}. {cure}")
    values = {"images": None, **values}
    missing = [name for name in ("data", "output") if values.get(name) is None]
    if missing:
        raise ValueError(
            f"TrainingConfig: {missing[0]} must be given; got nothing. Add it to the file, or --set {missing[0]}=PATH."
        )
    return TrainingConfig(**{name: _typed(name, kinds[name], value) for name, value in values.items()})


def preset_names() -> list[str]:
    """Returns the names of the presets that come with the package."""
    return sorted(path.stem for path in _presets().glob("*.yaml"))


def _presets() -> Path:
    return Path(__file__).parent / "configs"


def _read_file(source: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    import yaml

    path = Path(source)
    if not path.suffix and not path.is_file():  # a folder of that name is none, such as a run's output
        path = _presets() / f"{source}.yaml"
        if not path.is_file():
            close = difflib.get_close_matches(source, preset_names(), 1)
            cure = f"Did you mean {close[0]}?" if close else f"Presets are {', '.join(preset_names())}."
            raise ValueError(f"read_config: config must be a YAML file or a preset; got {source!r}. {cure}")
    try:
        text = path.read_text(encoding="utf-8")
        values, document = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(
            f"read_config: config must be a readable file; got {path} ({error.strerror}). Check the path."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"read_config: {path} must be YAML; got an error: {reason}. Repair the file.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        got = repr(values) if len(repr(values)) <= _SHOWN else f"{repr(values)[:_SHOWN]}..."
        raise ValueError(f"read_config: {path} must hold settings as `key: value`; got {got}. Add some.")
    written: set[str] = set()
    for key, value in document.value:
        if key.value in written:
            raise ValueError(f"read_config: {path} must hold each setting once; got {key.value} twice. Remove one.")
        written.add(key.value)
        if key.value in values and isinstance(value, yaml.ScalarNode):
            values[key.value] = _as_written(key.value, values[key.value], value.value)
    base = values.pop("based_on", None)
    if base is None:
        return dict(values)
    if source in seen:
        raise ValueError(f"read_config: based_on must not lead back to {source}; got a circle. Break it.")
    beside = path.parent / str(base)
    return {**_read_file(str(beside if beside.is_file() else base), (*seen, source)), **values}


def _as_written(name: str, value: Any, text: str) -> Any:
    """Returns the text where a setting is one and YAML reads a number or a date: the folder 010 would become 8."""
    kind = get_type_hints(TrainingConfig).get(name)
    is_text = kind is not None and bool({str, Path} & {kind, *get_args(kind)})
    return text if is_text and isinstance(value, int | float | date) and not isinstance(value, bool) else value


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Returns a value in the type of its field; whole numbers do for fractions, and YAML reads 1e-4 as text."""
    if is_optional(kind) and (value is None or (value == "none" and "none" not in choices_of(kind))):
        return None
    inner = next((each for each in get_args(kind) if each is not type(None)), kind) if is_optional(kind) else kind
    wanted: Any = str if get_origin(inner) is Literal else inner
    fits = isinstance(value, (str, Path) if wanted is Path else wanted) and not (
        wanted is not bool and isinstance(value, bool)
    )
    if fits:
        return value
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if wanted in (str, Path) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(wanted, "a text")
    raise ValueError(f"TrainingConfig: {name} must be {expected}; got {value!r}. Correct the value.")
