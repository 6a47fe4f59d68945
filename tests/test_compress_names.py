"""The outputs of a model keep their names through compression, its file and Keras's own saving."""

import keras
import numpy as np
import pytest

from tfopt import compress
from tfopt.models.precision import in_precision

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = {"kind": np.arange(64) % 3, "price": X[:, :1] ** 2}
LOSSES = {"kind": "sparse_categorical_crossentropy", "price": "mse"}


@pytest.fixture
def model():
    inputs = keras.Input((8,), name="features")
    backbone = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.BatchNormalization()])
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(backbone(inputs))
    inner = keras.Input((8,))
    price = keras.Model(inner, keras.layers.Dense(1, name="last")(inner), name="price")(inputs)
    model = keras.Model(inputs, [kind, price])
    assert model.output_names == ["kind", "price"]
    return model


WAYS = {
    "quantize_aware": lambda model: compress.quantize_aware(model, data=X),
    "equalize": lambda model: compress.equalize(model, data=X),
    "slim": lambda model: compress.slim(model, keep=0.5, data=X),
    "binarize": compress.binarize,
}


@pytest.mark.parametrize("way", WAYS)
def test_outputs_keep_their_names(model, way, tmp_path):
    found = WAYS[way](model)
    assert found.output_names == ["kind", "price"]
    found.compile("sgd", loss=LOSSES, metrics={"kind": ["accuracy"]})
    found.fit(X, Y, verbose=0)
    found.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.output_names == ["kind", "price"]
    loaded.fit(X, Y, verbose=0)


def test_a_quantized_file_has_the_names_of_the_model(model, tmp_path):
    quantized = compress.quantize_aware(model, data=X)
    file = compress.export(quantized, tmp_path / "model.tflite", quantization="int8", representative_data=X)
    assert [port.name for port in file.outputs] == ["kind", "price"]
    assert [port.name for port in file.inputs] == ["features"]


def test_a_quantized_model_in_another_precision_keeps_names_and_float32_results(model):
    quantized = compress.quantize_aware(model, data=X)
    copy = in_precision(quantized, "mixed_bfloat16")
    assert copy.output_names == ["kind", "price"]
    assert {tensor.dtype for tensor in copy.outputs} == {"float32"}
    assert copy.get_layer("kind").compute_dtype == "bfloat16"


def test_an_array_in_place_of_a_choice_is_named(model):
    with pytest.raises(ValueError, match=r"`preserve` must be one of None.*Received: .*ndarray of shape"):
        compress.quantize_aware(model, X)
