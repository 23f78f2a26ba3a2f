"""ExGra-Med for Hugging Face transformers: multi-graph alignment as a loss in LLaVA training.

The package reads the public data format (`exgra_adapter.data`), builds and loads models (`exgra_adapter.models`),
trains them in stages (`exgra_adapter.training`), evaluates them (`exgra_adapter.evaluation`) and has a command line,
`exgra-med`. Importing this package loads neither torch nor transformers; the modules that need them import them.
"""
