"""export, TFLiteModel and compare: files that were checked, errors that are named, nothing half-written."""

import json
import zipfile
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.compress import TFLiteModel, _convert, compare, export, quantize_aware
from tfopt.compress.comparison import wilson
from tfopt.compress.inspection import _is_two_of_four

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
        ({"quantization": "int8", "representative_data": IMAGES[:, :8]}, r"shape \(16, 16, 3\)"),
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
    features = tf.data.Dataset.from_tensor_slices({"image": IMAGES}).batch(8)
    with pytest.raises(TypeError, match=r"each one tensor\. Received: inputs of type dict"):
        export(model, tmp_path / "m.tflite", "int8", features)
    with pytest.raises(ValueError, match="must have labels"):
        compare({"a": model}, IMAGES)
    with pytest.raises(TypeError, match="instance of Model"):
        export("model.keras", tmp_path / "m.tflite")


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
    assert "75.0% (61.2% to 85.1%)" in str(result)
    result.to_json(tmp_path / "c.json")
    assert [r["name"] for r in json.loads((tmp_path / "c.json").read_text())["rows"]] == list(models)
    assert file.benchmark(IMAGES, seconds=0.02).runs >= 10


@pytest.mark.parametrize("last", [L.Flatten(), L.Reshape((2, 2, 3))], ids=["one score", "a map"])
def test_accuracy_of_models_without_an_output_per_class_is_refused(tmp_path, last):
    layers = [L.Dense(1, "sigmoid") if isinstance(last, L.Flatten) else L.Dense(12), last]
    model = keras.Sequential([keras.Input((4,)), *layers])
    data = (RNG.normal(size=(8, 4)).astype("float32"), np.ones(8))
    file = export(model, tmp_path / "m.tflite")
    for measure in (lambda: compare({"model": model}, data), lambda: file.evaluate(data)):
        with pytest.raises(ValueError, match="one output per class"):
            measure()


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


def recurrent(batch, **options):
    inputs = keras.Input(batch_shape=(batch, 5, 4))
    return keras.Model(inputs, L.Dense(3)(L.LSTM(6, **options)(inputs)))


def test_loops_over_time_are_exported_or_named_with_the_ways_out(tmp_path, caplog):
    path, series = tmp_path / "m.tflite", RNG.normal(size=(8, 5, 4)).astype("float32")
    with pytest.raises(ValueError, match="unroll=True.*batch_shape"):
        export(recurrent(None), path)
    fixed = recurrent(1)
    expected = np.concatenate([fixed(one[None]) for one in series])
    with pytest.raises(
        ValueError, match=r"quantization='dynamic'.*loops \[.*lstm"
    ):  # the process ended with a signal
        export(fixed, path, "int8", series)
    assert not list(tmp_path.iterdir())
    for quantization, tolerance in ((None, 1e-5), ("dynamic", 0.05)):
        file = export(fixed, path, quantization, series)
        np.testing.assert_allclose(file.predict(series), expected, atol=tolerance)
        assert file.inspect().operations
    unrolled = recurrent(None, unroll=True)
    with caplog.at_level("WARNING"):
        file = export(unrolled, path, "int8", series)
    np.testing.assert_allclose(file.predict(series), unrolled(series), atol=0.02)
    assert "computes in float" in caplog.text
