"""The networks that `tfopt.models.backbone` and `--model` know, and what each costs; imports no Keras."""

import difflib
import os
import pathlib
import re
from typing import NamedTuple

from tfopt import _checks


class Architecture(NamedTuple):
    """A network without its classifier.

    Attributes:
        name: As `--model` and `backbone` take it.
        constructor: Its name in `keras.applications`; "" if the network is built here.
        preprocessing: What its weights expect of the pixels, in the words of `keras.applications`: "tf" is
            [-1, 1], "torch" ImageNet's mean and deviation, "caffe" BGR without the mean, "inside" nothing,
            as the network has layers for it.
        image_size: Height and width in pixels that its weights were trained on.
        smallest: The smallest height or width that it can take.
        parameters: Weights without the classifier.
        multiply_adds: Of its convolutions, for one image of `image_size`.
    """

    name: str
    constructor: str
    preprocessing: str
    image_size: int
    smallest: int
    parameters: int
    multiply_adds: int


# The numbers are those that `benchmarks/models.py` measures; a test compares them with the networks.
_ROWS = (
    Architecture("mobilenet", "MobileNet", "tf", 224, 32, 3_228_864, 567_716_352),
    Architecture("mobilenet_v2", "MobileNetV2", "tf", 224, 32, 2_257_984, 299_494_272),
    Architecture("mobilenet_v3_small", "MobileNetV3Small", "inside", 224, 32, 939_120, 54_896_576),
    Architecture("mobilenet_v3_large", "MobileNetV3Large", "inside", 224, 32, 2_996_352, 214_080_960),
    Architecture("efficientnet_lite0", "", "inside", 224, 32, 3_413_024, 383_907_552),
    Architecture("efficientnet_lite1", "", "inside", 240, 32, 4_189_344, 598_905_232),
    Architecture("efficientnet_lite2", "", "inside", 260, 32, 4_869_168, 858_456_272),
    Architecture("efficientnet_lite3", "", "inside", 280, 32, 6_992_768, 1_382_041_872),
    Architecture("efficientnet_lite4", "", "inside", 300, 32, 11_837_936, 2_551_754_336),
    Architecture("squeezenet", "", "tf", 224, 32, 722_496, 287_006_720),
    Architecture("convnext_base", "ConvNeXtBase", "inside", 224, 32, 87_566_464, 15_353_705_472),
    Architecture("convnext_large", "ConvNeXtLarge", "inside", 224, 32, 196_230_336, 34_359_897_600),
    Architecture("convnext_small", "ConvNeXtSmall", "inside", 224, 32, 49_454_688, 8_682_944_256),
    Architecture("convnext_tiny", "ConvNeXtTiny", "inside", 224, 32, 27_820_128, 4_454_763_264),
    Architecture("convnext_xlarge", "ConvNeXtXLarge", "inside", 224, 32, 348_147_968, 60_918_982_656),
    Architecture("densenet121", "DenseNet121", "torch", 224, 32, 7_037_504, 2_833_137_664),
    Architecture("densenet169", "DenseNet169", "torch", 224, 32, 12_642_880, 3_358_179_328),
    Architecture("densenet201", "DenseNet201", "torch", 224, 32, 18_321_984, 4_289_445_888),
    Architecture("efficientnet_b0", "EfficientNetB0", "inside", 224, 32, 4_049_571, 384_534_752),
    Architecture("efficientnet_b1", "EfficientNetB1", "inside", 240, 32, 6_575_239, 685_522_832),
    Architecture("efficientnet_b2", "EfficientNetB2", "inside", 260, 32, 7_768_569, 992_153_872),
    Architecture("efficientnet_b3", "EfficientNetB3", "inside", 300, 32, 10_783_535, 1_825_605_392),
    Architecture("efficientnet_b4", "EfficientNetB4", "inside", 380, 32, 17_673_823, 4_391_979_024),
    Architecture("efficientnet_b5", "EfficientNetB5", "inside", 456, 32, 28_513_527, 10_264_336_752),
    Architecture("efficientnet_b6", "EfficientNetB6", "inside", 528, 32, 40_960_143, 19_065_289_536),
    Architecture("efficientnet_b7", "EfficientNetB7", "inside", 600, 32, 64_097_687, 37_743_324_192),
    Architecture("efficientnet_v2_b0", "EfficientNetV2B0", "inside", 224, 32, 5_919_312, 716_806_176),
    Architecture("efficientnet_v2_b1", "EfficientNetV2B1", "inside", 240, 32, 6_931_124, 1_195_539_360),
    Architecture("efficientnet_v2_b2", "EfficientNetV2B2", "inside", 260, 32, 8_769_374, 1_696_134_832),
    Architecture("efficientnet_v2_b3", "EfficientNetV2B3", "inside", 300, 32, 12_930_622, 3_009_922_816),
    Architecture("efficientnet_v2_s", "EfficientNetV2S", "inside", 384, 32, 20_331_360, 8_364_337_152),
    Architecture("efficientnet_v2_m", "EfficientNetV2M", "inside", 480, 32, 53_150_388, 24_581_180_384),
    Architecture("efficientnet_v2_l", "EfficientNetV2L", "inside", 480, 32, 117_746_848, 56_078_419_008),
    Architecture("inception_resnet_v2", "InceptionResNetV2", "tf", 299, 75, 54_336_736, 13_154_258_016),
    Architecture("inception_v3", "InceptionV3", "tf", 299, 75, 21_802_784, 5_711_168_096),
    Architecture("nasnet_large", "NASNetLarge", "tf", 331, 32, 84_916_818, 23_779_382_658),
    Architecture("nasnet_mobile", "NASNetMobile", "tf", 224, 32, 4_269_716, 562_582_816),
    Architecture("resnet50_v2", "ResNet50V2", "tf", 224, 32, 23_564_800, 3_480_207_360),
    Architecture("resnet50", "ResNet50", "caffe", 224, 32, 23_587_712, 3_855_925_248),
    Architecture("resnet101_v2", "ResNet101V2", "tf", 224, 32, 42_626_560, 7_192_428_544),
    Architecture("resnet101", "ResNet101", "caffe", 224, 32, 42_658_176, 7_568_146_432),
    Architecture("resnet152_v2", "ResNet152V2", "tf", 224, 32, 58_331_648, 10_904_649_728),
    Architecture("resnet152", "ResNet152", "caffe", 224, 32, 58_370_944, 11_280_367_616),
    Architecture("vgg16", "VGG16", "caffe", 224, 32, 14_714_688, 15_346_630_656),
    Architecture("vgg19", "VGG19", "caffe", 224, 32, 20_024_384, 19_508_428_800),
    Architecture("xception", "Xception", "tf", 299, 71, 20_861_480, 8_355_355_496),
)

