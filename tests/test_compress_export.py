"""export, TFLiteModel and compare: files that were checked, errors that are named, nothing half-written."""

import dataclasses
import io
import json
import re
import weakref
import zipfile
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tfopt.compress import TFLiteModel, _convert, _probe, compare, export, quantize_aware
from tfopt.compress._agreement import decibels
from tfopt.compress._flatbuffer import metadata, schema, with_metadata
from tfopt.compress._judging import inferred, judged
from tfopt.compress._matching import Port
from tfopt.compress.comparison import wilson
from tfopt.compress.inspection import _is_two_of_four
from tfopt.compress.tflite_model import Latency

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (48, 16, 16, 3)).astype("float32")
NAMES = ["daisy", "Tulpe, rot", "löwenzahn", "rose"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [
        L.Rescaling(1 / 127.5, offset=-1.0),
        L.Conv2D(16, 3, strides=2, padding="same", use_bias=False),
        L.BatchNormalization(),
        L.ReLU(6.0),
        L.DepthwiseConv2D(3, padding="same", use_bias=False),
        L.BatchNormalization(),
        L.ReLU(6.0),
        L.GlobalAveragePooling2D(),
        L.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=9.0)),
        L.Softmax(),
    ]
    return keras.Sequential([keras.Input((16, 16, 3), name="pixels"), *layers])


@pytest.fixture(scope="module")
def trained(model):
    quantized = quantize_aware(model)
    quantized(IMAGES, training=True)
    return quantized


@pytest.mark.parametrize(
    "quantization, tolerance, kind",
    [
        (None, 1e-5, "float32"),
        ("float16", 5e-3, "float32"),
        ("dynamic", 0.05, "float32"),
        ("int8", 0.1, "uint8"),
    ],
)
def test_every_quantization_of_a_float_model(model, tmp_path, quantization, tolerance, kind):
    file = export(model, tmp_path / "m.tflite", quantization, IMAGES, class_names=NAMES)
    assert np.abs(file.predict(IMAGES) - model.predict(IMAGES, verbose=0)).max() < tolerance
    assert file.class_names == NAMES and file.inspect().input_type == kind
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


def test_int16x8(model, tmp_path):
    file = export(model, tmp_path / "m.tflite", "int16x8", IMAGES)
    assert np.abs(file.predict(IMAGES) - model.predict(IMAGES, verbose=0)).max() < 0.05
    assert {weight.dtype for weight in file.inspect().kernels if "onv" in weight.name} <= {"int8", "int32"}


@pytest.mark.parametrize("input_type", ["uint8", "int8", "float32"])
def test_int8_file_of_a_quantize_aware_model(trained, tmp_path, input_type):
    file = export(trained, tmp_path / "q.tflite", "int8", input_type=input_type)
    contents = file.inspect()
    assert contents.input_type == input_type and contents.output_type == "float32"
    assert contents.float_operations == {} and contents.flex_operations == {}
    if input_type == "uint8":
        assert contents.input_quantization == (1.0, 0)  # pixels as they come
    depthwise = [weight for weight in contents.weights if weight.shape == (1, 3, 3, 16)]
    assert [(w.dtype, w.scales) for w in depthwise] == [("int8", 16)]
    agreement = file.predict(IMAGES).argmax(1) == np.asarray(trained(IMAGES)).argmax(1)
    assert agreement.mean() >= 0.95
    assert (file.predict(IMAGES[:3].astype("uint8")) == file.predict(IMAGES[:3])).all()


def test_scales_of_channels_are_short_and_nothing_else_changes(trained, tmp_path, monkeypatch):
    short = export(trained, tmp_path / "short.tflite", "int8")
    monkeypatch.setattr(_convert, "shortened", lambda content: content)
    long = export(trained, tmp_path / "long.tflite", "int8")
    opened = [tf.lite.Interpreter(model_content=file.content) for file in (short, long)]
    for ours, before in zip(*(interpreter.get_tensor_details() for interpreter in opened)):
        scales, original = (x["quantization_parameters"]["scales"] for x in (ours, before))
        if len(original) > 1:
            bits = 8 if ours["dtype"] == np.int32 else 10
            assert (np.frexp(scales)[0] * 2**bits % 1 == 0).all() and (scales != original).any()
        np.testing.assert_allclose(scales, original, rtol=2.0**-bits if len(original) > 1 else 0)
    saved = len(zlib.compress(long.content)) - len(zlib.compress(short.content))
    assert saved > 64  # a byte of each: two convolutions of 16 channels, weights and biases
    moved = np.abs(short.predict(IMAGES) - long.predict(IMAGES)) * 256  # steps of a probability
    assert moved.max() <= 2 and (moved <= 1).mean() >= 0.99


def test_a_file_that_xnnpack_refuses_runs_on_the_built_in_kernels(tmp_path, monkeypatch, caplog):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.GlobalMaxPooling2D(), L.Dense(3)])
    images = RNG.uniform(size=(32, 8, 8, 3)).astype("float32")
    good = export(model, tmp_path / "good.tflite", "int8", representative_data=images)
    with monkeypatch.context() as patch:  # scales of a channel and of the output that are too far apart
        patch.setattr("numpy.rint", lambda values: values * 2**20)
        refused = tmp_path / "refused.tflite"
        refused.write_bytes(_convert.shortened(good.content))
    assert TFLiteModel(refused).predict(images).shape == (32, 3)
    assert f"{refused}: XNNPACK refuses it" in caplog.text and "good" not in caplog.text


def test_zeros_and_patterns_are_read_from_the_file(tmp_path):
    model = keras.Sequential([keras.Input((8,)), L.Dense(16), L.Dense(4, name="out")])
    kernel = RNG.normal(size=(8, 16)).astype("float32")
    kernel[::2] = 0.0
    model.layers[0].kernel.assign(kernel)
    contents = export(model, tmp_path / "s.tflite").inspect()
    weight = next(w for w in contents.kernels if w.shape == (16, 8))
    assert (weight.zeros, weight.two_of_four, weight.dtype) == (0.5, True, "float32")
    assert contents.sparsity == pytest.approx(64 / 192)
    assert not _is_two_of_four(np.array([[1, 1, 1, 0]])) and _is_two_of_four(np.array([[1, 0, 1, 0, 9]]))


