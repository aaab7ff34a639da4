"""A fixed sample of random mistakes: each is reproduced, and none is named wrongly."""

import random_mistakes  # in tests/support


def test_no_random_mistake_is_named_wrongly():
    found = random_mistakes.run(seed=5, count=30, say=lambda words: None)
    assert not [each.wrong for each in found if each.wrong]
    assert sum(each.reproduced for each in found) >= 29
    assert len({kind for each in found for _, kinds in each.made for kind in kinds}) > 8
