"""ImageNet from scratch on whatever devices there are: TFDS, `make_strategy()`, exact resume, int8.

    python examples/imagenet.py --data-dir tensorflow_datasets
    tfopt launch -n 2 --max-restarts 3 examples/imagenet.py --data-dir /nfs/tensorflow_datasets

Prepare the data once with `tfds build imagenet2012`. Killed or preempted, the same command goes on where
it was. The recipe is that of the MobileNetV2 paper, with cosine decay and an average of the weights.
"""

import argparse
import pathlib

import keras

import tfopt


def parse() -> argparse.Namespace:
    """Command line: every default is for ImageNet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="imagenet2012", help="TFDS name")
    parser.add_argument("--data-dir", help="where TFDS keeps its data")
    parser.add_argument("--model", default="mobilenet_v2", help="as in tfopt.models.mobilenet")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--replica-batch-size", type=int, default=96)
    parser.add_argument("--precision", default="auto", help="auto: bfloat16 or float16 where it is fast")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/imagenet"))
    return parser.parse_args()


def main() -> None:
    """The whole story."""
    options = parse()
    strategy = tfopt.distribute.make_strategy(precision=options.precision)
    print(tfopt.distribute.describe(strategy))
    replicas = strategy.num_replicas_in_sync
    batch_size = options.replica_batch_size * replicas

    data = tfopt.data.load(options.data, data_dir=options.data_dir)
    augment = tfopt.data.Augment(flip="horizontal", crop=0.08, color=0.4)
    # Each worker reads its part of every global batch; that the parts make the whole is checked.
    train = tfopt.distribute.sharded(
        strategy,
        lambda size, shard: tfopt.data.pipeline(
            data.train, size, image_size=options.image_size, augment=augment, shard=shard
        ),
        batch_size=batch_size,
    )
    held_out = data.validation if data.test is None else data.test
    test = tfopt.data.pipeline(held_out, batch_size, image_size=options.image_size, shuffle=False)
    updates = options.epochs * int(train.cardinality())

    with strategy.scope():
        model = tfopt.models.mobilenet(
            options.model, len(data.class_names), image_size=options.image_size, alpha=options.alpha
        )
        # 0.045 is the paper's rate for a batch of 96; it grows with the square root of the replicas.
        decay = keras.optimizers.schedules.CosineDecay(0.045, updates)
        rate = tfopt.distribute.scale_learning_rate(decay, strategy, rule="sqrt", warmup_steps=updates // 30)
        optimizer = tfopt.optimizers.RMSprop(rate, rho=0.9, momentum=0.9, epsilon=1.0, weight_decay=4e-5)
        groups = tfopt.optimizers.no_decay_on_norm_and_bias(model)
        model.compile(
            tfopt.optimizers.ParameterGroups(optimizer, groups),
            "sparse_categorical_crossentropy",
            metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")],
        )

    model.fit(
        train,
        validation_data=test,
        epochs=options.epochs,
        callbacks=[
            tfopt.callbacks.Resume(options.output / "checkpoints", train),
            tfopt.callbacks.WeightAveraging(decay=0.9999),
            tfopt.callbacks.TrainingMonitor(),
            keras.callbacks.CSVLogger(options.output / "log.csv", append=True),
        ],
    )
    model.save(options.output / "model.keras")
    pixels = train.take(16).map(lambda images, labels: images)
    file = tfopt.compress.export(
        model, options.output / "model.tflite", "int8", pixels, class_names=data.class_names
    )
    print(tfopt.compress.compare({"float": model, "int8 file": file}, test))


if __name__ == "__main__":
    main()