def test_the_file_runs_with_nothing_but_an_interpreter(trained, tmp_path):
    path = tmp_path / "q.tflite"
    export(trained, path, "int8", class_names=NAMES)
    interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    assert zipfile.ZipFile(path).read("labels.txt").decode().splitlines() == NAMES


@pytest.mark.parametrize(
    "options, text",
    [
        ({"quantization": "int4"}, "`quantization` must be one of None, 'dynamic'"),
        ({"quantization": "int8"}, "`representative_data` must be inputs for the ranges.*quantize_aware"),
        ({"quantization": "int8", "representative_data": IMAGES[:1]}, "at least 2 finite inputs"),
        ({"quantization": "int8", "representative_data": IMAGES[:, :8]}, r"shape 'pixels' \(16, 16, 3\)"),
        ({"quantization": "int8", "representative_data": IMAGES * np.nan}, "all finite: False"),
        ({"input_type": "int16"}, "`input_type` must be one of"),
        ({"quantization": "dynamic", "sparse": True}, "None or 'float16' with sparse=True"),
        ({"class_names": NAMES[:3]}, "4 names of one line"),
        ({"class_names": [*NAMES[:3], "a\nb"]}, "4 names of one line"),
        ({"class_names": [*NAMES[:3], ""]}, "4 names of one line"),
        ({"class_names": range(4)}, "4 names of one line"),
        ({"class_names": "abcd"}, "4 names of one line.*Received: class_names='abcd'"),
    ],
)
def test_bad_exports_are_named_and_leave_nothing(model, tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        export(model, tmp_path / "m.tflite", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_sparse_file_holds_no_zeros(tmp_path):
    model = keras.Sequential([keras.Input((64,)), L.Dense(128), L.Dense(4)])
    kernel = RNG.normal(size=(64, 128)).astype("float32")
    model.layers[0].kernel.assign(kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), 0.8)))
    inputs = RNG.normal(size=(8, 64)).astype("float32")
    for quantization in (None, "float16"):
        sizes = []
        for sparse in (False, True):
            file = export(model, tmp_path / "s.tflite", quantization, inputs, sparse=sparse)
            np.testing.assert_allclose(file.predict(inputs), model(inputs), atol=0.02)
            sizes.append(len(file.content))
            contents = file.inspect()
            share = float(np.mean(model.layers[0].kernel == 0)) * 8192 / (8192 + 512)
            assert contents.sparsity == pytest.approx(share, abs=0.02)
            assert 500 < max(kernel.unique_values for kernel in contents.kernels) < 1700
        assert sizes[1] < 0.6 * sizes[0]


def test_operations_that_tflite_lacks_are_named(tmp_path):
    inputs = keras.Input((8, 4))
    model = keras.Model(inputs, keras.ops.erfinv(L.Dense(3, "tanh")(inputs)), name="odd")
    with pytest.raises(
        ValueError, match="`model` cannot be converted: TFLite has no operations Erfinv.*'odd'"
    ):
        export(model, tmp_path / "m.tflite", representative_data=np.full((2, 8, 4), 0.1))
    assert list(tmp_path.iterdir()) == []


def test_float_operations_left_in_an_int8_file_are_listed(tmp_path, caplog):
    """Here a layer that was skipped on purpose."""
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="a"), L.Conv2D(4, 3, name="b")])
    model.add(L.GlobalAveragePooling2D())
    quantized = quantize_aware(model, skip=["b"])
    images = RNG.uniform(0, 255, (8, 8, 8, 3)).astype("float32")
    quantized(images, training=True)
    with caplog.at_level("WARNING", "tfopt"):
        file = export(quantized, tmp_path / "m.tflite", "int8", images)
    assert "m.tflite computes in float: {" in caplog.text and "CONV_2D" in caplog.text
    assert "CONV_2D" in file.inspect().float_operations


def test_empty_and_wrong_data_are_named(model, tmp_path):
    empty = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8).take(0)
    with pytest.raises(ValueError, match="at least one batch"):
        export(model, tmp_path / "m.tflite", "int8", empty)
    with pytest.raises(TypeError, match="`data` must be a batched"):
        export(model, tmp_path / "m.tflite", "int8", [1, 2])
    features = tf.data.Dataset.from_tensor_slices({"image": IMAGES, "other": IMAGES}).batch(8)
    with pytest.raises(ValueError, match=r"must be inputs of shape 'pixels' .*Received: {'image': \(8, 16"):
        export(model, tmp_path / "m.tflite", "int8", features)
    with pytest.raises(ValueError, match="must have labels"):
        compare({"a": model}, IMAGES)
    for path in ("model.keras", tmp_path / "model.keras"):
        with pytest.raises(TypeError, match=r"instance of Model.*tfopt\.models\.load\(path\)"):
            export(path, tmp_path / "m.tflite")
    with pytest.raises(TypeError, match="instance of Model"):  # a layer of Keras 3 is no model of Keras 2
        export(L.Dense(2), tmp_path / "m.tflite")


def test_an_untrained_or_misused_quantize_aware_model_is_named(model, trained, tmp_path):
    with pytest.raises(ValueError, match="has not seen data"):
        export(quantize_aware(model), tmp_path / "q.tflite", "int8")
    with pytest.raises(ValueError, match="'int8' for a quantize_aware model"):
        export(trained, tmp_path / "q.tflite")


def test_nan_weights_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((8,)), L.Dense(4)])
    model.layers[0].kernel.assign(np.full((8, 4), np.nan))
    with pytest.raises(ValueError, match="NaN or infinity"):
        export(model, tmp_path / "m.tflite", representative_data=np.ones((4, 8)))
    assert list(tmp_path.iterdir()) == []


