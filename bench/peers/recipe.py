"""A parameters file of `mnist train` as the peer train_pytorch_recipe.py reads it: without PyTorch or a YAML library."""

KNOWN = {"optimizer", "train_epochs", "batch_size", "learning_rate", "weight_decay", "hidden_layers", "dropout", "schedule",
         "warmup", "momentum", "nesterov", "augment", "rotation", "scale", "shear", "shift", "elastic_sigma", "elastic_alpha", "ensemble"}


def read(path):
    """The file's keys with the text of their values."""
    with open(path) as file:
        lines = [line.split("#")[0].strip() for line in file]
    return dict(line.split(": ", 1) for line in lines if line)


def unknown(path):
    """The file's keys that the peer does not know, in the alphabet's order."""
    return sorted(set(read(path)) - KNOWN)
