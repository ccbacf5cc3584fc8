"""One word for one thing: no retired words in product code, and no class name twice.

What does not pass yet is listed in tests/unit/vocabulary_remaining.py. The lists may only get shorter: an entry that is
not needed any more fails, too.
"""

from __future__ import annotations

import ast

from tests.support.vocabulary import classes, found, messages_of, retired_in
from tests.unit.vocabulary_remaining import REMAINING, TWICE

SHORTEN = "run `python -m tests.support.vocabulary` to shorten the lists"


def test_no_retired_word_is_in_a_name_or_a_message() -> None:
    new = {file: sorted(words - REMAINING.get(file, frozenset())) for file, words in found().items()}
    assert {file: words for file, words in new.items() if words} == {}


def test_the_list_of_remaining_words_only_gets_shorter() -> None:
    gone = {file: sorted(words - found().get(file, frozenset())) for file, words in REMAINING.items()}
    assert {file: words for file, words in gone.items() if words} == {}, SHORTEN


def test_no_two_classes_have_one_name() -> None:
    assert {name: sorted(files) for name, files in classes().items() if name not in TWICE} == {}


def test_the_list_of_class_names_that_are_used_twice_only_gets_shorter() -> None:
    assert TWICE - classes().keys() == set(), SHORTEN


def test_the_words_of_names_and_sentences_are_found() -> None:
    assert retired_in("_was_told") == {"told"}
    assert retired_in("BatchTwins") == {"twins"}
    assert retired_in("TOLD") == {"told"}
    assert retired_in("DeadLetterQueue") == retired_in("dead_letters") == retired_in("a dead letter") == set()
    assert retired_in("the letters of a queue") == {"letters"}
    tree = ast.parse('log.warning("it was %s", "heard", extra={"event": "door_open"})\nraise Gone(f"{a} is not kept")')
    assert {word for text in messages_of(tree) for word in retired_in(text)} == {"heard", "door", "kept"}