def test_foreign_truncated_and_missing_files_are_named(model, tmp_path):
    good = export(model, tmp_path / "m.tflite")
    bad = tmp_path / "bad.tflite"
    cut = [good.content[: len(good.content) * tenth // 10] for tenth in range(1, 10)]
    for content in (b"", b"hello, this is no model at all", b"....TFL3 and no model", *cut):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="`path` must be a"):
            TFLiteModel(bad)
    with pytest.raises(FileNotFoundError, match="none.tflite"):
        TFLiteModel(tmp_path / "none.tflite")
    with pytest.raises(ValueError, match=r"shape \(batch, 16, 16, 3\)"):
        good.predict(IMAGES[0])
    with pytest.raises(ValueError, match="NaN"):
        good.predict(IMAGES[:2] * np.nan)
    assert good.predict(IMAGES[:0]).shape == (0, 4)


def test_times_are_compared_within_an_engine_and_recalls_by_class(model, tmp_path):
    images, labels = IMAGES, np.arange(len(IMAGES)) % 4
    files = {kind or "float": export(model, tmp_path / f"{kind}.tflite", kind) for kind in (None, "float16")}
    models = {"Keras model": model, "float file": files["float"], "float16 file": files["float16"]}
    result = compare(models, (images, labels), seconds=0.02, class_names=NAMES)
    engines = [row.engine for row in result.rows]
    assert engines[0] == "Keras" and engines[1] == engines[2] == files["float"].engine
    assert files["float"].engine.endswith(", 1 thread")
    assert result.reference.name == "float file"
    assert result.speedup == result["float file"].latency.median_ms / result["float16 file"].latency.median_ms
    guesses = model.predict(images, verbose=0).argmax(-1)
    for number, recall in enumerate(result.rows[0].recalls):
        assert recall == pytest.approx(np.mean(guesses[labels == number] == number))
    assert result.rows[0].balanced_accuracy == pytest.approx(np.mean(result.rows[0].recalls))
    assert sum(result.support) == len(labels)
    told = json.loads(result.to_json())
    assert told["class_names"] == NAMES and told["warnings"] == []
    titles = [column.header for column in result.__rich__().columns]
    assert titles[-2:] == [f"{engines[1]}, ms", "Keras, ms"]
    narrow, row = io.StringIO(), result["float file"]
    slow = dataclasses.replace(result.rows[0], latency=Latency(14.3712, 11.1745, 2063.2, 10), bytes=3_338_700)
    Console(file=narrow, width=80).print(dataclasses.replace(result, rows=(slow, *result.rows[1:])))
    assert all(text in narrow.getvalue() for text in ("14.4", "11.2-2063", "3.34 MB"))
    assert f"{100 * row.accuracy_low:.1f}-{100 * row.accuracy_high:.1f}" in narrow.getvalue()
    assert "\u2026" not in narrow.getvalue() and max(map(len, narrow.getvalue().splitlines())) <= 80


def test_classes_of_a_named_task_are_kept_without_their_probabilities():
    """With a thousand classes the probabilities of the test images of all models filled the memory."""
    random, held = np.random.default_rng(0), []
    batches = [(random.uniform(size=(20, 6, 1)), random.integers(0, 6, (20, 1))) for _ in range(5)]

    def predict(inputs):
        outputs = np.array(inputs[..., 0])
        held.append(weakref.ref(outputs))
        return [outputs]

    port = Port("classes", (6,), "float32")
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(tf.TensorSpec((20, 6, 1), tf.float64), tf.TensorSpec((20, 1), tf.int64)),
    )
    (named,) = judged(predict, data, [], [port], "classification")
    assert not any(outputs() is not None for outputs in held)
    (inferred_,) = judged(predict, data, [], [port])
    assert named.task == inferred_.task == "classification" and named.classes == 6
    for name in ("answers", "truths"):
        np.testing.assert_array_equal(getattr(named, name), getattr(inferred_, name))
    np.testing.assert_array_equal(named.truths, np.concatenate([labels[:, 0] for _, labels in batches]))
    with pytest.raises(ValueError, match="must fit the task 'classification'"):
        judged(predict, data.map(lambda x, y: (x, y + 6)), [], [port], "classification")


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
def test_probabilities_of_many_classes_have_the_precision_of_logits(ending, tmp_path):
    """In steps of 1/256 the best of 200 classes share their probability with others."""
    keras.utils.set_random_seed(0)
    spread = keras.initializers.RandomNormal(stddev=0.5)
    layers = [L.Rescaling(1 / 255), L.Conv2D(16, 3, activation="relu"), L.GlobalAveragePooling2D()]
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), *layers, L.Dense(200, ending, kernel_initializer=spread)]
    )
    contrast = RNG.uniform(0.1, 1, (48, 1, 1, 3))
    images = np.concatenate([IMAGES * contrast, IMAGES[::-1] * contrast]).astype("float32")
    ties, levels = {}, {}
    for kind in ("float32", "int8"):
        file = export(model, tmp_path / f"{kind}.tflite", "int8", images, output_type=kind)
        outputs = file.predict(images)
        best = np.sort(outputs, axis=1)
        ties[kind] = float(np.mean(best[:, -1] == best[:, -2]))
        operations = [operation.name for operation in file.inspect().operations]
        activation = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}[ending]
        wanted = ["DEQUANTIZE", activation] if kind == "float32" else ["FULLY_CONNECTED", activation]
        assert operations[-2:] == wanted
        if kind == "float32":
            expected = model.predict(images, verbose=0)
            assert np.abs(outputs - expected).max() < 0.1
        levels[kind] = len(np.unique(outputs))
    assert levels["float32"] > 1.5 * levels["int8"]
    if ending == "softmax":
        assert ties["float32"] < ties["int8"] / 2 and ties["int8"] > 0.1


