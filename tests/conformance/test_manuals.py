"""The framework has every name under which the page links to its documentation."""

import pydoc

from common.files import ROOT
from common.page import manuals, source, topics


def test_every_documented_name_is_one_of_the_framework(name):
    folder = ROOT / "backends" / name
    looked_up = 0
    for call in topics.CALLS:
        shown = getattr(call, name)
        if shown is None:
            continue
        used = [source.where_used(folder / file, shown) for file in topics.CODE_FILES]
        full = next(found[1] for found in used if found)
        documented = manuals.documented(name, full)
        assert pydoc.locate(documented) is not None, documented
        looked_up += 1
    assert looked_up > 25
