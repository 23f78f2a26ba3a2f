"""Run by torchrun: the command `exgra-med evaluate classify` with the script's arguments."""

from __future__ import annotations

import argparse
import logging
import sys

from exgra_adapter.evaluation import classify_command


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser()
    classify_command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["classify", *arguments])
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