def test_compare_counts_what_it_says(model, trained, tmp_path):
    labels = model.predict(IMAGES, verbose=0).argmax(1)
    labels[:12] = (labels[:12] + 1) % 4  # 36 of 48 right
    file = export(trained, tmp_path / "q.tflite", "int8")
    one_hot = tf.data.Dataset.from_tensor_slices((IMAGES, np.eye(4)[labels])).batch(10)
    models = {"float": model, "int8": file, "path": tmp_path / "q.tflite"}
    result = compare(models, one_hot, seconds=0.05)
    row = result["float"]
    assert (row.accuracy, row.agreement, row.samples) == (0.75, 1.0, 48)
    assert row.bytes == 4 * model.count_params() and result["int8"].bytes == file.path.stat().st_size
    expected = (file.predict(IMAGES).argmax(1) == labels).mean()
    assert result["int8"].accuracy == result["path"].accuracy == pytest.approx(expected)
    assert result["int8"].accuracy == file.evaluate((IMAGES, labels))["accuracy"]
    assert 0 < row.latency.p10_ms <= row.latency.median_ms <= row.latency.p90_ms
    assert "75.0% (61.2-85.1)" in str(result)
    result.to_json(tmp_path / "c.json")
    assert [r["name"] for r in json.loads((tmp_path / "c.json").read_text())["rows"]] == list(models)
    assert file.benchmark(IMAGES, seconds=0.02).runs >= 10


def test_labels_that_fit_no_task_of_the_output_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(12), L.Reshape((2, 2, 3))])
    data = (RNG.normal(size=(8, 4)).astype("float32"), np.ones(8))
    file = export(model, tmp_path / "m.tflite")
    for measure in (lambda: compare({"model": model}, data), lambda: file.evaluate(data)):
        with pytest.raises(ValueError, match="one output per class"):
            measure()


@pytest.mark.parametrize(
    "units, labels, task",
    [
        (1, [0, 1] * 4, "binary"),
        (1, [[0.3], [1.7]] * 4, "regression"),
        (1, [21, 34] * 4, "regression"),
        (2, [0, 1] * 4, "classification"),
        (2, [[0, 1], [1, 0]] * 4, "classification"),
        (2, [[0.9, 0.1], [0.2, 0.8]] * 4, "classification"),
        (2, [[1, 1], [1, 0]] * 4, "multi_label"),
        (2, [[0.3, 2.0], [1.7, -4.0]] * 4, "regression"),
    ],
)
def test_the_task_of_labels_is_inferred(tmp_path, units, labels, task):
    model = keras.Sequential([keras.Input((4,)), L.Dense(units, "sigmoid" if task == "binary" else None)])
    inputs, labels = RNG.normal(size=(8, 4)).astype("float32"), np.asarray(labels)
    outputs = model.predict(inputs, verbose=0)
    assert inferred(outputs, labels) == task
    found = export(model, tmp_path / "m.tflite").evaluate((inputs, labels))
    assert found == pytest.approx({**found, "samples": 8})
    if task == "regression":
        assert found["mae"] == pytest.approx(np.abs(outputs - labels.reshape(outputs.shape)).mean(), rel=1e-4)
        assert np.isnan(compare({"a": model}, (inputs, labels), seconds=0.01)["a"].accuracy)
    elif task == "binary":
        assert found["accuracy"] == np.mean((outputs[:, 0] > 0.5) == labels)
    else:
        assert "accuracy" in found and "mae" not in found


def test_wilson_against_published_values():
    """Newcombe (1998), table I."""
    table = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), expected in table.items():
        assert wilson(successes, trials) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_file_takes_the_size_of_the_data_where_the_model_leaves_it_open(quantization, tmp_path):
    layers = [L.Rescaling(1 / 255), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(3)]
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    file = export(model, tmp_path / "m.tflite", quantization, IMAGES)
    assert file.input_shape == (16, 16, 3)
    np.testing.assert_allclose(file.predict(IMAGES), model.predict(IMAGES, verbose=0), atol=0.02)
    with pytest.raises(ValueError, match=r"size that the file shall take: the model's is \(None, None, 3\)"):
        export(model, tmp_path / "m.tflite")


def test_a_model_of_indices_is_checked_with_indices_that_exist(tmp_path):
    model = keras.Sequential([keras.Input((6,), dtype="int32"), L.Embedding(5, 4), L.Flatten(), L.Dense(3)])
    words = RNG.integers(0, 5, (8, 6)).astype("int32")
    file = export(model, tmp_path / "m.tflite")
    np.testing.assert_allclose(file.predict(words), model.predict(words, verbose=0), atol=1e-5)


def recurrent(layer, batch=None, steps=6):
    keras.utils.set_random_seed(4)  # stacked LSTMs with small states, which the integer kernel fails at
    inputs = keras.Input(batch_shape=(batch, steps, 4))
    return keras.Model(inputs, L.Dense(3)(layer(inputs)))


