"""The `tfopt` command."""


def main() -> None:
    """placeholder"""
