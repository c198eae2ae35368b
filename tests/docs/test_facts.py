"""Numbers that stand on several pages are equal, and equal those of the code."""

import pytest
from facts import FACTS, texts

TEXTS = texts()


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_all_places_agree(fact):
    assert not fact.problems(TEXTS)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_changed_place_is_found(fact):
    page, match = fact.places(TEXTS)[-1]
    start, end = match.span(1)
    last = max(i for i in range(start, end) if TEXTS[page][i].isdigit())
    text = f"{TEXTS[page][:last]}{(int(TEXTS[page][last]) + 1) % 10}{TEXTS[page][last + 1 :]}"
    assert fact.problems({**TEXTS, page: text})