@pytest.mark.parametrize(
    "layer, quantizations",
    [
        pytest.param(L.LSTM(6), (None, "int8"), id="lstm"),
        pytest.param(L.LSTM(6), ("dynamic", "float16", "int16x8"), id="lstm, others", marks=pytest.mark.full),
        pytest.param(
            L.LSTM(6, return_sequences=True, go_backwards=True, use_bias=False),
            (None, "int8"),
            id="backwards",
        ),
        pytest.param(L.GRU(6), (None, "int8"), id="gru", marks=pytest.mark.full),
        pytest.param(L.SimpleRNN(6), ("int8",), id="rnn"),
        pytest.param(L.Bidirectional(L.LSTM(4)), (None, "int8"), id="bidirectional", marks=pytest.mark.full),
        pytest.param(
            keras.Sequential([L.LSTM(4, return_sequences=True), L.LSTM(4)]), ("int8",), id="small states"
        ),
    ],
)
def test_recurrent_models_are_exported_in_every_precision(tmp_path, layer, quantizations):
    series = RNG.normal(size=(32, 6, 4)).astype("float32")
    model = recurrent(layer)
    expected = model.predict(series, verbose=0)
    for quantization in quantizations:
        file = export(model, tmp_path / "m.tflite", quantization, series)
        limit = {None: 80.0, "float16": 50.0, "dynamic": 25.0}.get(quantization, 15.0)
        assert decibels(expected, file.predict(series)) > limit
        counts = file.inspect().operation_counts
        if isinstance(layer, L.LSTM) and quantization != "int16x8":
            assert counts["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1 and "WHILE" not in counts
        if quantization == "int8":
            assert file.inspect().float_operations == {}


@pytest.mark.parametrize("mode", ["operation", "one_hot", "multi_hot", "count"])
def test_encoded_categories_are_exact_in_int8(mode, tmp_path):
    """One-hot was wrong in int8 files, and several-hot and counts were refused."""
    inputs = keras.Input((1 if mode == "one_hot" else 5,), dtype="int32")
    operation = mode == "operation"
    outputs = keras.ops.one_hot(inputs, 7) if operation else L.CategoryEncoding(7, output_mode=mode)(inputs)
    model = keras.Model(inputs, outputs)
    data = RNG.integers(-1 if operation else 0, 7, (32, *inputs.shape[1:]))
    expected = model.predict(data, verbose=0)
    assert expected.shape[-1] == 7 and (not operation or not expected[data == -1].any())
    for quantization in (None, "int8"):
        file = export(model, tmp_path / "m.tflite", quantization, data)
        np.testing.assert_allclose(file.predict(data), expected, atol=0.02)


def test_masked_sequences_and_layers_of_every_form_still_agree(tmp_path):
    """What the LSTM operation cannot compute stays a loop: masks, states, other activations."""
    words = RNG.integers(0, 5, (16, 6)).astype("int32")
    entry = keras.Input((6,), dtype="int32")
    x = L.Embedding(5, 4, mask_zero=True)(entry)
    for layer in (L.LSTM(6), L.LSTM(6, recurrent_activation="hard_sigmoid")):
        model = keras.Model(entry, L.Dense(2)(layer(x)))
        file = export(model, tmp_path / "m.tflite", None, words)
        np.testing.assert_allclose(file.predict(words), model.predict(words, verbose=0), atol=1e-5)


def test_what_recurrent_layers_cannot_do_is_named_with_the_way_out(tmp_path):
    series = RNG.normal(size=(8, 300, 4)).astype("float32")
    with pytest.raises(ValueError, match="Use `batch_size=1`"):
        export(recurrent(L.LSTM(6)), tmp_path / "m.tflite", batch_size=None)
    long = recurrent(L.GRU(6), steps=300)
    with pytest.raises(ValueError, match=r"\['gru.*too long to unroll: 300 steps.*quantization='dynamic'"):
        export(long, tmp_path / "m.tflite", "int8", series)
    assert export(long, tmp_path / "m.tflite", "dynamic", series).predict(series[:2]).shape == (2, 3)


SMALL = {
    "flatten": (
        [L.Conv2D(4, 3), L.Flatten(), L.Dense(2)],
        {"CONV_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1},
    ),
    "reshape": ([L.Reshape((9, 4)), L.Dense(2)], {"RESHAPE": 1, "FULLY_CONNECTED": 1}),
    "transposed": ([L.Conv2DTranspose(2, 3, strides=2)], {"TRANSPOSE_CONV": 1}),
    "upsampling": ([L.UpSampling2D(), L.Conv2D(1, 3)], {"RESIZE_NEAREST_NEIGHBOR": 1, "CONV_2D": 1}),
}


@pytest.mark.parametrize("name", SMALL)
def test_files_have_no_shape_arithmetic(tmp_path, name, caplog):
    layers, operations = SMALL[name]
    model = keras.Sequential([keras.Input((3, 3, 4) if name == "reshape" else (8, 8, 3)), *layers])
    inputs = RNG.normal(size=(16, *model.input_shape[1:])).astype("float32")
    file = export(model, tmp_path / "m.tflite", "int8", inputs)
    counts = file.inspect().operation_counts
    assert {k: n for k, n in counts.items() if k not in ("QUANTIZE", "DEQUANTIZE")} == operations
    assert "deprecated" not in caplog.text
    float_file = export(model, tmp_path / "f.tflite")
    np.testing.assert_allclose(float_file.predict(inputs), model.predict(inputs, verbose=0), atol=1e-4)


def test_files_carry_names_and_take_batches_of_the_size_that_was_asked_for(model, tmp_path):
    expected = model.predict(IMAGES, verbose=0)
    for batch, shape in ((1, 1), (5, 5), (None, -1)):
        file = export(model, tmp_path / "m.tflite", batch_size=batch)
        interpreter = tf.lite.Interpreter(model_content=file.content)
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": [model.layers[-1].name]}
        }
        assert interpreter.get_input_details()[0]["shape_signature"][0] == shape
        np.testing.assert_allclose(file.predict(IMAGES), expected, atol=1e-5)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        export(model, tmp_path / "m.tflite", batch_size=0)


def test_a_model_with_a_fixed_batch_is_exported_for_single_samples(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(8, 4)), L.Dense(3)])
    inputs = RNG.normal(size=(10, 4)).astype("float32")
    for quantization in (None, "int8"):
        file = export(model, tmp_path / "m.tflite", quantization, inputs)
        assert file.predict(inputs).shape == (10, 3)


def two_inputs(structure):
    image, meta = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="meta")
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(image))
    x = L.Dense(6, activation="relu")(L.Concatenate()([x, meta]))
    kind, box = L.Dense(3, activation="softmax", name="kind")(x), L.Dense(4, name="box")(x)
    if structure is dict:
        return keras.Model({"image": image, "meta": meta}, {"kind": kind, "box": box})
    return keras.Model([image, meta], [kind, box])


