"""Mutated bundles, signed and not, folders and zips: both readers say the same, and what is accepted is what it was."""

from support import campaign


def test_both_readers_refuse_what_is_another_bundle(tmp_path):
    results = campaign.run(600, 7, tmp_path)
    kinds = {name.partition(":")[0] for name in results}
    mutations = ("folder", "folder, hashed anew", "zip", "zip, hashed anew", "zip bytes")
    assert kinds == {f"{sign} {kind}" for sign in ("signed", "unsigned") for kind in mutations}
    assert sum(times for name, times in results.items() if name.endswith("refused")) > 300
    assert sum(results.values()) == 600
