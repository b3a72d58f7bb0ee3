# SPDX-License-Identifier: Apache-2.0
"""Words the generated documents are made of, and words kept away from training.

Every ``UNSEEN_*`` list is disjoint from what training sees, so a test over it measures whether the
model copies words it has never met or only recalls those it knows.
"""

from __future__ import annotations

import random


def _words(*lines: str) -> tuple[str, ...]:
    return tuple(word for line in lines for word in line.split())


NAMES = _words(
    "Ana Bob Carla David Emma Frank Grace Henry Iris Jack Karen Leo Maria Nina Oscar Paul Quinn",
    "Rosa Sam Tina Uma Victor Wendy Xavier Yara Zoe Alice Brian Chloe Dan Elena Felix Gina Hugo",
    "Ivan Julia Kevin Laura Mark Nora Omar Petra Ralph Sofia Tom Ursula Vera Will Anna Ben Clara",
    "Diego Eva Fred Greta Hans Ines Jonas Kate Lena Max Noah Olga Peter Rita Simon Tara Vince Walt",
    "Amir Bella Carlos Dora Erik Fiona George Hilda Ian Jane Kurt Lily Mia Nick Otto Pam",
    "Ruth Steve",
)
UNSEEN_NAMES = _words(
    "Kwame Priya Thandi Bjorn Saoirse Mateo Aylin Dmitri Ngozi Hiroshi Leila Rafael Ingrid Tariq",
    "Marcus Edith Gustav Yusuf Beatriz Connor Wilhelm Jasmine Rupert Zainab Fabian Monica",
)

ITEMS = _words(
    "apples pears plums cherries lemons oranges bananas grapes peaches melons books pens pencils",
    "cups plates spoons forks bowls hats coats shoes socks gloves scarves shirts coins stamps",
    "marbles balls kites dolls toys bikes cars boats trucks chairs tables lamps clocks bags boxes",
    "baskets bottles jars keys rings beads ribbons flowers roses tulips stones shells buttons",
    "candles balloons cookies cakes muffins eggs carrots onions peppers tomatoes potatoes beans",
    "nuts berries notebooks rulers erasers crayons brushes tickets cards maps flags drums bells",
)
UNSEEN_ITEMS = _words(
    "mangoes walnuts lanterns violins teapots umbrellas magnets puzzles trumpets",
    "pumpkins bracelets",
    "sweaters ladders hammers turnips pillows wallets helmets feathers cactuses radishes goblets",
)

COLORS = _words(
    "red green blue yellow black white brown pink purple orange gray golden silver violet beige",
    "crimson scarlet navy olive teal",
)

COUNTRIES = _words(
    "France Italy Spain Germany Japan China India Brazil Canada Mexico Egypt Kenya Norway Sweden",
    "Finland Poland Greece Turkey Russia Chile Peru Cuba Iran Iraq Nepal Portugal Ireland Austria",
    "Hungary Belgium Denmark Morocco Ghana Nigeria Angola Zambia Vietnam Thailand Malaysia Korea",
    "Australia Argentina Bolivia Ecuador Colombia Jordan Lebanon Serbia Croatia Romania",
)
UNSEEN_COUNTRIES = _words(
    "Iceland Uruguay Mongolia Tunisia Slovenia Paraguay Senegal Cambodia Estonia Rwanda Botswana",
    "Albania Honduras Namibia Latvia Ukraine",
)
CITIES = _words(
    "Paris Rome Madrid Berlin Tokyo Beijing Delhi Lima Ottawa Cairo Nairobi Oslo",
    "Stockholm Helsinki",
    "Warsaw Athens Ankara Moscow Santiago Havana Tehran Baghdad Lisbon Dublin Vienna Budapest",
    "Brussels Copenhagen Rabat Accra Abuja Luanda Lusaka Hanoi Bangkok Seoul Canberra Quito Bogota",
    "Amman Beirut Belgrade Zagreb London Boston Chicago Sydney Mumbai Toronto Geneva",
)
UNSEEN_CITIES = _words(
    "Reykjavik Montevideo Tunis Ljubljana Asuncion Dakar Tallinn Kigali Gaborone Tirana Windhoek",
    "Riga Kyiv Hamburg Seville Osaka Denver Marseille Glasgow Tbilisi",
)

POSITIVE = _words(
    "wonderful great excellent fantastic amazing lovely superb brilliant good delightful perfect",
    "pleasant charming beautiful splendid marvelous enjoyable impressive nice fun awesome",
    "delicious friendly fabulous",
)
NEGATIVE = _words(
    "terrible awful horrible bad dreadful boring dull poor disappointing ugly nasty lousy",
    "unpleasant miserable annoying disgusting rude weak sad mediocre painful tedious",
    "atrocious ghastly",
)
SUBJECTS = _words(
    "film book soup hotel concert play restaurant service song game trip room coffee story show",
    "lecture museum party dinner phone chair website album series garden",
)

FILLERS = (
    "It was a sunny morning.",
    "They met at the market.",
    "The street was quiet.",
    "Nobody was in a hurry.",
    "A dog slept near the door.",
    "The bus came late that day.",
    "Outside it started to rain.",
    "The radio played an old tune.",
    "Someone opened a window.",
    "The shop closes in the evening.",
    "A letter lay on the table.",
    "We had been waiting for a while.",
    "The lights went on one by one.",
    "Then the phone rang.",
    "The road goes along the river.",
)

_ONSETS = _words(
    "b c d f g h j k l m n p r s t v w y z br ch cl dr fl gr kr pl pr sk sl st th tr",
)
_VOWELS = _words("a e i o u a e i o ai ea io ou ia")
_CODAS = ("", "", "", "n", "r", "s", "l", "m", "t", "k", "d", "nd", "rt", "sh", "lk", "x")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def made_up(rng: random.Random) -> str:
    """Return a lower-case word of 3 to 11 letters that (almost surely) exists in no language.

    One in five is a run of arbitrary letters: it makes every piece of the tokenizer occur, so that
    copying does not depend on a word looking like the others.
    """
    if rng.random() < 0.2:
        return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(3, 8)))
    parts = [
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.randint(1, 3))
    ]
    word = "".join(parts)[:11]
    return word if len(word) >= 3 else word + rng.choice(_CODAS[3:]) + "a"
