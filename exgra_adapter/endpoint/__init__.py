"""OpenAI-compatible chat endpoints: structured replies with retries, a journal, many items at once."""

from exgra_adapter.endpoint.batch import Item, Summary, run_all, run_batch
from exgra_adapter.endpoint.client import ChatClient, EndpointError, FailedItem, RefusedByEndpoint, Reply
from exgra_adapter.endpoint.journal import Journal, JournalIndex, read_entries
from exgra_adapter.endpoint.settings import (
    EndpointSettings,
    add_endpoint_options,
    endpoint_settings,
    settings_from_options,
)

__all__ = [
    "ChatClient",
    "EndpointError",
    "EndpointSettings",
    "FailedItem",
    "Item",
    "Journal",
    "JournalIndex",
    "RefusedByEndpoint",
    "Reply",
    "Summary",
    "add_endpoint_options",
    "endpoint_settings",
    "read_entries",
    "run_all",
    "run_batch",
    "settings_from_options",
]
