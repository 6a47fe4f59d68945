"""The HTML report: complete in itself, escaped, right for every amount of data."""

import base64
import html.parser
import itertools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.report import (
    Embedding,
    LabelScore,
    Mistake,
    ModelRow,
    Report,
    Stage,
    TargetScore,
    embed,
    grad_cam,
    overlay,
    write,
)
from tfopt.report.charts import Line, axis_scale, stage_chart
from tfopt.report.confusion import most_confused
from tfopt.report.images import picture, shrink
from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import bytes_text, percent, seconds_text, significant, tick_texts, ticks
from tfopt.report.write import headline

NAN = float("nan")
VOID = {"img", "meta", "br"}
ADDRESSES = {"src", "href", "data", "srcset", "action"}


class Page(html.parser.HTMLParser):
    """Checks that every element is closed in order, and collects tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for key, value in attrs if key in ("src", "href", "data", "srcset", "action")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def photos(count, size=80, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels)).astype("uint8")


def full_report(classes=12, **changes):
    rng = np.random.default_rng(1)
    names = [f"class {i}" for i in range(classes)]
    points = Embedding(rng.normal(size=(50, 2)), rng.integers(0, classes, 50), "t-SNE")
    fields = dict(
        title="Flowers",
        class_names=names,
        subtitle="MobileNet",
        models=[
            ModelRow("float32", 0.9667, (0.936, 0.983), 900_212, 832_000, 2.9, (2.8, 3.3), 1.0),
            ModelRow("int8", 0.9625, (0.931, 0.98), 322_424, 251_000, 1.3, (1.2, 1.5), 0.9917, "exported"),
        ],
        stages=[
            Stage("head", {"loss": [1.0, 0.5], "val_loss": [0.9, 0.6], "learning_rate": [1e-2, 1e-4]}, 9.4),
            Stage("QAT", {"loss": [0.4], "val_loss": [0.5], "accuracy": [0.99]}, 20),
        ],
        class_counts={"train": [50] * classes, "test": [20] * classes},
        samples=photos(4),
        sample_labels=[0] * 4,
        confusion=np.eye(classes, dtype=int) * 20,
        mistakes=[Mistake(photos(1)[0], 0, classes - 1, 0.93, photos(1)[0], "a.jpg")],
        embedding=points,
        options={"alpha": 0.25, "sparsity": None},
        environment={"keras": keras.__version__},
        notes=["3 images were skipped"],
        seconds=97.0,
    )
    return Report(**{**fields, **changes})


def text_of(tmp_path, report):
    return write(tmp_path / "report.html", report).read_text(encoding="utf-8")


def test_page_is_complete_and_loads_nothing(tmp_path):
    text = text_of(tmp_path, full_report())
    page = Page(text)
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("script") == 1 and "url(" not in text and "@import" not in text
    shown = " ".join(page.text)
    for expected in (
        "96.2\u202f%",
        "322\u202fkB",
        "3 images were skipped",
        "a.jpg",
        "97\u202fs",
        "t-SNE",
        "None",
    ):
        assert expected in shown, expected
    targets = [address[1:] for address in page.addresses if address.startswith("#")]
    assert targets and all(f'<section id="{target}">' in text for target in targets)


def test_typical_page_is_small(tmp_path):
    mistakes = [Mistake(photos(1, 224)[0], 0, 1, 0.9, photos(1, 224)[0])] * 12
    path = write(tmp_path / "r.html", full_report(samples=photos(32, 224), mistakes=mistakes))
    assert path.stat().st_size < 2e6  # noise: no photograph compresses worse


def test_text_from_outside_is_escaped(tmp_path):
    evil = '<img src=x onerror="alert(1)">&\'"'
    report = full_report(
        title=evil,
        subtitle=evil,
        class_names=[evil] * 12,
        models=[ModelRow(evil, 0.5, note=evil)] * 2,
        stages=[Stage(evil, {evil: [1.0], "loss": [1.0]}, 3)],
        class_counts={evil: [1] * 12},
        confusion=np.ones((12, 12), int),
        mistakes=[Mistake(photos(1)[0], 0, 1, 0.9, photos(1)[0], evil)],
        options={evil: evil},
        environment={evil: [evil]},
        notes=[evil],
        evaluated_on=evil,
        evaluated_model=evil,
    )
    text = text_of(tmp_path, report)
    assert "<img src=x" not in text and "onerror=&quot;" in text
    Page(text)  # attributes stay closed
    assert Page(text).tags.count("img") == 4 + 2


def test_labels_are_listed_the_worst_first(tmp_path):
    labels = [
        LabelScore("<cat>", 12, 0.91, 0.95, 0.8, 0.7, 0.75, 0.42),
        LabelScore("dog", 9, 0.55, 0.6, 0.5, 0.4, 0.44, 0.31),
        LabelScore("eel", 0, NAN, NAN, 0.0, 0.0, 0.0, 0.5),
    ]
    rows, names = [ModelRow("float"), ModelRow("int8 file")], ["<cat>", "dog", "eel"]
    counts = {"test": [12, 9, 0]}
    report = Report("Tags", names, "", rows, measures={"mAP": "73.0 %"}, labels=labels, class_counts=counts)
    page = Page(write(tmp_path / "report.html", report).read_text())
    text = " ".join(page.text)
    assert "<cat>" in page.text and text.index("55.0") < text.index("91.0")
    assert "mAP, int8 file" in page.text and "0.420" in page.text and "nan" not in text.split()
    assert "3 labels; images with each, added up: 21 test." in page.text


def test_numbers_are_shown_with_a_point_for_each_image_and_the_errors(tmp_path):
    truth = np.linspace(-1, 5, 40)
    target = TargetScore("angle", truth, truth + np.where(np.arange(40) % 2, 0.5, -0.3), 1.5)
    rows = [ModelRow("float", result="mae 0.400"), ModelRow("int8 file", result="mae 0.401")]
    report = Report("Angles", ["angle"], models=rows, targets=[target], measures={"Mae": "0.401"})
    page = Page(write(tmp_path / "report.html", report).read_text())
    assert page.tags.count("circle") == 40 and page.tags.count("rect") == 2
    assert "0.4" in page.text and "accuracy" not in page.text and "mae 0.401" in page.text
    for truth, answers in ((np.zeros(0), np.zeros(0)), (np.array([1.0]), np.array([NAN]))):
        report = Report("E", ["x"], targets=[TargetScore("x", truth, answers)])
        assert "could not be made" not in write(tmp_path / "empty.html", report).read_text()
    with pytest.raises(ValueError, match="answers"):
        TargetScore("x", np.zeros(2), np.zeros((2, 1)))


@pytest.mark.parametrize("classes", [1, 2, 31, 60])
def test_any_number_of_classes(tmp_path, classes):
    matrix = np.random.default_rng(0).integers(0, 5, (classes, classes))
    text = text_of(tmp_path, full_report(classes, confusion=matrix))
    assert text.count('class="right-answer"') == np.count_nonzero(np.diag(matrix))
    assert text.count('class="wrong-answer"') == np.count_nonzero(matrix) - np.count_nonzero(np.diag(matrix))
    assert Page(text)


def test_a_page_of_a_thousand_classes_is_small_and_legible(tmp_path):
    rng = np.random.default_rng(0)
    true, answers = rng.integers(0, 1000, (2, 10_000))
    answers = np.where(rng.random(10_000) < 0.5, true, answers)
    matrix = np.zeros((1000, 1000), int)
    np.add.at(matrix, (true, answers), 1)
    matrix[17, 400:402] = 40, 30
    counts = {"train": np.arange(1000) + 5, "test": matrix.sum(axis=1)}
    recalls = (np.diag(matrix) / matrix.sum(axis=1)).tolist()
    models = [ModelRow("float32", 0.5, recalls=recalls), ModelRow("int8", 0.5, recalls=recalls)]
    text = text_of(tmp_path, full_report(1000, confusion=matrix, class_counts=counts, models=models))
    assert len(text.encode()) < 1e6
    chart = text[text.index('class="confusion"') - 3000 : text.index("Taken for another")]
    assert 20 < chart.count('class="right"') <= 30, "names of classes beside the rows"
    assert "class 17 taken for class 400: 40 of " in text and "class 17 taken for class 401: 30 of " in text
    page = " ".join(Page(text).text)
    assert re.search("Of 1,000 classes, the (29|30) with the largest single mistakes are drawn", page)
    assert "The 30 classes with the most images and the 30 with the fewest, of 1,000" in page


def test_empty_sections_are_left_out(tmp_path):
    text = text_of(tmp_path, Report("Nothing", []))
    assert "<section" not in text and "tiles" not in Page(text).text
    partly = text_of(
        tmp_path, full_report(mistakes=[], confusion=None, embedding=None, samples=None, stages=[])
    )
    assert set(re.findall(r'<section id="(\w+)">', partly)) == {"models", "data", "run"}


def test_an_empty_confusion_matrix_divides_by_nothing(tmp_path):
    assert "0 of 0 test images" in text_of(tmp_path, full_report(confusion=np.zeros((12, 12), int)))


def test_write_makes_folders_and_replaces_whole_files(tmp_path):
    path = write(tmp_path / "a" / "b" / "r.html", full_report())
    write(path, Report("Second", []))
    assert "Second" in path.read_text() and list(path.parent.iterdir()) == [path]
    with pytest.raises(TypeError, match="`report` must be an instance of Report"):
        write(path, {"title": "x"})


@pytest.mark.parametrize("fields", [{"confusion": np.eye(3)}, {"class_counts": {"train": [1, 2]}}])
def test_sizes_must_fit_the_classes(fields):
    with pytest.raises(ValueError, match=r"`(confusion|class_counts)` must be .* Received"):
        full_report(**fields)
    with pytest.raises(ValueError, match="`points` must be"):
        Embedding(np.zeros((3, 2)), np.zeros(4))


def polylines(chart):
    return [len(points.split()) for points in re.findall(r'points="([^"]+)"', chart)]


def test_curves_break_at_stages_and_at_nan():
    line = Line("training", [[3.0, 2.0, NAN, 1.0, math.inf], [0.5]])
    chart = stage_chart("Loss", [line], [("head", 5), ("QAT", 1)])
    assert polylines(chart) == [2, 1, 1] and chart.count("<circle") == 4
    assert "0.500</text>" in chart and "NaN" not in chart
    assert "2.00, then NaN" in stage_chart("Loss", [Line("x", [[2.0, NAN]])], [("a", 2)])
    assert "no finite value" in stage_chart("Loss", [Line("x", [[NAN]])], [("a", 1)])


def test_a_metric_missing_in_the_last_stage_is_not_called_nan():
    chart = stage_chart("Sparsity", [Line("x", [[0.5], []])], [("a", 1), ("b", 3)], share=True)
    assert "50.0\u202f%" in chart and "NaN" not in chart


def test_values_are_drawn_where_the_axis_says():
    chart = stage_chart("Loss", [Line("x", [[0.0, 1.0, 2.0]])], [("a", 3)])
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', chart)]
    labels = {
        text: float(y) - 4 for y, text in re.findall(r'y="([\d.]+)" class="tick right">([^<]+)<', chart)
    }
    assert heights == [labels["0"], labels["1"], labels["2"]]
    log = axis_scale([1e-4, 1e-2], 100, 0, log=True)
    assert log(1e-3) == pytest.approx(50) and log.marks() == [1e-4, 1e-3, 1e-2]


def test_end_labels_do_not_cover_each_other():
    lines = [Line(name, [[0.0, 1.0 + 0.001 * i]]) for i, name in enumerate("abc")]
    chart = stage_chart("Loss", lines, [("s", 2)])
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" class="end', chart)]
    assert len(heights) == 3 and all(b - a >= 15 for a, b in itertools.pairwise(heights))


def test_percent_axis_ends_at_one_hundred():
    chart = stage_chart("Accuracy", [Line("x", [[1.0, 1.0]])], [("a", 2)], share=True)
    assert (
        "100\u202f%" in chart and max(float(v) for v in re.findall(r"([\d.]+)\u202f%</text>", chart)) == 100
    )


def test_headline_speaks_of_the_last_model():
    values = {label: (value, note) for label, value, note in headline(full_report())}
    assert values["Accuracy, int8"] == ("96.2\u202f%", "95 % interval 93.1\u2060–\u206098.0\u202f%")
    assert values["File size"] == ("322\u202fkB", "2.8× smaller than float32")
    assert values["Agreement"] == ("99.2\u202f%", "same answer as float32")
    assert values["Whole run"] == ("97\u202fs", "3 epochs in 2 stages")
    report = full_report(models=[ModelRow("f", 0.9, bytes=10)])
    alone = {label: note for label, _, note in headline(report)}
    assert alone["File size"] == "" and "Agreement" not in alone


def test_most_confused_are_sorted_and_never_right_answers():
    matrix = np.array([[9, 1, 0], [0, 9, 4], [0, 0, 9]])
    assert most_confused(matrix, "abc") == [("b", "c", 4, 13), ("a", "b", 1, 10)]
    assert matrix[0, 0] == 9  # the argument is left alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bytes_text(999), "999\u202fB"),
        (bytes_text(322_424), "322\u202fkB"),
        (bytes_text(4_300_000), "4.30\u202fMB"),
        (seconds_text(9.44), "9.4\u202fs"),
        (seconds_text(4330), "1\u202fh 12\u202fmin"),
        (seconds_text(3599), "1\u202fh 0\u202fmin"),
        (percent(0.96666), "96.7\u202f%"),
        (percent(NAN), "–"),
        (significant(1234.5), "1,230"),
        (significant(0.000012), "1.20·10⁻⁵"),
        (significant(0), "0"),
        (significant(-0.5), "-0.500"),
        (significant(NAN), "nan"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (0.93, 0.981), (-3, 7000), (1e-9, 2e-9)):
        marks = ticks(low, high)
        assert 3 <= len(marks) <= 12 and min(marks) >= low - 1e-12 and max(marks) <= high * (1 + 1e-9)
    assert tick_texts([1e-5, 1e-4]) == ["10⁻⁵", "10⁻⁴"] and tick_texts([0.5], share=True) == ["50\u202f%"]


def test_markup_escapes_everything_but_markup():
    assert tag("b", "<", Markup("<i>"), 3, None, ["&"]) == "<b>&lt;<i>3&amp;</b>"
    assert tag("img", alt='"', class_="a", data_x=None, x=1.5) == '<img alt="&quot;" class="a" x="1.5">'
    assert join(["<", Markup("<")]) == "&lt;<"


@pytest.mark.parametrize(("size", "channels", "kind"), [(32, 1, "png"), (32, 3, "png"), (300, 3, "jpeg")])
def test_pictures_survive_the_page(size, channels, kind):
    image = np.full((size, size // 2, channels), 200, "uint8")
    source = re.search(r'src="data:image/(\w+);base64,([^"]+)"', picture(image, "alt", 160))
    decoded = tf.io.decode_image(base64.b64decode(source[2])).numpy()
    assert source[1] == kind and max(decoded.shape) == min(size, 160)
    assert np.abs(decoded.astype(int) - 200).max() <= 2


def test_shrinking_averages_areas():
    image = np.zeros((4, 4, 1), "uint8")
    image[0, 0] = 200
    image[:2, 2:] = 100
    assert shrink(image, 2)[..., 0].tolist() == [[50, 100], [0, 0]]


def quadrant_model(activation="softmax", last="dense"):
    """Class 0 looks at channel 0, class 1 at channel 1: evidence is where that channel is bright."""
    inputs = keras.Input((16, 16, 2))
    kernel = keras.initializers.Constant(np.eye(2).reshape(1, 1, 2, 2))
    features = keras.layers.Conv2D(2, 1, kernel_initializer=kernel, use_bias=False)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    identity = keras.initializers.Constant(np.eye(2) * 4000)
    outputs = keras.layers.Dense(2, kernel_initializer=identity, activation=activation)(pooled)
    if last == "layer":
        outputs = keras.layers.Softmax()(outputs)
    if last == "activation":
        outputs = keras.layers.Activation("softmax")(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    ("activation", "last"), [("softmax", "dense"), (None, "dense"), (None, "layer"), (None, "activation")]
)
def test_grad_cam_finds_the_evidence_of_the_class(activation, last):
    images = np.zeros((2, 16, 16, 2), "float32")
    images[:, :8, :8, 0], images[:, 8:, 8:, 1] = 1.0, 0.5  # logits 1000 and 500: no gradient in a softmax
    model = quadrant_model(activation, last)
    before = [weight.copy() for weight in model.get_weights()]
    heat = grad_cam(model, images, [0, 1])
    assert heat.shape == (2, 16, 16) and heat.dtype == "float32" and heat.max() == 1.0 and heat.min() >= 0
    assert heat[0, :8, :8].mean() > 0.9 and heat[0, 8:, 8:].max() < 0.1
    assert heat[1, 8:, 8:].mean() > 0.9 and heat[1, :8, :8].max() < 0.1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_grad_cam_without_evidence_is_cold():
    images = np.zeros((1, 16, 16, 2), "float32")
    heat = grad_cam(quadrant_model(), images, [0])
    assert np.all(heat == 0)
    pixels = np.full((1, 16, 16, 3), 77, "uint8")
    assert np.array_equal(overlay(pixels, heat), pixels)


def test_overlay_is_bright_where_it_is_hot_and_takes_grey():
    hot = np.zeros((1, 4, 4), "float32")
    hot[0, 0, 0] = 1.0
    result = overlay(np.zeros((1, 4, 4, 1), "uint8"), hot)
    assert result.shape == (1, 4, 4, 3) and result[0, 0, 0].min() > 100 and result[0, 1:].max() == 0


def test_grad_cam_of_a_mobilenet_with_convolutional_top():
    model = keras.applications.MobileNet(input_shape=(64, 64, 3), alpha=0.25, weights=None, classes=5)
    heat = grad_cam(model, np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32"), [3])
    assert heat.shape == (1, 64, 64) and np.isfinite(heat).all()


def test_grad_cam_needs_a_feature_map():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must have a layer with outputs of shape"):
        grad_cam(model, np.zeros((1, 4)), [0])
    with pytest.raises(TypeError, match="`model` must be an instance of Model"):
        grad_cam(None, np.zeros((1, 4)), [0])


def test_images_that_are_all_the_same_to_the_network_are_placed_together():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    for pixel in (128.0, np.nan):  # NaN as the features of a network that has diverged
        found = embed(model, np.full((8, 4, 4, 1), pixel), [0, 1] * 4)
        assert np.array_equal(found.points, np.zeros((8, 2))) and found.labels.tolist() == [0, 1] * 4