@pytest.mark.parametrize("structure", [dict, list])
def test_several_inputs_and_outputs_everywhere(tmp_path, structure):
    model = two_inputs(structure)
    image, meta = RNG.normal(size=(24, 8, 8, 3)).astype("float32"), RNG.normal(size=(24, 5)).astype("float32")
    inputs = {"image": image, "meta": meta} if structure is dict else [image, meta]
    labels = {"kind": RNG.integers(0, 3, 24), "box": RNG.normal(size=(24, 4))}
    labels = labels if structure is dict else list(labels.values())
    expected = model.predict(inputs, verbose=0)
    batched = tf.data.Dataset.from_tensor_slices(
        (inputs if structure is dict else tuple(inputs), labels if structure is dict else tuple(labels))
    ).batch(8)
    for quantization, data in ((None, None), ("int8", batched), ("int8", [image, meta]), ("dynamic", None)):
        file = export(model, tmp_path / "m.tflite", quantization, data)
        received = file.predict(inputs)
        assert type(received) is structure
        for want, got in zip(keras.tree.flatten(expected), keras.tree.flatten(received)):
            assert want.shape == got.shape and decibels(want, got) > 20
    assert [port.name for port in file.inputs] == ["image", "meta"]
    scores = file.evaluate((inputs, labels))
    assert {"kind_accuracy", "box_mae", "box_rmse", "samples"} == set(scores)
    rows = compare({"float": model, "file": file}, batched, seconds=0.01)
    assert rows["float"].agreement == 1.0 and rows["file"].scores["box_mae"] == pytest.approx(
        scores["box_mae"], rel=1e-4
    )
    assert file.benchmark(inputs, seconds=0.01).runs >= 10
    quantized = quantize_aware(model)
    quantized(inputs, training=True)
    assert export(quantized, tmp_path / "q.tflite", "int8").inspect().float_operations == {}


def test_files_of_others_with_several_inputs_run(tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(two_inputs(dict)).convert())
    image, meta = np.ones((2, 8, 8, 3), "float32"), np.ones((2, 5), "float32")
    file = TFLiteModel(path)
    named = file.predict({"meta": meta, "image": image})
    for want, got in zip(named.values(), file.predict([image, meta]).values()):
        np.testing.assert_array_equal(want, got)
    assert set(named) == {"kind", "box"} and file.inspect().operations


def test_representative_data_in_every_form(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), L.Dense(3)])
    rows = RNG.normal(size=(20, 4)).astype("float32")

    def guide():
        for row in rows:
            yield [row[None]]

    class Batches(keras.utils.PyDataset):
        num_batches = None  # endless

        def __getitem__(self, index):
            return rows[index % 2 * 10 :][:10], rows[:10, 0]

    dataset = tf.data.Dataset.from_tensor_slices
    forms = {
        "endless PyDataset": Batches(),
        "array": rows,
        "list of one": [rows],
        "float64": rows.astype("float64"),
        "generator function": guide,
        "generator": guide(),
        "batches in a list": [rows[:10], rows[10:]],
        "single samples": dataset(rows),
        "one-tuples": dataset((rows,)).batch(4),
        "with labels": dataset((rows, rows[:, 0])).batch(4),
        "endless": dataset((rows, rows[:, 0])).repeat().batch(4),
        "dictionary": dataset({"x": rows}).batch(4),
        "another name": dataset({"image": rows}).batch(4),
        "lists": dataset(rows).batch(1).map(lambda row: [row]),
        "pair": (rows, rows[:, 0]),
    }
    files = {n: export(model, tmp_path / "m.tflite", "int8", data).content for n, data in forms.items()}
    del files["endless"], files["endless PyDataset"]  # these gave 100 samples
    assert len(set(files.values())) == 1
    with pytest.raises(TypeError, match="`data` must be a batched"):
        export(model, tmp_path / "m.tflite", "int8", 3)


def test_two_quantities_in_one_output_are_told_apart(tmp_path, caplog):
    """Boxes beside scores: one ratio over both hides the scores, which one scale cannot hold."""
    entry = keras.Input((6,))
    box, score = L.Rescaling(640.0)(L.Dense(4, "sigmoid")(entry)), L.Dense(3, "sigmoid")(entry)
    inputs = RNG.normal(size=(64, 6)).astype("float32")
    joined = keras.Model(entry, L.Concatenate(name="both")([box, score]))
    export(joined, tmp_path / "m.tflite", "int8", inputs)
    assert (
        "'both'" in caplog.text and "channel 4, 5, 6" in caplog.text and "3 of its 7 channels" in caplog.text
    )
    assert "give each its own output" in caplog.text
    caplog.clear()
    apart = keras.Model(entry, {"box": box, "score": score})
    export(apart, tmp_path / "m.tflite", "int8", inputs)
    assert "channel" not in caplog.text


def test_data_on_another_scale_is_a_warning_with_numbers(model, tmp_path, caplog):
    export(model, tmp_path / "m.tflite", "int8", IMAGES / 255.0)
    assert "another scale" in caplog.text and "[0, 1]" in caplog.text and "'rescaling'" in caplog.text
    caplog.clear()
    export(model, tmp_path / "m.tflite", "int8", IMAGES)
    assert "another scale" not in caplog.text


def test_int8_in_and_out(model, tmp_path):
    file = export(model, tmp_path / "m.tflite", "int8", IMAGES, input_type="int8", output_type="int8")
    contents = file.inspect()
    assert (contents.input_type, contents.output_type) == ("int8", "int8")
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(contents.operation_counts)
    np.testing.assert_allclose(file.predict(IMAGES), model.predict(IMAGES, verbose=0), atol=0.1)
    with pytest.raises(ValueError, match="`output_type` must be 'float32' with quantization=None"):
        export(model, tmp_path / "m.tflite", output_type="int8")


def test_a_subclassed_model_is_exported(tmp_path):
    @keras.saving.register_keras_serializable(package="tests", name="ExportNet")
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = L.Dense(8, activation="relu"), L.Dense(3)

        def call(self, inputs):
            return self.out(self.hidden(inputs))

    net, inputs = Net(), RNG.normal(size=(16, 4)).astype("float32")
    with pytest.raises(ValueError, match="must be built"):
        export(net, tmp_path / "m.tflite")
    net(inputs)
    for data in (None, inputs):
        file = export(net, tmp_path / "m.tflite", None, data)
        np.testing.assert_allclose(file.predict(inputs), net(inputs), atol=1e-5)
    assert compare({"a": net, "b": file}, (inputs, np.zeros(16, int)), seconds=0.01)["b"].agreement == 1.0


