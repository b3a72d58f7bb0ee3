# SPDX-License-Identifier: Apache-2.0
"""Facts with attributes, sentences that state them and questions about one of them.

Inventory (who has how many of what, in which color) and capitals are both of this kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pizza_embedded import vocabulary
from pizza_embedded.wording import UNKNOWN, Question, Word, parse


def fact_question(
    facts: Sequence[Mapping[str, str]], style: str, template: str, given: Sequence[str],
    target: str, asked: Mapping[str, str],
) -> Question:  # fmt: skip
    """Build a question about one attribute of the fact that matches some others.

    The answer survives the loss of a key as long as the rest still selects one fact: an asker who
    says "How many pears does _ have?" where only one person has pears is understood.

    Args:
        facts: Attribute texts by name, one mapping per fact.
        style: The kind of question.
        template: Its words, see :func:`parse`; the slot ``type`` marks what is asked.
        given: Names of the attributes that the question states.
        target: Name of the attribute that it asks for.
        asked: The texts that the question states.

    Returns:
        The question.
    """

    def candidates(lost: frozenset[str]) -> list[int]:
        known = [name for name in given if "q." + name not in lost]
        scores = []
        for index, fact in enumerate(facts):
            visible = [name for name in known if f"{index}.{name}" not in lost]
            conflict = any(fact[name] != asked[name] for name in visible)
            scores.append(-1 if conflict else len(visible))
        best = max(scores)
        return [index for index, score in enumerate(scores) if score == best and best > 0]

    def solve(lost: frozenset[str]) -> str:
        found = candidates(lost)
        if "q.type" in lost or len(found) != 1 or f"{found[0]}.{target}" in lost:
            return UNKNOWN
        return facts[found[0]][target]

    found = candidates(frozenset())
    value_slots = {f"{index}.{target}" for index in found}
    key_slots = {"q.type"} | {f"{index}.{name}" for index in (*found, "q") for name in given}
    words = parse(template, "q.", asked)
    return Question(style, words, solve, frozenset(value_slots), frozenset(key_slots))


# Sentences and questions by direction: in direction 0 the person (or country) is named before
# what is said about it and questions start from it, in direction 1 the other way round.
_FACTS = {
    "inventory": (
        (
            "name={name} has number={number} color={color} item={item}",
            "name={name} has number={number} color={color} item={item}",
            "name={name} owns number={number} color={color} item={item}",
            "name={name} bought number={number} color={color} item={item}",
            "name={name} carries number={number} color={color} item={item}",
            "name={name} got number={number} color={color} item={item}",
            "name={name} keeps number={number} color={color} item={item} at home",
            "in name={name}'s bag there are number={number} color={color} item={item}",
        ),
        (
            "the number={number} color={color} item={item} belong to name={name}",
            "number={number} color={color} item={item} belong to name={name}",
            "number={number} color={color} item={item} are at home with name={name}",
        ),
    ),
    "capital": (
        (
            "The capital of country={country} is city={city}",
            "The capital of country={country} is city={city}",
            "In this story the capital of country={country} is city={city}",
            "The capital city of country={country} is called city={city}",
        ),
        (
            "city={city} is the capital of country={country}",
            "In this story city={city} is the capital of country={country}",
        ),
    ),
}
# Kind, attributes stated, attribute asked for, words. "across" goes against every direction.
_QUESTIONS = {
    "inventory": {
        0: (
            ("how-many", "name item", "number",
             "type=How type=many item={item} does name={name} have?"),
            ("how-many", "name item", "number",
             "type=How type=many item={item} does name={name} have?"),
            ("how-many", "name item", "number",
             "type=How type=many item={item} does name={name} own?"),
            ("how-many", "name item color", "number",
             "type=How type=many color={color} item={item} does name={name} have?"),
            ("how-many", "name", "number", "type=How type=many things does name={name} have?"),
            ("what-color", "name item", "color", "What type=color are name={name}'s item={item}?"),
            ("what-color", "name item", "color", "Which type=color are name={name}'s item={item}?"),
            ("what", "name", "item", "type=What type=does name={name} have?"),
            ("what", "name", "item", "type=What things type=does name={name} have?"),
            ("what", "name number", "item",
             "type=What type=does name={name} have number={number} of?"),
        ),
        1: (
            ("who", "item", "name", "type=Who has the item={item}?"),
            ("who", "item", "name", "type=Who owns the item={item}?"),
            ("who", "number item", "name", "type=Who has number={number} item={item}?"),
            ("who", "color item", "name", "type=Who has the color={color} item={item}?"),
        ),
        "across": (
            ("how-many", "item", "number", "type=How type=many item={item} are there?"),
            ("what-color", "item", "color", "What type=color are the item={item}?"),
        ),
    },
    "capital": {
        0: (
            ("capital", "country", "city", "type=What is the type=capital of country={country}?"),
            ("capital", "country", "city", "type=What is the type=capital of country={country}?"),
            ("capital", "country", "city",
             "type=Which city is the type=capital of country={country}?"),
            ("capital", "country", "city", "type=Name the type=capital of country={country}."),
        ),
        1: (
            ("country", "city", "country", "city={city} is the capital of which type=country?"),
            ("country", "city", "country", "Of which type=country is city={city} the capital?"),
        ),
        "across": (),
    },
}  # fmt: skip
# Questions cut down to what is asked and one key: for training, not for held-out prompts.
_BRIEF_QUESTIONS = {
    "inventory": {
        0: (
            ("how-many", "name", "number", "type=How type=many, name={name}?"),
            ("what-color", "name", "color", "type=Color, name={name}?"),
            ("what", "name", "item", "type=What, name={name}?"),
            ("what", "number", "item", "type=What, number={number}?"),
        ),
        1: (
            ("who", "item", "name", "type=Who, item={item}?"),
            ("who", "number", "name", "type=Who, number={number}?"),
            ("what", "number", "item", "type=What, number={number}?"),
        ),
        "across": (
            ("how-many", "item", "number", "type=How type=many item={item}?"),
            ("what-color", "item", "color", "type=Color of the item={item}?"),
        ),
    },
    "capital": {
        0: (("capital", "country", "city", "type=Capital of country={country}?"),),
        1: (("country", "city", "country", "type=Country of city={city}?"),),
        "across": (),
    },
}


def _word_source(
    rng: random.Random, known: Sequence[str], unseen: Sequence[str], names: str, suffix: str = ""
) -> Callable[[], str]:
    """Return a function that draws distinct words: known, made up, or never seen in training."""
    used: set[str] = set()

    def draw() -> str:
        while True:
            if names == "unseen":
                word = rng.choice(unseen)
            elif names == "known" or rng.random() < 0.5:
                word = rng.choice(known)
            else:
                word = vocabulary.made_up(rng)
                word = word + suffix if suffix else word.capitalize()
            if word not in used:
                used.add(word)
                return word

    return draw


def state_facts(
    rng: random.Random,
    task: str,
    facts: Sequence[Mapping[str, str]],
    order: Sequence[int],
    direction: int | None = None,
) -> list[Word]:
    """Write facts as sentences, sometimes two joined by "and".

    Args:
        rng: Source of all choices.
        task: ``"inventory"`` or ``"capital"``.
        facts: See :func:`draw_facts`.
        order: Indices of facts; one may come more than once.
        direction: 0 or 1, see ``_FACTS``; None takes sentences of both.

    Returns:
        The words.
    """
    both = _FACTS[task]
    templates = both[0] + both[1] if direction is None else both[direction]
    words: list[Word] = []
    shared = rng.choice(templates) if rng.random() < 0.7 else None
    open_sentence = False
    for position, index in enumerate(order):
        template = shared or rng.choice(templates)
        fact = list(parse(template, f"{index}.", facts[index]))
        if not open_sentence:
            fact[0] = replace(fact[0], text=fact[0].text[:1].upper() + fact[0].text[1:])
        elif not fact[0].slot:
            fact[0] = replace(fact[0], text=fact[0].text[:1].lower() + fact[0].text[1:])
        last = position == len(order) - 1
        open_sentence = not last and not open_sentence and rng.random() < 0.5
        fact[-1] = replace(fact[-1], after="" if open_sentence else ".")
        if open_sentence and rng.random() < 0.3:
            fact[-1] = replace(fact[-1], after=rng.choice([",", ";"]))
        words += fact
        if open_sentence:
            words.append(Word("and"))
    return words


def _number(rng: random.Random) -> str:
    return str(rng.randint(2, 20) if rng.random() < 0.6 else rng.randint(2, 99))


def _inventory_facts(
    rng: random.Random, n_facts: int, names: str, share: str
) -> list[dict[str, str]]:
    person = _word_source(rng, vocabulary.NAMES, vocabulary.UNSEEN_NAMES, names)
    item = _word_source(rng, vocabulary.ITEMS, vocabulary.UNSEEN_ITEMS, names, suffix="s")
    numbers = rng.sample(range(2, 100), n_facts)
    colors = rng.sample(vocabulary.COLORS, n_facts)
    coloured = rng.random() < 0.7
    facts: list[dict[str, str]] = []
    for index in range(n_facts):
        number = _number(rng)
        taken = {fact["number"] for fact in facts}
        facts.append({
            "name": person(), "item": item(),
            "number": str(numbers[index]) if number in taken else number,
            "color": colors[index] if coloured else "",
        })  # fmt: skip
    if share and n_facts > 1:
        # Then that key alone no longer selects the fact.
        first, second = rng.sample(range(n_facts), 2)
        facts[second][share] = facts[first][share]
    return facts


def _capital_facts(
    rng: random.Random, n_facts: int, names: str, share: str
) -> list[dict[str, str]]:
    del share
    country = _word_source(rng, vocabulary.COUNTRIES, vocabulary.UNSEEN_COUNTRIES, names)
    city = _word_source(rng, vocabulary.CITIES, vocabulary.UNSEEN_CITIES, names)
    return [{"country": country(), "city": city()} for _ in range(n_facts)]


def list_facts(
    rng: random.Random, facts: Sequence[Mapping[str, str]], order: Sequence[int]
) -> list[Word]:
    """Write facts as bare attributes in any order, for example ``pears: green, Bob, 5.``."""
    words = []
    for index in order:
        names = [name for name, text in facts[index].items() if text]
        rng.shuffle(names)
        for place, name in enumerate(names):
            after = ":" if place == 0 else "." if place == len(names) - 1 else ","
            words.append(Word(facts[index][name], f"{index}.{name}", after=after))
    return words


def draw_facts(
    rng: random.Random, task: str, n_facts: int, *, names: str = "mixed", share: str = ""
) -> list[dict[str, str]]:
    """Draw the facts of an inventory or capitals document, attribute texts by name.

    ``share`` names an attribute that two facts of an inventory have in common.
    """
    make = _inventory_facts if task == "inventory" else _capital_facts
    return make(rng, n_facts, names, share)


def ask_facts(
    rng: random.Random,
    task: str,
    facts: Sequence[Mapping[str, str]],
    n_questions: int,
    direction: int | None = None,
    *,
    brief: bool = False,
) -> list[Question]:
    """Draw different answerable questions, at most ``n_questions``, each about a random fact.

    Args:
        rng: Source of all choices.
        task: ``"inventory"`` or ``"capital"``.
        facts: See :func:`draw_facts`.
        n_questions: Most questions.
        direction: 0 or 1, see ``_QUESTIONS``; None asks in every direction.
        brief: Cut the questions down to a key.

    Returns:
        The questions; fewer than asked for where the facts do not have as many.
    """
    by_direction = (_BRIEF_QUESTIONS if brief else _QUESTIONS)[task]
    if direction is None:
        table = by_direction[0] + by_direction[1] + by_direction["across"]
    else:
        table = by_direction[direction]
    questions: list[Question] = []
    styles = sorted({row[0] for row in table})
    for _ in range(40):
        style = rng.choice(styles)
        _, given, target, template = rng.choice([row for row in table if row[0] == style])
        fact = rng.choice(facts)
        attributes = given.split(" ")
        if not fact[target] or not all(fact[name] for name in attributes):
            continue
        question = fact_question(facts, style, template, attributes, target, fact)
        repeated = any(question.words == other.words for other in questions)
        if question.solve(frozenset()) == fact[target] and not repeated:
            questions.append(question)
            if len(questions) == n_questions:
                break
    return questions
