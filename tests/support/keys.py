"""Keys that minisign 0.11 made for these tests (minisign -G -W), in a folder, and bundles that they sign."""

from pathlib import Path

from paraedge.signing import PrivateKey, read_private_key, sign_bundle
from paraedge_runtime import Bundle

_NAMES = {
    "release": (
        "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqpnjtq+9OwGulkFpUH9Mpx/35sbvtDRjN4hl8OU3UaDL9jrl"
        "EI8mWZ1Y/Pv55/qY1fy2o9q6RwrOe5eofa6TOVId14k2nExbAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "RWSqmeO2r707AZ1Y/Pv55/qY1fy2o9q6RwrOe5eofa6TOVId14k2nExb",
    ),
    "next": (
        "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAYDWmqru4n36D/lGAIHNbGDM7vtNNhZBaSLRWTJRXaKuK246M"
        "xAgaShK2iU2YDo2vaBI9HI5zknsDGhpPc6YfJs6z4m6nAsooAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "RWRgNaaqu7iffhK2iU2YDo2vaBI9HI5zknsDGhpPc6YfJs6z4m6nAsoo",
    ),
    "stranger": (
        "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAp+jH83CxapQBjSLvUfqdDWGYudbN5NOGq5sFy08YfBxch7B4"
        "Ry4wgWLqeQOhRvkd6Qvhd4nmhzM0X0Tgwyolz0cmqPee0H7KAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "RWSn6MfzcLFqlGLqeQOhRvkd6Qvhd4nmhzM0X0Tgwyolz0cmqPee0H7K",
    ),
}
PUBLIC = {name: public for name, (_, public) in _NAMES.items()}
KEY_ID = {"release": "013BBDAFB6E399AA", "next": "7E9FB8BBAAA63560", "stranger": "946AB170F3C7E8A7"}


def write_keys(folder: Path) -> Path:
    """NAME.key and NAME.pub of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (private, public) in _NAMES.items():
        (folder / f"{name}.key").write_text(f"untrusted comment: minisign encrypted secret key\n{private}\n")
        (folder / f"{name}.pub").write_text(f"untrusted comment: minisign public key {KEY_ID[name]}\n{public}\n")
    return folder


def private_key(folder: Path, name: str) -> PrivateKey:
    return read_private_key(write_keys(folder) / f"{name}.key", lambda: "there is no password")


def signed(bundle: Bundle | Path, folder: Path, *names: str) -> Bundle:
    """The bundle, signed where it stands by each key."""
    path = bundle.path if isinstance(bundle, Bundle) else bundle
    return sign_bundle(path, [private_key(folder, name) for name in names or ("release",)])
