"""Many items at once: bounded concurrency over a lazy iterable, everything journalled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from exgra_adapter.endpoint.client import ChatClient, EndpointError, FailedItem
from exgra_adapter.endpoint.journal import Journal
from exgra_adapter.endpoint.settings import EndpointSettings


@dataclass(frozen=True, slots=True)
class Item:
    """One question to the endpoint.

    Attributes:
        key: Identifies the item in the journal; unique.
        messages: The chat.
        schema: JSON schema of the reply.
        name: Name of the schema.
    """

    key: str
    messages: list[dict[str, Any]]
    schema: dict[str, Any]
    name: str = "reply"


@dataclass
class Summary:
    """What a run did.

    Attributes:
        done: Items with a good reply.
        failed: Items without.
        skipped: Items that the journal had already.
        attempts: Requests made.
        input_tokens: As the endpoint counted, failed attempts included.
        output_tokens: Likewise.
        cost: In the unit of the prices, or None where these are unknown.
        seconds: Wall-clock time.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0


def run_batch(
    settings: EndpointSettings,
    items: Iterable[Item],
    journal: Journal,
    *,
    first_wait: float | None = None,
    **options: Any,
) -> Summary:
    """Opens a client and does `run_all`, for code that is not asynchronous.

    Args:
        settings: The endpoint.
        items: As in `run_all`.
        journal: As in `run_all`.
        first_wait: As in `ChatClient`.
        options: Further arguments of `run_all`.

    Raises:
        KeyboardInterrupt: Ctrl-C; all finished items are in the journal.
    """

    async def run() -> Summary:
        async with ChatClient(settings, first_wait) as client:
            return await run_all(client, items, journal, **options)

    return asyncio.run(run())


async def run_all(
    client: ChatClient,
    items: Iterable[Item],
    journal: Journal,
    *,
    retry_failed: bool = False,
    total: int | None = None,
    description: str = "asking",
    show_progress: bool = True,
    most_failures_in_a_row: int = 100,
) -> Summary:
    """Asks for all items that the journal does not have yet.

    At most `client.settings.concurrency` items are in memory. A good reply is journalled as status `"ok"` with
    `content`, `input_tokens`, `output_tokens` and `attempts`, a failed item as `"failed"` with `reason` instead of
    `content`.

    Args:
        client: The open client.
        items: Read one by one, as requests become free.
        journal: Says what is finished, and takes the replies.
        retry_failed: Ask again for items that an earlier run journalled as failed.
        total: Number of items, for the progress bar.
        description: Label of the progress bar.
        show_progress: Whether there is a progress bar.
        most_failures_in_a_row: So many failures without a success between them end the run: the endpoint is down.

    Returns:
        Counts and cost of this run.

    Raises:
        RefusedByEndpoint: The endpoint refuses every request.
        EndpointError: Too many items failed in a row.
        ValueError: `items` raised it.
    """
    summary, started = Summary(), time.monotonic()
    settings = client.settings
    in_a_row = 0

    def open_items() -> Iterator[Item]:
        for item in items:
            status = journal.status(item.key)
            if status is None or (status == "failed" and retry_failed):
                yield item
            else:
                summary.skipped += 1
                progress.update()

    async def work() -> None:
        nonlocal in_a_row
        for item in waiting:
            try:
                reply = await client.ask(item.messages, item.schema, item.name)
            except FailedItem as failure:
                count = {"input_tokens": failure.input_tokens, "output_tokens": failure.output_tokens}
                journal.write(item.key, "failed", reason=failure.reason, attempts=failure.attempts, **count)
                summary.failed += 1
                summary.attempts += failure.attempts
                in_a_row += 1
                if in_a_row >= most_failures_in_a_row:
                    raise EndpointError(
                        f"run_all: the endpoint must answer; {in_a_row} items failed in a row, the last one: "
                        f"{failure.reason}. Finished items are kept; continue with --resume --retry-failed later."
                    ) from None
            else:
                count = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
                journal.write(item.key, "ok", content=reply.content, attempts=reply.attempts, **count)
                summary.done += 1
                summary.attempts += reply.attempts
                in_a_row = 0
            summary.input_tokens += count["input_tokens"]
            summary.output_tokens += count["output_tokens"]
            summary.cost = settings.cost(summary.input_tokens, summary.output_tokens)
            progress.set_postfix(_postfix(summary), refresh=False)
            progress.update()

    with tqdm(total=total, desc=description, unit="item", disable=not show_progress) as progress:
        waiting = open_items()  # one iterator for all workers: each takes the next item when it is free
        workers = [asyncio.create_task(work()) for _ in range(settings.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            # After an error or Ctrl-C the requests in flight are given up; what they would bring is asked for again.
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    summary.seconds = time.monotonic() - started
    summary.cost = settings.cost(summary.input_tokens, summary.output_tokens)
    return summary


def _postfix(summary: Summary) -> dict[str, str]:
    shown = {"failed": str(summary.failed)} if summary.failed else {}
    return shown if summary.cost is None else {**shown, "cost": f"{summary.cost:.2f}"}