ARCHITECTURES = {row.name: row for row in _ROWS}
MOBILENETS = ("mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")  # they take `alpha`
_SPELLINGS = {name.replace("_", ""): row for name, row in ARCHITECTURES.items()}


def find(name: str, argument: str = "name") -> Architecture:
    """The network of a name; "EfficientNetB0" and "efficientnet-b0" are also understood.

    Args:
        name: The name.
        argument: What an error calls it.

    Raises:
        TypeError: If `name` is no string.
        ValueError: If there is no such network; the message names the nearest ones.
    """
    if not isinstance(name, str):
        raise TypeError(_checks.message(argument, "the name of a network", name))
    spelling = re.sub(r"[^a-z0-9]", "", name.lower())
    if spelling in _SPELLINGS:
        return _SPELLINGS[spelling]
    near = [_SPELLINGS[found].name for found in difflib.get_close_matches(spelling, _SPELLINGS, 4, 0.5)]
    advice = f"Did you mean {', '.join(near)}? " if near else ""
    advice += "`tfopt models` lists all of them."
    raise ValueError(_checks.message(argument, "the name of a network", name, advice))


def downloaded(name: str) -> bool:
    """Whether Keras has the ImageNet weights of a network on this machine, so that no download is needed."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    constructor = ARCHITECTURES[name].constructor.lower()
    # Keras's files begin with the name in many spellings: NASNet-mobile-no-top.h5, weights_mobilenet_v3_...
    pattern = re.compile(rf"(weights)?{constructor}(?!v\d).*notop")
    files = pathlib.Path(home, "models").glob("*.h5")
    return bool(constructor) and any(
        pattern.match(re.sub(r"[^a-z0-9]", "", file.stem.lower())) for file in files
    )
