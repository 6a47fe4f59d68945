"""The sections that show images: the data, the mistakes, the map."""

from collections.abc import Sequence

import numpy as np

from tfopt.report.content import Mistake, Report
from tfopt.report.images import picture
from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import percent
from tfopt.report.page import Section
from tfopt.report.plane import scatter
from tfopt.report.sections import by_model

_ENDS = 30  # of more than twice as many classes, the largest and the smallest are listed


def data(report: Report) -> Section | None:
    """How many images each class has, and what the network sees of them."""
    counts = _counts(report) if report.class_counts else None
    sheet = _samples(report) if report.samples is not None and len(report.samples) else None
    if counts is None and sheet is None:
        return None
    totals = {split: int(sum(values)) for split, values in report.class_counts.items()}
    lead = ", ".join(f"{total:,} {split}" for split, total in totals.items())
    count = len(report.class_names)
    one, several = ("label", "labels") if report.labels else ("class", "classes")
    one, several = ("number to predict", "numbers to predict") if report.targets else (one, several)
    counted = "images with each, added up" if report.labels else "images"
    lead = f"{count} {one if count == 1 else several}" + (f"; {counted}: {lead}." if lead else ".")
    if report.balanced_counts is not None:
        lead += f" Classes are balanced: an epoch has {int(sum(report.balanced_counts)):,} images."
    return Section("data", "Data", join([counts, sheet]), lead)


def _counts(report: Report) -> Markup:
    splits = list(report.class_counts)
    totals = np.sum([report.class_counts[split] for split in splits], axis=0)
    longest = max(1, int(np.max(totals, initial=0)))
    rows = []
    order = np.argsort(-totals, kind="stable")
    hidden = len(order) - 2 * _ENDS
    shown = [*order[:_ENDS], *order[-_ENDS:]] if hidden > 0 else range(len(totals))
    for index in map(int, shown):
        name = report.class_names[index]
        counts = [int(report.class_counts[split][index]) for split in splits]
        written = ", ".join(f"{split} {count}" for split, count in zip(splits, counts))
        parts = [
            tag("i", class_=f"b{i % 4}", style=f"width:{100 * count / longest:.2f}%")
            for i, count in enumerate(counts)
            if count
        ]
        cells = [
            tag("span", name, class_="name"),
            tag("span", parts, class_="bar"),
            tag("span", f"{int(totals[index]):,}", class_="total"),
        ]
        if report.balanced_counts is not None:
            before = int(report.class_counts.get("train", totals)[index])
            cells[-1] = tag("span", f"{before:,} → {int(report.balanced_counts[index]):,}", class_="total")
        rows.append(tag("li", cells, title=f"{name}: {written}"))
    key = tag("div", [tag("span", split, class_=f"k{i % 4}") for i, split in enumerate(splits)], class_="key")
    kind = "bars" if report.balanced_counts is None else "bars balanced"
    text = f"The {_ENDS} classes with the most images and the {_ENDS} with the fewest, of {len(totals):,}."
    return Markup(key + (tag("p", text) if hidden > 0 else "") + tag("ul", rows, class_=kind))


def _samples(report: Report) -> Markup:
    labels = report.sample_labels if report.sample_labels is not None else []
    names = [report.class_names[int(label)] for label in labels]
    figures = []
    for index, image in enumerate(report.samples if report.samples is not None else []):
        name = names[index] if index < len(names) else f"sample {index + 1}"
        caption = tag("figcaption", name) if index < len(names) else None
        figures.append(tag("figure", picture(image, name, 144), caption))
    heading = tag("h3", "Augmented, as the network sees them")
    return Markup(heading + tag("div", figures, class_="sheet"))


EXPLANATION = "Grad-CAM"  # the key of `Report.failed` for the pictures beside the mistakes


def mistakes(report: Report) -> Section | None:
    """The wrong answers given with the most confidence."""
    if not report.mistakes:
        return None
    cards = tag("div", [_mistake(m, report.class_names) for m in report.mistakes], class_="mistakes")
    lead = f"The {report.evaluated_on} answered wrongly with the most confidence{by_model(report)}."
    if any(mistake.overlay is not None for mistake in report.mistakes):
        lead += " The second picture shows what spoke for the wrong class (Grad-CAM): brighter is stronger."
    if EXPLANATION in report.failed:
        lead += f" {EXPLANATION} could not be computed for this model ({report.failed[EXPLANATION]})."
    return Section("mistakes", "Mistakes", cards, lead)


def _mistake(mistake: Mistake, names: Sequence[str]) -> Markup:
    true, predicted = names[mistake.true], names[mistake.predicted]
    alt = f"{mistake.name or 'image'}: {true} taken for {predicted}"
    pictures = [picture(mistake.image, alt, 240)]
    if mistake.overlay is not None:
        pictures.append(picture(mistake.overlay, f"What speaks for {predicted}", 240))
    caption = tag(
        "figcaption",
        tag("span", true, class_="truth"),
        " taken for ",
        tag("span", predicted, class_="wrong"),
        f", {percent(mistake.confidence, 0)} sure",
        tag("div", mistake.name, class_="small") if mistake.name else None,
    )
    return tag("figure", tag("div", pictures, class_="pair"), caption)


def embedding(report: Report) -> Section | None:
    """The images as a map on which alike ones lie together."""
    if report.embedding is None or not len(report.embedding.points):
        return None
    chart = scatter(report.embedding.points, report.embedding.labels.tolist(), report.class_names)
    lead = "One point per image; images the network finds alike lie together."
    return Section("map", "Map of the images", chart, f"{lead} {report.embedding.method}".strip())
