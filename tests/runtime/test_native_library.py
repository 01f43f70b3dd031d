"""The Python extension as a device's loader sees it: pages of 16 KiB, and no names but its own."""

import importlib.util
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile


@pytest.fixture(scope="module")
def library():
    """The extension, open as an ELF file."""
    found = importlib.util.find_spec("paraedge_runtime._native")
    assert found is not None
    assert found.origin is not None
    with Path(found.origin).open("rb") as file:
        yield ELFFile(file)


def test_it_loads_on_pages_of_16_kib(library):
    loaded = [segment for segment in library.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert len(loaded) > 1
    assert all(segment["p_align"] % 16384 == 0 for segment in loaded)


def test_it_exports_its_init_function_and_nothing_else(library):
    # A standard library that is linked in too: names of it that are exported get bound to another one in the process.
    symbols = library.get_section_by_name(".dynsym").iter_symbols()
    exported = {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"}
    assert exported == {"PyInit__native"}
