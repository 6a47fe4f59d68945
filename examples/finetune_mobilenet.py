"""Fine-tuning a MobileNet in parts: data, head, all layers, quantization, a verified file.

    python examples/finetune_mobilenet.py photos/ --weights imagenet --image-size 224

`tfopt finetune` does the same in one command, and keeps the best epoch.
"""

import argparse

import keras

import tfopt


def parse() -> argparse.Namespace:
    """Command line: the data is all that is needed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of images, 'digits', or a TFDS name")
    parser.add_argument("--weights", help="'imagenet' or a file; random without")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--alpha", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", default="model.tflite")
    return parser.parse_args()


def compile_model(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """One loss and metric for every stage."""
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])


def main() -> None:
    """The whole story."""
    options = parse()
    strategy = tfopt.distribute.make_strategy()
    print(tfopt.distribute.describe(strategy))

    # Decoded and resized once; batches in an order that depends on (seed, epoch) only.
    data = tfopt.data.load(options.data).resized(options.image_size)
    augment = tfopt.data.Augment(rotate=10, shift=0.1, zoom=0.1)
    train = tfopt.data.pipeline(data.train, options.batch_size, augment=augment)
    validation = tfopt.data.pipeline(data.validation, options.batch_size, shuffle=False)
    test = tfopt.data.pipeline(data.test, options.batch_size, shuffle=False)
    updates = options.epochs * len(train)

    with strategy.scope():
        model = tfopt.models.mobilenet(
            "mobilenet",
            len(data.class_names),
            image_size=options.image_size,
            alpha=options.alpha,
            weights=options.weights,
        )
        # High rates at the top, low ones at the bottom; no weight decay on norms and biases.
        groups = [
            *tfopt.optimizers.discriminative(model, lowest=0.1 if options.weights else 1.0),
            *tfopt.optimizers.no_decay_on_norm_and_bias(model),
        ]
        decay = keras.optimizers.schedules.CosineDecay(1e-3, updates)
        rate = tfopt.schedules.Warmup(decay, warmup_steps=max(1, updates // 10))
        optimizer = tfopt.optimizers.AdamW(rate, weight_decay=1e-2)
        compile_model(model, tfopt.optimizers.ParameterGroups(optimizer, groups))

    # Validation sees an average of the weights, and the average is kept.
    averaging = tfopt.callbacks.WeightAveraging(decay=0.95)
    monitor = tfopt.callbacks.TrainingMonitor()
    model.fit(train, validation_data=validation, epochs=options.epochs, callbacks=[averaging, monitor])

    # int8: a clone that computes with rounded values is trained a little, exported, loaded and compared.
    with strategy.scope():
        quantized = tfopt.compress.quantize_aware(model)
        compile_model(quantized, tfopt.optimizers.AdamW(3e-5))
    quantized.fit(train, validation_data=validation, epochs=1)
    file = tfopt.compress.export(
        quantized, options.output, "int8", representative_data=train, class_names=data.class_names
    )
    print(tfopt.compress.compare({"float": model, "int8 file": file}, test))


if __name__ == "__main__":
    main()
