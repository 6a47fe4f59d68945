"""Words that several commands share."""

DATA_HELP = "a folder (class/*.jpg, or train/ and test/ with classes below), 'digits', or a TFDS name"
