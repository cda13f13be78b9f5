"""The closed vocabulary of the mall: every value has two synonyms in each of two languages, and each word one typo."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.mall.config import Mall
from data.mall.rng import uniforms

FORMS = 4  # (language, synonym)
FIRST = 2  # 0 pads, 1 is unknown
CHATTER = 24

# value -> synonyms of the first language | of the second
KNOWN = {
    "quality": "basic simple|sencillo basico, good solid|bueno firme, premium deluxe|selecto lujoso",
    "theme": (
        "retro vintage|antiguo clasico, sport active|deporte activo, floral garden|flores jardin, urban "
        "street|urbano calle, minimal plain|minimo liso, boho folk|bohemio rural"
    ),
    "colour": (
        "red scarlet|rojo carmin, amber orange|ambar naranja, yellow gold|amarillo dorado, green olive|verde "
        "oliva, teal aqua|turquesa agua, blue navy|azul marino, purple violet|morado violeta, pink rose|rosa "
        "fucsia"
    ),
    "pattern": (
        "solid uni|unido entero, striped stripes|rayas rayado, checked plaid|cuadros escoces, dotted "
        "dots|puntos lunares"
    ),
    "material": (
        "cotton jersey|algodon punto, leather hide|cuero piel, steel metal|acero metal, wood oak|madera "
        "roble, glass crystal|vidrio cristal, wool knit|lana tejido"
    ),
    "fit": (
        "slim narrow|estrecho fino, regular standard|regular normal, wide loose|ancho suelto, mini small|mini "
        "corto, maxi long|maxi largo"
    ),
    "season": (
        "spring fresh|primavera fresco, summer sunny|verano soleado, autumn fall|otono hojas, winter "
        "warm|invierno calido"
    ),
    "promo": (
        "new arrival|nuevo novedad, sale discount|rebaja descuento, hot bestseller|popular vendido, limited "
        "rare|limitado raro"
    ),
    "stars": (
        "terrible awful|terrible fatal, poor weak|pobre flojo, okay fine|pasable vale, nice pretty|bonito "
        "lindo, perfect great|perfecto genial"
    ),
    "key": (
        "colour tone|color tono, pattern print|estampado dibujo, material fabric|material tela, fit cut|corte "
        "talla, season time|temporada epoca, price cost|precio coste"
    ),
    "price": "cheap bargain|barato ganga, fair modest|justo medio, costly dear|caro costoso",
    "point": (
        "quality craft|calidad oficio, saving deal|ahorro oferta, brand label|marca sello, colour shade|color "
        "matiz, print motif|estampado motivo, material feel|material tacto, fit shape|corte forma, season "
        "weather|temporada clima"
    ),
    "glue": (
        "with and|con y, the this|el este, for to|para a, is feels|es parece, made designed|hecho creado, "
        "comes ships|viene llega"
    ),
}


@dataclass(frozen=True)
class Lexicon:
    start: dict[str, int]  # first word number of each kind
    count: dict[str, int]
    size: int  # correct words
    strings: tuple[str, ...]  # by token

    @property
    def tokens(self) -> int:
        """Rows of an embedding of words: padding, unknown, words, their typos."""
        return FIRST + 2 * self.size

    def pick(self, kind: str, *, value: np.ndarray, second: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Token of a value in the asked language, by the common synonym in two cases of three."""
        form = 2 * second.astype(np.int64) + (u > 2.0 / 3.0)
        return FIRST + self.start[kind] + FORMS * np.asarray(value) + form

    def misspelt(self, tokens: np.ndarray) -> np.ndarray:
        return tokens + self.size

    def means(self, tokens: np.ndarray, *, kind: str) -> np.ndarray:
        """Value that each token names, whatever its language, synonym or typo; -1 where it is of another kind."""
        word = np.asarray(tokens) - FIRST
        word = np.where(word >= self.size, word - self.size, word) - self.start[kind]
        return np.where(
            (word >= 0) & (word < FORMS * self.count[kind]) & (np.asarray(tokens) >= FIRST), word // FORMS, -1
        )

    def text(self, tokens: np.ndarray) -> str:
        return " ".join(self.strings[t] for t in tokens if t)


def lexicon(mall: Mall) -> Lexicon:
    return _lexicon(mall.seed, tree=mall.dims.tree, brands=mall.dims.brands)


@lru_cache(maxsize=8)
def _lexicon(seed: int, *, tree: tuple[int, int, int], brands: int) -> Lexicon:
    a, b, c = tree
    kinds = {"leaf": a * b * c, "mid": a * b, "top": a, "brand": brands, "chatter": CHATTER}
    kinds |= {kind: len(words.split(",")) for kind, words in KNOWN.items()}
    start, at = {}, 0
    words: list[str] = []
    for kind, count in kinds.items():
        start[kind] = at
        at += FORMS * count
        words += _known(KNOWN[kind]) if kind in KNOWN else _invented(seed, kind=kind, count=count)
    typos = [_typo(w) for w in words]
    return Lexicon(start=start, count=kinds, size=at, strings=("", "?", *words, *typos))


def _typo(word: str) -> str:
    """Two letters in the middle change places; a word of one letter is doubled."""
    i = len(word) // 2
    return word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :] if i else 2 * word


def _known(words: str) -> list[str]:
    return [form for value in words.split(",") for language in value.strip().split("|") for form in language.split()]


def _invented(seed: int, *, kind: str, count: int) -> list[str]:
    """Words of syllables; the two languages differ in their vowels' ends, brands are the same in both."""
    u = uniforms(seed, name=f"words {kind}", ids=np.arange(FORMS * count), draws=6)
    onset, vowel = ("b", "d", "f", "k", "l", "m", "n", "p", "r", "s", "t", "v", "sh", "tr"), "aeiou"
    out = []
    for n, row in enumerate(u):
        syllables = [onset[int(row[2 * i] * len(onset))] + vowel[int(row[2 * i + 1] * 5)] for i in range(3)]
        word = "".join(syllables) + ("s" if n % FORMS >= 2 else "n")
        out.append(word.capitalize() if kind == "brand" else word)
    if kind == "brand":
        for v in range(count):
            out[FORMS * v + 1 : FORMS * v + FORMS] = [out[FORMS * v]] * (FORMS - 1)
    return out
