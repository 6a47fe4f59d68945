"""Options of `finetune` and `compress`: limits on the exported file."""

import dataclasses

from tfopt.recipes.options import Options, option

_NAMES = {
    "max_bytes": "bytes",
    "max_zipped": "zipped",
    "max_latency": "latency_ms",
    "max_arena": "arena",
    "max_drop": "drop",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """What the file may cost at most."""

    max_bytes: str | None = option(
        None,
        "compression",
        "Size of the file, such as '250k' or '0.5MiB' (k is 1000, KiB 1024). Limits choose the channels that "
        "stay, the sparsity and the quantization, by measured files.",
        none="no limit",
        metavar="SIZE",
    )
    max_zipped: str | None = option(
        None, "compression", "Size of the file compressed by zlib.", none="no limit", metavar="SIZE"
    )
    max_latency: str | None = option(
        None,
        "compression",
        "Median time of one inference on this machine, such as '5ms'.",
        none="no limit",
        metavar="TIME",
    )
    max_arena: str | None = option(
        None, "compression", "Memory of activations, estimated.", none="no limit", metavar="SIZE"
    )
    max_drop: str | None = option(
        None,
        "compression",
        "Loss of accuracy against the float model, such as '1%' or '0.01'. Alone: the smallest file within.",
        none="no limit",
        metavar="SHARE",
    )

    def limits(self) -> dict[str, str]:
        """The limits that are given, by the names of `compress.Budget`."""
        given = {name: getattr(self, option) for option, name in _NAMES.items()}
        limits = {name: text for name, text in given.items() if text}
        own = {name: getattr(self, name, None) for name in ("keep", "sparsity", "clusters")}
        fixed = {name: value for name, value in own.items() if value is not None}
        if limits and fixed:
            others = " and ".join(f"`{name}`" for name in own if hasattr(self, name))
            named = ", ".join(f"`{option}`" for option, name in _NAMES.items() if name in limits)
            raise ValueError(
                f"Limits choose what is removed. Received: {named} together with {fixed}. Give either limits "
                f"or {others}."
            )
        return limits

    def in_words_of_options(self, text: str) -> str:
        """An error of `compress.Budget`, with the names that the user has given."""
        for option_name, name in _NAMES.items():
            text = text.replace(f"`{name}`", f"`{option_name}`").replace(f" {name}=", f" {option_name}=")
        return text