def test_models_in_mixed_precision_are_exported_and_stay_as_they_are(tmp_path):
    policy = keras.DTypePolicy("mixed_float16")
    layers = [L.Dense(8, dtype=policy), L.Lambda(lambda x: x * 2, dtype=policy), L.Dense(3, dtype=policy)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    inputs = RNG.normal(size=(8, 4)).astype("float32")
    file = export(model, tmp_path / "m.tflite", None, inputs)
    np.testing.assert_allclose(file.predict(inputs), model.predict(inputs, verbose=0), atol=0.02)
    assert [layer.compute_dtype for layer in model.layers] == ["float16"] * 3


def test_weights_that_no_file_can_hold_are_refused_by_name(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    inputs = RNG.normal(size=(8, 4)).astype("float32")
    for largest, quantization in ((1e5, "float16"), (1e9, "int8")):
        model.layers[0].kernel.assign(np.full((4, 3), largest))
        with pytest.raises(ValueError, match="Weights must be at most .*head"):
            export(model, tmp_path / "m.tflite", quantization, inputs)


def test_activations_that_are_constant_inside_are_no_dead_ones(tmp_path, caplog):
    """SELU's branches hold a constant zero, a fresh PReLU has slopes of zero."""
    inputs = RNG.normal(size=(32, 6)).astype("float32")
    for layers in ([L.Dense(8, activation="selu"), L.Dense(2)], [L.Dense(8), L.PReLU(), L.Dense(2)]):
        model = keras.Sequential([keras.Input((6,)), *layers])
        file = export(model, tmp_path / "m.tflite", "int8", inputs)
        assert decibels(model.predict(inputs, verbose=0), file.predict(inputs)) > 20
    assert "lways zero" not in caplog.text


def test_a_file_that_ends_the_interpreter_ends_a_child_process_only(tmp_path):
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, L.Conv2D(2, 1, padding="same")(inputs) + L.Conv2D(2, 1)(inputs))
    data = RNG.normal(size=(8, 4, 4, 2)).astype("float32")
    file = export(model, tmp_path / "m.tflite", "int8", data)
    edited = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.content, 0))
    graph = edited.subgraphs[0]
    (add,) = (op for op in graph.operators if isinstance(op.builtinOptions, schema.AddOptionsT))
    graph.tensors[add.inputs[0]].quantization.scale = np.array([1e9], np.float32)
    (tmp_path / "bad.tflite").write_bytes(with_metadata(edited, {}))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"interpreter crashes at 'bad.tflite' \(SIG"):
            TFLiteModel(tmp_path / "bad.tflite")
    np.testing.assert_array_equal(TFLiteModel(tmp_path / "m.tflite").predict(data), file.predict(data))


@pytest.mark.parametrize("layer", [L.LayerNormalization(), L.GroupNormalization(2)], ids=["layer", "group"])
def test_normalizations_have_integer_kernels_alone(tmp_path, layer):
    inputs = keras.Input((3, 2, 8))
    model = keras.Model(inputs, L.Dense(3)(layer(L.Dense(8)(inputs))))
    for weight in model.weights:
        weight.assign(weight + 0.3 * RNG.normal(size=weight.shape))
    data = RNG.normal(size=(32, 3, 2, 8)).astype("float32")
    expected = model.predict(data, verbose=0)
    for quantization, limit in (("int8", 25), ("int16x8", 35)):
        file = export(model, tmp_path / "m.tflite", quantization, data)
        assert file.inspect().float_operations == {}
        assert decibels(expected, file.predict(data)) > limit


def test_what_16_bit_activations_cannot_do_is_said(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32", name="words"), L.Embedding(5, 3), L.Flatten(), L.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"no integer inputs, and \['words'\] are such.*'int8'"):
        export(model, tmp_path / "m.tflite", "int16x8", RNG.integers(0, 5, (8, 4)).astype("int32"))


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_exponential_units_have_integer_kernels_and_a_scale_that_fits(tmp_path, quantization):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = L.Dense(16, activation="selu")(inputs)
    x = L.ELU(0.7)(L.Dense(16, activation="elu")(x))
    model = keras.Model(inputs, L.Dense(3)(x))
    check_exponential(model, quantization, tmp_path)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_class_with_the_largest_output_can_be_the_output(tmp_path, quantization):
    inputs = keras.Input((12,))
    scores = L.Dense(4)(inputs)
    model = keras.Model(inputs, {"class": keras.ops.argmax(scores, axis=-1), "scores": scores})
    data = 3 * RNG.normal(size=(64, 12)).astype("float32")
    file = export(model, tmp_path / "m.tflite", quantization, data)
    assert file.inspect().operation_counts["ARG_MAX"] == 1
    assert np.mean(file.predict(data)["class"] == model.predict(data, verbose=0)["class"]) > 0.9
    quantized = quantize_aware(model, data=data)
    file = export(quantized, tmp_path / "q.tflite", "int8", data)
    assert np.mean(file.predict(data)["class"] == model.predict(data, verbose=0)["class"]) > 0.9


@pytest.mark.parametrize("function", ["celu", "softplus", "mish"])
def test_other_functions_with_an_exponential_keep_what_matters(tmp_path, function):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = L.Dense(16, activation=function)(inputs)
    if hasattr(keras.ops, function):
        x = getattr(keras.ops, function)(L.Dense(16)(x))  # an operation, not a layer
    check_exponential(keras.Model(inputs, L.Dense(3)(x)), "int8", tmp_path)


def check_exponential(model, quantization, tmp_path):
    for weight in model.weights:
        weight.assign(weight * 1.5 + 0.2)  # inputs of the exponential up to 6
    data = 1.5 * np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
    expected = model.predict(data, verbose=0)
    file = export(model, tmp_path / "m.tflite", quantization, data)
    assert file.inspect().float_operations == {}
    assert decibels(expected, file.predict(data)) > 25
    np.testing.assert_array_equal(model.predict(data, verbose=0), expected)


def test_models_of_video_are_exported_without_pooling_over_three_dimensions(tmp_path):
    inputs = keras.Input((5, 7, 6, 2))
    x = L.MaxPooling3D((2, 3, 2), padding="same")(L.Conv3D(4, 3, padding="same")(inputs))
    model = keras.Model(inputs, L.AveragePooling3D(2, strides=1, padding="same")(x))
    data = RNG.normal(size=(4, 5, 7, 6, 2)).astype("float32")
    file = export(model, tmp_path / "m.tflite")
    np.testing.assert_allclose(file.predict(data), model.predict(data, verbose=0), atol=1e-5)
    file = export(model, tmp_path / "m.tflite", "int8", data)
    assert "CONV_3D" in file.inspect().float_operations


def test_targets_have_the_operations_of_the_file_or_those_are_named(tmp_path, caplog):
    inputs = keras.Input((8, 8, 3))
    usual = L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(inputs)))
    data = RNG.normal(size=(8, 8, 8, 3)).astype("float32")
    names = ["a cat", 'dog? "é"\\']
    path = tmp_path / "2 nets.tflite"
    file = export(keras.Model(inputs, usual), path, "int8", data, class_names=names, target="tflm")
    source = path.with_suffix(".cc").read_text()
    array = bytes(int(byte, 16) for byte in re.findall(r"0x(\w\w)", source))
    assert array == file.content and f"_2_nets_length = {len(array)};" in source
    assert r'_2_nets_labels[] = {"a cat", "dog\077 \042\303\251\042\134"};' in source
    assert "extern const char* const _2_nets_labels[2];" in path.with_suffix(".h").read_text()
    sorted_ = keras.Model(inputs, keras.ops.cumsum(keras.ops.sort(usual), axis=-1))
    with pytest.raises(ValueError, match=r"TensorFlow Lite Micro does not compute: \{'TOPK_V2': 1"):
        export(sorted_, tmp_path / "m.tflite", target="tflm")
    assert not (tmp_path / "m.tflite").exists()
    export(
        keras.Model(inputs, L.Activation("gelu")(usual)),
        tmp_path / "m.tflite",
        "int8",
        data,
        target="edgetpu",
    )
    assert "the Edge TPU does not compute: {'GELU': 1" in caplog.text
    shuffled = keras.ops.depth_to_space(L.Conv2D(8, 1, activation="gelu")(inputs), 2)
    gpu = export(keras.Model(inputs, shuffled), tmp_path / "m.tflite", "float16", target="gpu")
    assert {"GELU", "DEPTH_TO_SPACE"} <= gpu.inspect().operation_counts.keys()
    assert "GPU delegate" not in caplog.text
    with pytest.raises(ValueError, match="'int8' with target='edgetpu'"):
        export(sorted_, tmp_path / "m.tflite", target="edgetpu")


