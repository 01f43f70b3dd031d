"""The seeds of the fuzz targets, and what fuzzing once found: read, or refused by name, by every one of them."""

from pathlib import Path

import pytest
from fuzz.seeds import CORPUS
from fuzz.targets import TARGETS


@pytest.mark.filterwarnings("ignore")  # of what a damaged file makes numpy and Pillow say
@pytest.mark.parametrize("name", TARGETS)
def test_every_file_of_the_corpus_is_read_or_refused_by_name(tmp_path, name):
    target = TARGETS[name](tmp_path)
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        try:
            target(file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(Path(__file__).parent)}: {error!r}") from error
