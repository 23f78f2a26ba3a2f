"""Which endpoint is asked, and how. The key stays out of texts, journals and errors."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from exgra_adapter.console import natural, positive

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class EndpointSettings:
    """One endpoint with one model.

    Attributes:
        base_url: Address up to and with the version, such as `http://localhost:8000/v1`.
        model: Name of the model there.
        api_key: Secret key; empty for servers that need none. Never shown: write `describe()` into files, not this.
        temperature: Sampling temperature; 0 is as repeatable as the endpoint allows.
        max_tokens: Longest reply in tokens.
        timeout: Seconds until a request without a complete reply is given up and made again.
        concurrency: Requests in flight at once.
        max_attempts: Requests for one item, the first one included.
        price_input: Price of a million input tokens, in any currency; None leaves costs out.
        price_output: Price of a million output tokens.
        seed: Seed of the random part of waiting times.
        first_wait: Seconds before the second attempt, on average three quarters of it; later ones wait longer.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    temperature: float = 0.0
    max_tokens: int = 512
    timeout: float = 60.0
    concurrency: int = 32
    max_attempts: int = 6
    price_input: float | None = None
    price_output: float | None = None
    seed: int = 0
    first_wait: float = 1.0

    def __post_init__(self) -> None:
        _require_url(self.base_url)
        if not self.model:
            raise ValueError("EndpointSettings: model must be a name; got an empty text. Name one with --model.")
        if not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            raise ValueError(
                "EndpointSettings: api_key must be printable ASCII without spaces; got other characters. "
                f"Copy the key into {KEY_VARIABLE} again."
            )
        for name in ("concurrency", "max_attempts", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"EndpointSettings: {name} must be at least 1; got {getattr(self, name)}. Use a larger number."
                )
        for name in ("timeout", "first_wait"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"EndpointSettings: {name} must be above 0 seconds; got {seconds}. Leave it out.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"EndpointSettings: temperature must be at least 0; got {self.temperature}. Use 0.")
        for name in ("price_input", "price_output"):
            price = getattr(self, name)
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise ValueError(f"EndpointSettings: {name} must be at least 0; got {price}. Leave it out if unknown.")

    def describe(self) -> dict[str, Any]:
        """What decides about the replies, for files: address, model and sampling, without the key."""
        return {
            "base_url": self.base_url,
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def masked(self, value: Any) -> Any:
        """Returns what an endpoint said without the key, which some repeat, also as JSON or as a part of an address.

        A key of a few letters, as local servers take, hides nothing and stays.

        Args:
            value: A text, or what JSON holds.

        Example:
            >>> EndpointSettings("http://localhost/v1", "m", "sk-0123456789").masked("Unknown key sk-0123456789.")
            'Unknown key [key].'
        """
        if len(self.api_key) < _SHORTEST_SECRET:
            return value
        if isinstance(value, dict):
            return {self.masked(key): self.masked(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.masked(inner) for inner in value]
        if isinstance(value, str):
            for form in (self.api_key, json.dumps(self.api_key)[1:-1], quote(self.api_key, safe="")):
                value = value.replace(form, "[key]")
        return value

    def cost(self, input_tokens: float, output_tokens: float) -> float | None:
        """Price of some tokens, or None where a price is unknown.

        Example:
            >>> settings = EndpointSettings("http://localhost/v1", "m", price_input=1.0, price_output=4.0)
            >>> settings.cost(2_000_000, 500_000)
            4.0
        """
        if self.price_input is None or self.price_output is None:
            return None
        return (input_tokens * self.price_input + output_tokens * self.price_output) / 1e6


def endpoint_settings(
    *,
    model: str | None,
    base_url: str | None = None,
    api_key: str | None = None,
    env_file: Path | None = Path(".env"),
    **others: Any,
) -> EndpointSettings:
    """Completes settings: an argument wins over the environment, and the environment over the file.

    Args:
        model: Name of the model.
        base_url: Address; None takes `OPENAI_BASE_URL`.
        api_key: Key; None takes `OPENAI_API_KEY`, or none.
        env_file: File with lines `NAME=VALUE`; it may be missing. None reads no file.
        others: Further fields of `EndpointSettings`.

    Returns:
        The settings.

    Raises:
        ValueError: No address or model is given, a value is out of range, or the file has a broken line.

    Example:
        >>> endpoint_settings(model="m", base_url="http://localhost:8000/v1", env_file=None).model
        'm'
    """
    from_file = read_env_file(env_file) if env_file is not None and Path(env_file).exists() else {}

    def find(value: str | None, variable: str) -> str:
        choices = (value, os.environ.get(variable), from_file.get(variable))
        return next((choice for choice in choices if choice), "")

    url = find(base_url, URL_VARIABLE)
    if not url:
        raise ValueError(
            f"endpoint_settings: base_url must be an address; got none. Give --endpoint, or set {URL_VARIABLE} in the "
            "environment or in a .env file."
        )
    if not model:
        raise ValueError("endpoint_settings: model must be the name of a model; got none. Give --model.")
    return EndpointSettings(url, model, find(api_key, KEY_VARIABLE), **others)


def read_env_file(path: Path) -> dict[str, str]:
    r"""Reads lines `NAME=VALUE`; `export` in front, quotes around values, comments and blank lines are understood.

    Raises:
        ValueError: A line is none of these; the message has its number, not its content.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / ".env"
        >>> _ = path.write_text('# local server\nexport OPENAI_BASE_URL="http://localhost:8000/v1"\n')
        >>> read_env_file(path)
        {'OPENAI_BASE_URL': 'http://localhost:8000/v1'}
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"read_env_file: {path} must be UTF-8 text; got other bytes. Convert it.") from None
    values = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(
                f"read_env_file: line {number} of {path} must be NAME=VALUE; got another text. Correct it."
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].rstrip()
        values[name.strip()] = value
    return values


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `settings_from_options` reads. There is none for the key: others see command lines."""
    group = parser.add_argument_group(
        "endpoint", f"The key is read from {KEY_VARIABLE} in the environment, or in the .env file; it is shown nowhere."
    )
    group.add_argument("--endpoint", metavar="URL", help=f"address, as http://host/v1 (default: {URL_VARIABLE})")
    for name in ("--api-key", "--key"):
        group.add_argument(name, action=_RefusedKey, nargs="?", help=argparse.SUPPRESS)
    group.add_argument("--model", metavar="NAME", help="name of the model there")
    group.add_argument(
        "--env-file", metavar="FILE", type=Path, default=Path(".env"), help="lines NAME=VALUE (default: %(default)s)"
    )
    group.add_argument(
        "--concurrency", metavar="N", type=positive, default=32, help="requests in flight (default: %(default)s)"
    )
    group.add_argument(
        "--max-attempts", metavar="N", type=positive, default=6, help="requests for one item (default: %(default)s)"
    )
    group.add_argument(
        "--first-wait",
        metavar="S",
        type=float,
        default=1.0,
        help="seconds before the second attempt; the wait doubles each time (default: %(default)s)",
    )
    group.add_argument(
        "--timeout", metavar="S", type=float, default=60.0, help="seconds for one request (default: %(default)s)"
    )
    group.add_argument(
        "--temperature", metavar="T", type=float, default=0.0, help="sampling temperature (default: %(default)s)"
    )
    group.add_argument(
        "--max-tokens", metavar="N", type=positive, default=512, help="longest reply (default: %(default)s)"
    )
    group.add_argument("--price-input", metavar="P", type=float, help="price of a million input tokens")
    group.add_argument("--price-output", metavar="P", type=float, help="price of a million output tokens")
    group.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="seed of random waiting times (default: %(default)s)"
    )


class _RefusedKey(argparse.Action):
    """Refuses a key without repeating it, which argparse would do with an option that it does not know."""

    def __init__(self, option_strings: Sequence[str], dest: str, **others: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, **others)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Ends the program."""
        parser.error(
            f"{option_string} must not be given, because others see command lines; put the key into {KEY_VARIABLE} in "
            "the environment or in the .env file"
        )


def settings_from_options(options: argparse.Namespace) -> EndpointSettings:
    """Makes settings of parsed options; see `endpoint_settings` for what the environment adds."""
    names = ["concurrency", "max_attempts", "first_wait", "timeout", "temperature", "max_tokens"]
    names += ["price_input", "price_output", "seed"]
    others = {name: getattr(options, name) for name in names}
    return endpoint_settings(model=options.model, base_url=options.endpoint, env_file=options.env_file, **others)


def _require_url(url: str) -> None:
    if any(mark in url for mark in "@?#"):
        # The address is written into journals and reports, so a secret in it would be too; nor is it repeated here.
        raise ValueError(
            "EndpointSettings: base_url must have no user, password or query, because it is written into reports; got "
            f"one of them. Put the key into {KEY_VARIABLE}."
        )
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ValueError("EndpointSettings: base_url must be an address; got a broken one. Correct it.") from None
    if not good:
        raise ValueError(f"EndpointSettings: base_url must be http://host/v1 or https; got {url!r}. Correct it.")