def test_classifiers_of_images_carry_the_metadata_of_mediapipe(model, tmp_path):
    for quantization, kind in (("int8", "uint8"), ("float16", "float32")):
        file = export(model, tmp_path / "m.tflite", quantization, IMAGES, class_names=NAMES)
        entry = metadata(file.content)["TFLITE_METADATA"]
        assert entry[4:8] == b"M001" and b"labels.txt" in entry and b"pixels" in entry
        assert (np.float32(1.0).tobytes() in entry) == (kind == "float32")  # the deviation to divide by
        assert file.class_names == NAMES
    plain = export(model, tmp_path / "m.tflite", "int8", IMAGES, input_type="int8", class_names=NAMES)
    assert "TFLITE_METADATA" not in metadata(plain.content)


def test_a_file_that_does_not_come_to_an_end_is_refused(tmp_path, monkeypatch):
    endless = tmp_path / "endless.py"
    endless.write_text("import time\nwhile True: time.sleep(1)")
    monkeypatch.setattr(_probe, "_SCRIPT", endless)
    monkeypatch.setattr(_probe, "SECONDS", 0.5)
    with pytest.raises(
        ValueError, match=r"does not come to an end within 0.5 seconds with 'm.tflite' \(SIGKILL"
    ):
        _probe._Child().check(tmp_path / "m.tflite", b"content")


def test_small_quantities_are_judged_by_their_own_size(tmp_path):
    """Noise far below 1 counted as none: half precision kept two digits of outputs of 1e-7, silently."""
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 1e-7))]
    )
    inputs = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    with pytest.raises(ValueError, match="14.* dB.*scale smaller weights up, or export with"):
        export(model, tmp_path / "half.tflite", "float16", representative_data=inputs)
    for quantization in (None, "dynamic"):
        file = export(model, tmp_path / "kept.tflite", quantization, representative_data=inputs)
        error = np.abs(file.predict(inputs) - model.predict(inputs, verbose=0)).max()
        assert error < 0.02 * np.abs(model.predict(inputs, verbose=0)).max()


FUNCTIONS = ("tan", "arctan", "arcsin", "arccos", "sinh", "cosh", "arcsinh", "arctanh", "erf", "arccosh")


def test_functions_that_tflite_lacks_are_made_of_others(tmp_path):
    inputs = keras.Input((8,))
    outputs = {name: getattr(keras.ops, name)(inputs) for name in FUNCTIONS[:-1]}
    outputs["arccosh"] = keras.ops.arccosh(1.1 + keras.ops.abs(inputs))
    model = keras.Model(inputs, outputs)
    data = np.random.default_rng(0).uniform(-0.95, 0.95, (32, 8)).astype("float32")
    found = export(model, tmp_path / "m.tflite", None, data).predict(data)
    for name, expected in model.predict(data, verbose=0).items():
        np.testing.assert_allclose(found[name], expected, atol=2e-6, err_msg=name)


def test_a_tiny_network_is_told_that_its_integer_file_is_larger(tmp_path, caplog):
    data = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    tiny = keras.Sequential([keras.Input((4,)), *(L.Dense(4, activation="tanh") for _ in range(4))])
    sizes = [len(export(tiny, tmp_path / "t.tflite", kind, data).content) for kind in (None, "int8")]
    assert sizes[1] > sizes[0]
    (told,) = re.findall(r"t.tflite has (\d+) bytes, about (\d+) more than", caplog.text)
    assert int(told[0]) == sizes[1] and abs(int(told[1]) - (sizes[1] - sizes[0])) <= 192
    caplog.clear()
    larger = keras.Sequential([keras.Input((4,)), L.Dense(64, activation="relu"), L.Dense(64)])
    export(larger, tmp_path / "l.tflite", "int8", data)
    assert "more than" not in caplog.text
