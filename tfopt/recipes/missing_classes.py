"""Classes that a split has no images of."""

from tfopt.data import ImageDataset

_MEANING = {
    "train": "the model does not learn them",
    "validation": "no epoch is chosen by them",
    "test": "the results say nothing about them",
}
_NAMED = 5


def lacking_text(images: ImageDataset) -> str:
    """A warning for each split that lacks classes or labels, in one line; "" if none does."""
    if images.task == "regression":
        return ""
    found = []
    for split, counts in images.class_counts.items():
        lacking = [repr(name) for name, count in zip(images.class_names, counts) if not count]
        if lacking:
            more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            found.append(f"no {split} images of {', '.join(lacking[:_NAMED])}{more}: {_MEANING[split]}")
    return "; ".join(found)
